// The built package in real Chromium: the demo edit in the page and in a worker gives the reference's picture.
// Also what an app meets on the way: cancelling, sessions, errors with codes, other engines, a strict content policy.
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import type { Browser, Page } from 'playwright-core';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type * as InPage from '../../sdk/src/browser.ts';
import type * as InWorker from '../../sdk/src/worker/client.ts';
import { demoEdit } from '../support/demo-edit.ts';
import { psnr } from '../support/psnr.ts';
import { launch, openPage } from './support/chromium.ts';
import { serve, type TestServer } from './support/server.ts';

const root = fileURLToPath(new URL('../..', import.meta.url));
const model = '/examples/demo-model/model';
const { request, expected, input: fixture } = await demoEdit();
const input = `/input/${fixture.file}`;

type Loader = typeof InPage.Kontext | typeof InWorker.Kontext;
const [IN_PAGE, IN_WORKER] = ['/dist/browser/kontext.js', '/dist/browser/client.js'];

declare global {
  /** In the page: the engines by the script they came from. */
  var engines: Record<string, InPage.Kontext>;
  /** In the page: a worker that notes in `moved`, after each message with pictures, whether they have left it. */
  function tellingWorker(): Worker;
}

let server: TestServer;
let browser: Browser;
let page: Page;
let problems: string[];

beforeAll(async () => {
  server = await serve(root);
  server.mounts['/input/'] = fixture.folder;
  browser = await launch();
  ({ page, problems } = await openPage(browser, `${server.url}/blank.html`));
  await page.evaluate(() => {
    const moved: boolean[] = [];
    const source = `import '${location.origin}/dist/browser/worker.js';
      const post = self.postMessage;
      self.postMessage = (message, transfer = []) => {
        post.call(self, message, transfer);
        const pictures = message.value?.images ?? (message.event?.preview ? [message.event.preview] : []);
        for (const { data } of pictures) post.call(self, { type: 'moved', moved: data.byteLength === 0 });
      };`;
    const tellingWorker = () => {
      const url = URL.createObjectURL(new Blob([source], { type: 'text/javascript' }));
      const worker = new Worker(url, { type: 'module' });
      worker.addEventListener('message', ({ data }) => data.type === 'moved' && moved.push(data.moved));
      return worker;
    };
    Object.assign(globalThis, { engines: {}, moved, tellingWorker });
  });
});
afterAll(async () => {
  await browser?.close();
  await server?.close();
});

describe.each([
  ['in the page', IN_PAGE],
  ['in a worker', IN_WORKER],
])('%s', (_, script) => {
  it('makes the reference’s picture', async () => {
    const { image, events, adapter } = await page.evaluate(
      async ({ script, model, input, request }) => {
        const { Kontext } = (await importModule(script)) as { Kontext: Loader };
        const kontext = await (script.includes('client')
          ? (Kontext as typeof InWorker.Kontext).load(model, { worker: tellingWorker() })
          : Kontext.load(model));
        engines[script] = kontext as InPage.Kontext;
        const events: { type: string; progress?: number }[] = [];
        let result: InPage.EditResult | undefined;
        for await (const event of kontext.stream({ ...request, image: input, preview: { every: 2 } })) {
          if (event.type === 'result') result = event.result;
          else events.push({ type: event.type, progress: event.progress });
        }
        const { width, height, data } = result!.image;
        return { image: { width, height, data: [...data] }, events, adapter: kontext.adapter };
      },
      { script, model, input, request },
    );
    expect(adapter?.architecture).toBe('swiftshader');
    const decibels = psnr({ ...image, data: new Uint8ClampedArray(image.data) }, expected);
    console.log(`${script}: ${decibels.toFixed(1)} dB of the reference`);
    expect(decibels).toBeGreaterThan(55);
    const types = events.map(({ type }) => type);
    expect(types.filter((type) => type === 'step')).toHaveLength(request.steps);
    expect(types).toContain('preview');
    expect(events.at(-1)).toEqual({ type: 'done', progress: 1 });
    expect(problems).toEqual([]);
  });

  it('stops when cancelled, and says so with its code', async () => {
    const outcome = await page.evaluate(
      async ({ script, input, request }) => {
        const kontext = engines[script]!;
        const stop = new AbortController();
        let steps = 0;
        const error = await kontext
          .edit({
            ...request,
            steps: 200,
            image: input,
            signal: stop.signal,
            onProgress: ({ type }) => {
              if (type === 'step' && ++steps === 2) stop.abort('enough');
            },
          })
          .catch((error: InPage.KontextError) => error);
        return { code: 'code' in error && error.code, cause: 'cause' in error && error.cause, steps };
      },
      { script, input, request },
    );
    expect(outcome.code).toBe('aborted');
    expect(outcome.cause).toBe('enough');
    expect(outcome.steps).toBeLessThan(10);
  });

  it('keeps the codes and details of errors', async () => {
    const errors = await page.evaluate(
      async ({ script, input, model }) => {
        const { Kontext, KontextError } = (await importModule(script)) as typeof InPage;
        const kontext = engines[script]!;
        const codeOf = async (work: Promise<unknown>) => {
          const error = await work.then(
            () => undefined,
            (error: unknown) => error,
          );
          return error instanceof KontextError ? error.code : String(error);
        };
        return [
          await codeOf(kontext.edit({ image: input, prompt: '' })),
          await codeOf(kontext.edit({ image: new Blob(['no picture']), prompt: 'x' })),
          await codeOf(kontext.edit({ image: '/nowhere.png', prompt: 'x' })),
          await codeOf(Kontext.load(`${model}/nothing`)),
        ];
      },
      { script, input, model },
    );
    expect(errors).toEqual(['invalid-request', 'image-invalid', 'download-failed', 'weights-invalid']);
  });

  it('undoes a turn of a session', async () => {
    const history = await page.evaluate(
      async ({ script, input, request }) => {
        const kontext = engines[script]!;
        const session = kontext.session(input);
        const { prompt, ...options } = request;
        const first = await session.edit(prompt, { ...options, steps: 1 });
        await session.edit('remove the apple', { ...options, steps: 1 });
        session.undo();
        const current = session.current as { data: Uint8ClampedArray };
        const same = current.data.every((value, i) => value === first.image.data[i]);
        return { turns: session.history.length, canRedo: session.canRedo, same, bytes: current.data.length };
      },
      { script, input, request },
    );
    expect(history).toEqual({ turns: 1, canRedo: true, same: true, bytes: 64 * 64 * 4 });
  });
});

