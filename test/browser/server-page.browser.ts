// The page at `/` of kontext serve, in a browser without a GPU: the server does the work.
import { fileURLToPath } from 'node:url';
import type { Browser } from 'playwright-core';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { createServer, type KontextServer, type ListeningServer, listen, makeKey } from '../../sdk/src/server/index.ts';
import { fakeEngine } from '../server/support/fake-engine.ts';
import { launch, openPage } from './support/chromium.ts';

const { key, entry } = makeKey('visitor');
let browser: Browser;
let server: KontextServer;
let port: ListeningServer;

beforeAll(async () => {
  browser = await launch();
  server = createServer({
    models: [{ name: 'kontext', engine: fakeEngine({ stepMs: 20 }), defaults: { steps: 4 } }],
    keys: [entry],
    processMetrics: false,
  });
  port = await listen(server.fetch, { port: 0 });
});
afterAll(async () => {
  await browser.close();
  await server.close();
  await port.stop();
});

it('asks for the key, edits, and shows what came back', async () => {
  const { page } = await openPage(browser, `${port.url}/`);
  await page.locator('#key input').fill(key);
  await page.locator('#key button').click();
  await page.waitForFunction(() => (document.querySelector('#key') as HTMLElement).hidden);
  const [chooser] = await Promise.all([page.waitForEvent('filechooser'), page.locator('kontext-editor .pick').click()]);
  await chooser.setFiles(fileURLToPath(new URL('../../examples/demo-model/inputs/apple-on-red.png', import.meta.url)));
  await page.locator('kontext-editor #prompt').fill('make the background blue');
  await page.locator('kontext-editor button.edit').click();
  await page.waitForFunction(() => document.querySelectorAll('kontext-editor').length === 1);
  await page.waitForFunction(() => {
    const { shadowRoot } = document.querySelector('kontext-editor')!;
    return shadowRoot!.querySelectorAll('.history li').length === 2;
  });
  expect(await page.evaluate(() => document.querySelector<HTMLElement>('kontext-editor')!.dataset.state)).toBe('ready');
  await page.close();
});
