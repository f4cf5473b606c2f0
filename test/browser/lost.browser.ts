// The GPU taken away in the middle of an edit, in the page and in a worker.
// The edit fails with its code, and the next one gives the picture without any help from the app, from the cache: the model
// is off the network by then. So does the same page after a reload.
import { fileURLToPath } from 'node:url';
import type { Browser, Page } from 'playwright-core';
import { afterAll, beforeAll, expect, it } from 'vitest';
import type * as InPage from '../../sdk/src/browser.ts';
import { launch, openPage } from './support/chromium.ts';
import { serve, type TestServer } from './support/server.ts';

const root = fileURLToPath(new URL('../..', import.meta.url));
const model = '/examples/demo-model/model';
const request = {
  image: '/examples/demo-model/inputs/apple-on-red.png',
  prompt: 'make the background blue',
  steps: 2,
  seed: 7,
};

let server: TestServer;
let browser: Browser;
let page: Page;

beforeAll(async () => {
  server = await serve(root);
  browser = await launch();
  ({ page } = await openPage(browser, `${server.url}/blank.html`));
  await page.exposeFunction('cutNetwork', () => {
    server.fail = (path) => path.startsWith(model);
  });
});
afterAll(async () => {
  await browser?.close();
  await server?.close();
});

it.each([
  ['in the page', '/dist/browser/kontext.js'],
  ['in a worker', '/dist/browser/client.js'],
])('%s: rejects with device-lost, and the next edit gives the same picture', async (_, script) => {
  server.fail = () => false;
  await page.evaluate(async () => {
    const { clearCache } = (await importModule('/dist/browser/kontext.js')) as typeof InPage;
    await clearCache();
  });
  const outcome = await page.evaluate(
    async ({ script, model, request }) => {
      const { Kontext } = (await importModule(script)) as typeof InPage;
      // Keeps the last device where it can be destroyed from outside the engine.
      const capture = `
        const original = GPUAdapter.prototype.requestDevice;
        GPUAdapter.prototype.requestDevice = async function (...rest) {
          return (globalThis.lastDevice = await original.apply(this, rest));
        };
        globalThis.addEventListener('message', ({ data }) => data === 'destroy' && globalThis.lastDevice.destroy());`;
      const inWorker = script.includes('client');
      const source = inWorker ? `${capture}\nimport '${location.origin}/dist/browser/worker.js';` : capture;
      const url = URL.createObjectURL(new Blob([source], { type: 'text/javascript' }));
      const worker = inWorker ? new Worker(url, { type: 'module' }) : undefined;
      if (!worker) await importModule(url);
      const kontext = await Kontext.load(model, { ...(worker && { worker }) } as InPage.LoadOptions);
      const before = await kontext.edit(request);
      await (globalThis as unknown as { cutNetwork(): Promise<void> }).cutNetwork();
      const error = await kontext
        .edit({
          ...request,
          steps: 300,
          onProgress: (event) => {
            if (event.type !== 'step' || event.step !== 2) return;
            if (worker) worker.postMessage('destroy');
            else window.postMessage('destroy');
          },
        })
        .catch((error: InPage.KontextError) => error);
      const after = await kontext.edit(request);
      await kontext.close();
      return {
        code: 'code' in error ? error.code : 'no error',
        reason: 'details' in error && error.details.reason,
        picture: [...after.image.data],
        same: after.image.data.every((value, i) => value === before.image.data[i]),
      };
    },
    { script, model, request },
  );
  expect(outcome).toMatchObject({ code: 'device-lost', reason: 'destroyed', same: true });
  await page.reload();
  const again = await page.evaluate(
    async ({ script, model, request }) => {
      const { Kontext } = (await importModule(script)) as typeof InPage;
      const kontext = await Kontext.load(model);
      const { image } = await kontext.edit(request);
      await kontext.close();
      return [...image.data];
    },
    { script, model, request },
  );
  expect(again).toEqual(outcome.picture);
});