it('two engines work at once, each as if it were alone', async () => {
  const outcome = await page.evaluate(
    async ({ scripts, input, request }) => {
      const [a, b] = scripts.map((script) => engines[script]!);
      const one = { ...request, steps: 2, image: input };
      const alone = await a!.edit(one);
      const [beside, other] = await Promise.all([a!.edit(one), b!.edit({ ...one, seed: 8 })]);
      const stop = new AbortController();
      const cancelled = b!.edit({ ...one, steps: 300, signal: stop.signal }).catch((error) => error.code);
      const onProgress = ({ type }: { type: string }) => type === 'step' && stop.abort();
      const whileCancelled = await a!.edit({ ...one, onProgress });
      const same = (x: InPage.EditResult) => x.image.data.every((value, i) => value === alone.image.data[i]);
      return [same(beside), same(other), await cancelled, same(whileCancelled)];
    },
    { scripts: [IN_PAGE, IN_WORKER], input, request },
  );
  expect(outcome).toEqual([true, false, 'aborted', true]);
  expect(problems).toEqual([]);
});

it('pictures and previews leave the worker, they are not copied', async () => {
  const moved = await page.evaluate(() => (globalThis as unknown as { moved: boolean[] }).moved);
  expect(moved.length).toBeGreaterThan(4);
  expect(moved).not.toContain(false);
});

it.each([IN_PAGE, IN_WORKER])('%s refuses work once closed, and leaves the other alone', async (script) => {
  const code = await page.evaluate(
    async ({ script, input }) => {
      const kontext = engines[script]!;
      await kontext.close();
      await kontext.close();
      return kontext.edit({ image: input, prompt: 'x' }).catch((error: InPage.KontextError) => error.code);
    },
    { script, input },
  );
  expect(code).toBe('closed');
  if (script === IN_WORKER) return;
  const steps = await page.evaluate(
    async ({ script, input, request }) =>
      (await engines[script]!.edit({ ...request, steps: 1, image: input })).options.steps,
    { script: IN_WORKER, input, request },
  );
  expect(steps).toBe(1);
});

it.each([
  ['inlined module', {}],
  ['module by URL', { host: { wasmUrl: '/dist/browser/kontext.wasm' } }],
])('opens the model under the content policy of the guide: %s', async (name, options) => {
  const [, policy] = /`(default-src [^`]*)`/.exec(readFileSync(`${root}/docs/guide/web.md`, 'utf8'))!;
  const strict = await serve(root, { 'content-security-policy': policy! });
  try {
    const opened = await openPage(browser, `${strict.url}/blank.html`);
    const architecture = await opened.page.evaluate(
      async ({ model, options }) => {
        await importModule('/dist/browser/element.js');
        document.body.append(document.createElement('kontext-editor'));
        const { Kontext } = (await importModule('/dist/browser/client.js')) as typeof InWorker;
        const kontext = await Kontext.load(model, options);
        const { architecture } = kontext.adapter!;
        await kontext.close();
        return architecture;
      },
      { model, options },
    );
    expect(architecture).toBe('swiftshader');
    expect(opened.problems).toEqual([]);
    const asked = strict.log.map(({ path }) => path);
    expect(asked.includes('/dist/browser/kontext.wasm')).toBe(name === 'module by URL');
    expect(asked.includes('/dist/browser/wasm.js')).toBe(name === 'inlined module');
  } finally {
    await strict.close();
  }
});

it('the minimal page has fewer than 30 lines and edits', async () => {
  expect(readFileSync(`${root}/examples/minimal-page/index.html`, 'utf8').trim().split('\n').length).toBeLessThan(30);
  const opened = await openPage(browser, `${server.url}/examples/minimal-page/index.html`);
  await opened.page.waitForFunction(
    () => !/^Loading|%$/.test(document.querySelector('#status')!.textContent!),
    undefined,
    {
      timeout: 0,
      polling: 200,
    },
  );
  expect(await opened.page.locator('#status').textContent()).toBe('Done');
  const [red, , blue] = await opened.page.evaluate(() => [
    ...document.querySelector('canvas')!.getContext('2d')!.getImageData(2, 2, 1, 1).data,
  ]);
  // The corner was red before.
  expect(blue).toBeGreaterThan(red!);
  expect(opened.problems).toEqual([]);
});
