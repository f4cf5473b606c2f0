// <kontext-editor> on its example page, by keyboard and by drag and drop, held to axe-core's rules in light and dark.
// Its screenshots go to docs/pictures when KONTEXT_SCREENSHOTS is set.
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import type { Browser, Page } from 'playwright-core';
import { afterAll, beforeAll, expect, it } from 'vitest';
import type { KontextEditor } from '../../sdk/src/element/element.ts';
import { launch, openPage } from './support/chromium.ts';
import { serve, type TestServer } from './support/server.ts';

const root = fileURLToPath(new URL('../..', import.meta.url));
const axe = readFileSync(`${root}/node_modules/axe-core/axe.min.js`, 'utf8');

let server: TestServer;
let browser: Browser;
let page: Page;
let problems: string[];

beforeAll(async () => {
  server = await serve(root);
  browser = await launch();
  ({ page, problems } = await openPage(browser, `${server.url}/examples/browser-editor/index.html`));
  await page.waitForFunction(() => document.querySelectorAll('#pictures button').length === 4);
  // Few steps: the adapter is a processor.
  await page.evaluate(() => document.querySelector('kontext-editor')!.setAttribute('steps', '3'));
  await page.evaluate(() => document.querySelector('kontext-editor')!.setAttribute('preview', '1'));
});
afterAll(async () => {
  await browser?.close();
  await server?.close();
});

const status = () => page.locator('kontext-editor [role=status]').textContent();

async function violations(): Promise<string[]> {
  await page.evaluate(axe);
  return page.evaluate(async () => {
    const { axe } = globalThis as unknown as {
      axe: { run(): Promise<{ violations: { id: string; nodes: { html: string }[] }[] }> };
    };
    const { violations } = await axe.run();
    return violations.map(({ id, nodes }) => `${id}: ${nodes.map(({ html }) => html).join(' ')}`);
  });
}

async function screenshot(name: string): Promise<void> {
  if (process.env.KONTEXT_SCREENSHOTS)
    await page.screenshot({ path: `${root}/docs/pictures/${name}.png`, fullPage: true });
}

it('says what is wrong with a picture it cannot read', async () => {
  await drop('notes.txt', 'text/plain', Buffer.from('no picture'));
  await page.waitForFunction(() => document.querySelector('kontext-editor')!.dataset.state === 'failed');
  expect(await status()).toContain('cannot be read as a picture');
});

it('opens a dropped picture', async () => {
  const file = readFileSync(`${root}/examples/demo-model/inputs/apple-on-red.png`);
  await drop('apple.png', 'image/png', file);
  await page.waitForFunction(() => document.querySelector('kontext-editor')!.dataset.state === 'ready');
  expect(await status()).toBe('Picture opened, 64 by 64 pixels.');
  await screenshot('editor-opened');
});

it('edits from the keyboard, shows previews, and leaves the page responsive', async () => {
  await page.evaluate(() => {
    const seen = { previews: 0, longest: 0, done: false };
    Object.assign(globalThis, { seen });
    addEventListener('kontext-progress', (event) => {
      if ((event as CustomEvent).detail.type === 'preview') seen.previews++;
    });
    new PerformanceObserver((list) => {
      for (const { duration } of list.getEntries()) seen.longest = Math.max(seen.longest, duration);
    }).observe({ type: 'longtask' });
  });
  await page.locator('kontext-editor #prompt').focus();
  await page.keyboard.type('make the background blue');
  await page.keyboard.press('Enter');
  await page.waitForFunction(() => document.querySelector('kontext-editor')!.dataset.state === 'editing');
  await page.waitForFunction(() => document.querySelector('kontext-editor')!.dataset.state !== 'editing', undefined, {
    timeout: 240_000,
    polling: 200,
  });
  expect(await status()).toMatch(/^Done in .* seconds: make the background blue$/);
  const seen = await page.evaluate(
    () => (globalThis as unknown as { seen: { previews: number; longest: number } }).seen,
  );
  console.log(`longest main-thread task of at least 50 ms: ${seen.longest} ms`);
  expect(seen.previews).toBe(2);
  expect(problems).toEqual([]);
});

it('has no accessibility violation, light or dark', async () => {
  for (const colorScheme of ['light', 'dark'] as const) {
    await page.emulateMedia({ colorScheme });
    expect(await violations(), colorScheme).toEqual([]);
    await screenshot(`editor-${colorScheme}`);
  }
  await page.emulateMedia({ colorScheme: 'light' });
});

it('compares, undoes and redoes from the keyboard', async () => {
  await page.locator('kontext-editor .compare').focus();
  for (let i = 0; i < 5; i++) await page.keyboard.press('PageUp');
  expect(Number(await page.locator('kontext-editor .compare').inputValue())).toBeGreaterThan(20);
  await screenshot('editor-compare');
  const shown = () =>
    page.evaluate(() => {
      const editor = document.querySelector<KontextEditor>('kontext-editor')!;
      return editor.picture!.data.slice(0, 3).join();
    });
  const edited = await shown();
  await page.locator('kontext-editor .undo').focus();
  await page.keyboard.press('Enter');
  expect(await status()).toBe('Showing: Original');
  expect(await shown()).not.toBe(edited);
  await page.locator('kontext-editor .redo').focus();
  await page.keyboard.press('Enter');
  expect(await shown()).toBe(edited);
  expect(await page.locator('kontext-editor .history button[aria-current]').getAttribute('aria-label')).toBe(
    '1: make the background blue',
  );
});

it('downloads a PNG', async () => {
  const [download] = await Promise.all([
    page.waitForEvent('download'),
    page.locator('kontext-editor .download').click(),
  ]);
  expect(download.suggestedFilename()).toBe('edited.png');
});

it('cancels with Escape', async () => {
  await page.evaluate(() => document.querySelector('kontext-editor')!.setAttribute('steps', '300'));
  await page.locator('kontext-editor #prompt').focus();
  await page.keyboard.press('Enter');
  await page.waitForFunction(
    () =>
      document.querySelector('kontext-editor')!.shadowRoot!.querySelector('.status')!.textContent!.startsWith('Step'),
    undefined,
    { timeout: 120_000 },
  );
  await page.keyboard.press('Escape');
  await page.waitForFunction(() => document.querySelector('kontext-editor')!.dataset.state === 'ready');
  expect(await status()).toBe('Cancelled.');
});

/** Drops a file on the editor as a file manager would. */
async function drop(name: string, type: string, bytes: Buffer): Promise<void> {
  const data = await page.evaluateHandle(
    ({ name, type, bytes }) => {
      const transfer = new DataTransfer();
      transfer.items.add(new File([new Uint8Array(bytes)], name, { type }));
      return transfer;
    },
    { name, type, bytes: [...bytes] },
  );
  await page.dispatchEvent('kontext-editor', 'drop', { dataTransfer: data });
}
