// The built package in real Chromium: the same edit in the page, in a worker and in Node gives the same picture.
// Also what an app meets on the way: cancelling, sessions, errors with codes, the loss of the GPU.
import { fileURLToPath } from 'node:url';
import type { Browser, Page } from 'playwright-core';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type * as InPage from '../../sdk/src/browser.ts';
import { Kontext } from '../../sdk/src/node.ts';
import type * as InWorker from '../../sdk/src/worker/client.ts';
import { psnr } from '../support/psnr.ts';
import { launch, openPage } from './support/chromium.ts';
import { serve, type TestServer } from './support/server.ts';

const root = fileURLToPath(new URL('../..', import.meta.url));
const model = '/examples/demo-model/model';
const input = '/examples/demo-model/inputs/apple-on-red.png';
const request = { prompt: 'make the background blue', steps: 4, seed: 7 };

type Loader = typeof InPage.Kontext | typeof InWorker.Kontext;
type Pixels = { width: number; height: number; data: Uint8ClampedArray<ArrayBuffer> };

let server: TestServer;
let browser: Browser;
let page: Page;
let problems: string[];
let expected: Promise<Pixels> | undefined;

beforeAll(async () => {
  server = await serve(root);
  browser = await launch();
  ({ page, problems } = await openPage(browser, `${server.url}/blank.html`));
});
afterAll(async () => {
  await browser?.close();
  await server?.close();
});

/** The same edit by Node on Dawn, made once. */
function pictureOfNode(): Promise<Pixels> {
  expected ??= editInNode();
  return expected;
}

async function editInNode(): Promise<Pixels> {
  await using kontext = await Kontext.load(`${root}${model}`, { precision: 'f32' });
  return (await kontext.edit({ ...request, image: `${root}${input}` })).image;
}

const pixels = ({ width, height, data }: { width: number; height: number; data: number[] }): Pixels => ({
  width,
  height,
  data: new Uint8ClampedArray(data),
});

describe.each([
  ['in the page', '/dist/browser/kontext.js'],
  ['in a worker', '/dist/browser/client.js'],
])('%s', (_, script) => {
  it('edits as Node does', async () => {
    const { image, events, adapter } = await page.evaluate(
      async ({ script, model, input, request }) => {
        const { Kontext } = (await importModule(script)) as { Kontext: Loader };
        const kontext = await Kontext.load(model);
        (globalThis as { kontext?: unknown }).kontext = kontext;
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
    const decibels = psnr(pixels(image), await pictureOfNode());
    console.log(`${script}: ${decibels.toFixed(1)} dB of Node's f32`);
    expect(decibels).toBeGreaterThan(45);
    const types = events.map(({ type }) => type);
    expect(types.filter((type) => type === 'step')).toHaveLength(4);
    expect(types).toContain('preview');
    expect(events.at(-1)).toEqual({ type: 'done', progress: 1 });
    expect(problems).toEqual([]);
  });

  it('stops when cancelled, and says so with its code', async () => {
    const outcome = await page.evaluate(
      async ({ input, request }) => {
        const kontext = (globalThis as unknown as { kontext: InPage.Kontext }).kontext;
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
      { input, request },
    );
    expect(outcome.code).toBe('aborted');
    expect(outcome.cause).toBe('enough');
    expect(outcome.steps).toBeLessThan(10);
  });

  it('keeps the codes and details of errors', async () => {
    const errors = await page.evaluate(
      async ({ script, input, model }) => {
        const { Kontext, KontextError } = (await importModule(script)) as typeof InPage;
        const kontext = (globalThis as unknown as { kontext: InPage.Kontext }).kontext;
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
      async ({ input, request }) => {
        const kontext = (globalThis as unknown as { kontext: InPage.Kontext }).kontext;
        const session = kontext.session(input);
        const { prompt, ...options } = request;
        const first = await session.edit(prompt, { ...options, steps: 1 });
        await session.edit('remove the apple', { ...options, steps: 1 });
        session.undo();
        const current = session.current as { data: Uint8ClampedArray };
        const same = current.data.every((value, i) => value === first.image.data[i]);
        return { turns: session.history.length, canRedo: session.canRedo, same, bytes: current.data.length };
      },
      { input, request },
    );
    expect(history).toEqual({ turns: 1, canRedo: true, same: true, bytes: 64 * 64 * 4 });
  });

  it('refuses work once closed', async () => {
    const code = await page.evaluate(async (input) => {
      const kontext = (globalThis as unknown as { kontext: InPage.Kontext }).kontext;
      await kontext.close();
      await kontext.close();
      return kontext.edit({ image: input, prompt: 'x' }).catch((error: InPage.KontextError) => error.code);
    }, input);
    expect(code).toBe('closed');
  });
});
