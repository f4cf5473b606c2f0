// What the editor says and how it behaves, with an engine made up for it: words with time left, other languages, moving it about.
import { fileURLToPath } from 'node:url';
import type { Browser, Page } from 'playwright-core';
import { afterAll, beforeAll, beforeEach, expect, it } from 'vitest';
import type { ProgressEvent } from '../../sdk/src/kontext/types.ts';
import { launch, openPage } from './support/chromium.ts';
import { openEditor } from './support/fake-editor.ts';
import { serve, type TestServer } from './support/server.ts';

const root = fileURLToPath(new URL('../..', import.meta.url));

let server: TestServer;
let browser: Browser;
let page: Page;

beforeAll(async () => {
  server = await serve(root);
  browser = await launch();
  ({ page } = await openPage(browser, `${server.url}/blank.html`));
});
afterAll(async () => {
  await browser?.close();
  await server?.close();
});
beforeEach(() => openEditor(page, server.url));

const text = (selector: string) => page.locator(`kontext-editor ${selector}`).textContent();

/** Opens a picture and starts an edit that sends `events` and does not end. */
async function during(...events: ProgressEvent[]): Promise<[message: string | null, detail: string | null]> {
  await page.evaluate(async (events) => {
    script = { events, hangs: true };
    if (!editor.picture) await editor.open(picture(64, 64, 0));
    editor.edit('make it blue').catch(() => {});
    await new Promise((resolve) => setTimeout(resolve));
  }, events);
  return [await text('.status'), await text('.detail')];
}

it('says what happens, with counts and time left', async () => {
  const reading = { type: 'stage', stage: 'encode-image', progress: 0 } as const;
  expect(await during()).toEqual(['Opening the model', '']);
  expect(await page.locator('kontext-editor progress').getAttribute('value')).toBeNull();
  expect(await during({ type: 'queued', ahead: 2, progress: 0 })).toEqual(['Waiting for 2 other edits', '']);
  expect(await during(reading, { type: 'compile', component: 'vae-encode', done: 12, total: 40, progress: 0 })).toEqual(
    ['Reading the picture', 'preparing the graphics card, 12 of 40'],
  );
  const load = { type: 'load', component: 't5', loadedBytes: 1.24e9, totalBytes: 4.76e9, progress: 0.1 } as const;
  expect(await during(reading, load)).toEqual(['Reading the picture', 'loading the text encoders, 1.2 GB of 4.8 GB']);
  expect(
    await during(
      { type: 'stage', stage: 'denoise', progress: 0.2 },
      { type: 'step', image: 0, step: 3, steps: 28, stepMs: 900, progress: 0.3, remainingMs: 221_000 },
    ),
  ).toEqual(['Painting', 'step 3 of 28 · about 4 minutes left']);
  expect(Number(await page.locator('kontext-editor progress').getAttribute('value'))).toBe(0.3);
  const step = { type: 'step', image: 0, step: 3, steps: 28, stepMs: 900, progress: 0.3 } as const;
  for (const [remainingMs, words] of [
    [64_000, 'about a minute left'],
    [33_000, 'about 35 seconds left'],
    [3000, 'a few seconds left'],
  ] as const) {
    expect((await during({ ...step, remainingMs }))[1]).toBe(`step 3 of 28 · ${words}`);
  }
});

it('tells when a prompt was cut', async () => {
  await page.evaluate(async () => {
    script = { truncated: true };
    await editor.open(picture(64, 64, 0));
    await editor.edit('very long');
  });
  expect(await text('.status')).toBe(
    'Done in 12.3 seconds: very long The instruction is longer than the model reads: its end had no effect.',
  );
});

it('speaks German, or whatever an app gives it, also when set before the class is there', async () => {
  await openEditor(page, server.url, true);
  expect(await text('.edit')).toBe('Ändern');
  expect(await text('[role=group] .undo')).toBe('Rückgängig');
  expect(await page.locator('kontext-editor .history').getAttribute('aria-label')).toBe('Verlauf');
  await page.evaluate(async () => {
    await editor.open(picture(64, 64, 0));
    await editor.edit('hallo');
  });
  expect(await text('.status')).toBe('Fertig nach 12,3 Sekunden: hallo');
  await page.evaluate(() => {
    editor.strings = { edit: 'Go' };
  });
  expect([await text('.edit'), await text('.cancel')]).toEqual(['Go', 'Cancel']);
  const early = await page.evaluate(async () => {
    // As a framework does that renders before the script has come.
    const frame = document.createElement('iframe');
    document.body.append(frame);
    const view = frame.contentWindow as Window & typeof globalThis;
    const early = view.document.createElement('kontext-editor');
    Object.assign(early, { strings: { edit: 'Early' } });
    view.document.body.append(early);
    const script = view.document.createElement('script');
    script.type = 'module';
    script.src = '/dist/browser/element.js';
    view.document.body.append(script);
    await new Promise((resolve) => script.addEventListener('load', resolve));
    return early.shadowRoot!.querySelector('.edit')!.textContent;
  });
  expect(early).toBe('Early');
});

it('has a prompt that grows and keeps its breaks; Enter sends, Shift and Enter does not', async () => {
  await page.evaluate(() => editor.open(picture(64, 64, 0)));
  const prompt = page.locator('kontext-editor #prompt');
  const height = async () => (await prompt.boundingBox())!.height;
  const low = await height();
  await prompt.focus();
  await page.keyboard.type('first line');
  await page.keyboard.press('Shift+Enter');
  await page.keyboard.type('second line');
  expect(await height()).toBeGreaterThan(low + 15);
  expect(await page.evaluate(() => requests.length)).toBe(0);
  await page.keyboard.press('Enter');
  await page.waitForFunction(() => requests.length === 1);
  expect(await page.evaluate(() => requests[0]!.prompt)).toBe('first line\nsecond line');
  await prompt.fill('word '.repeat(400));
  expect(await height()).toBeLessThan(170);
});

it('brings the newest picture into sight, and the shown one after undo', async () => {
  await page.setViewportSize({ width: 390, height: 700 });
  await page.evaluate(async () => {
    await editor.open(picture(64, 64, 0));
    for (let i = 0; i < 12; i++) await editor.edit(`edit ${i}`);
  });
  const visible = () =>
    page.evaluate(() => {
      const list = editor.shadowRoot!.querySelector('.history')!;
      const [outer, inner] = [list, list.querySelector('[aria-current]')!].map((node) => node.getBoundingClientRect());
      return inner!.left >= outer!.left && inner!.right <= outer!.right && scrollX === 0 && scrollY === 0;
    });
  expect(await visible()).toBe(true);
  for (let i = 0; i < 12; i++) await page.evaluate(() => editor.undo());
  expect(await text('.status')).toBe('Showing: Original');
  expect(await visible()).toBe(true);
  await page.setViewportSize({ width: 1000, height: 900 });
});

it('moves about the page without reloading its model or stopping its edit', async () => {
  const loads = await page.evaluate(async () => {
    // A worker that counts instead of computing.
    const script = `
      addEventListener('message', ({ data: { type, id } }) => {
        if (type !== 'call') postMessage({ type: 'done', id });
        else setTimeout(() => postMessage({ type: 'done', id, value: {
          image: { width: 1, height: 1, data: new Uint8ClampedArray(4) }, images: [], latents: [], timings: { totalMs: 1 },
        } }), 400);
      });`;
    const url = URL.createObjectURL(new Blob([script], { type: 'text/javascript' }));
    let [started, ended] = [0, 0];
    const Real = Worker;
    globalThis.Worker = class extends Real {
      constructor(url: string | URL, options?: WorkerOptions) {
        super(url, options);
        started++;
      }
      override terminate() {
        ended++;
        super.terminate();
      }
    };
    editor.engine = undefined;
    editor.setAttribute('model', '/nowhere/');
    editor.options = { worker: url };
    await editor.open(picture(8, 8, 0));
    const running = editor.edit('one');
    const other = document.createElement('section');
    document.body.append(other);
    await new Promise((resolve) => setTimeout(resolve, 50));
    other.append(editor);
    editor.remove();
    await new Promise((resolve) => setTimeout(resolve, 100));
    document.body.prepend(editor);
    await running;
    await editor.edit('two');
    const kept = { started, ended, shown: editor.shadowRoot!.querySelectorAll('.history li').length };
    editor.remove();
    await new Promise((resolve) => setTimeout(resolve, 1500));
    const gone = { started, ended };
    // Back again, with its pictures: the next edit loads anew and goes on from the one shown.
    document.body.append(editor);
    await editor.edit('three');
    globalThis.Worker = Real;
    return { kept, gone, back: { started, shown: editor.shadowRoot!.querySelectorAll('.history li').length } };
  });
  expect(loads).toEqual({
    kept: { started: 1, ended: 0, shown: 3 },
    gone: { started: 1, ended: 1 },
    back: { started: 2, shown: 4 },
  });
});

it('shows what came last when a picture is opened during an edit', async () => {
  await page.evaluate(async () => {
    script = { hangs: true };
    await editor.open(picture(64, 64, 0));
    editor.edit('never ends').catch(() => {});
    await new Promise((resolve) => setTimeout(resolve, 10));
    await editor.open(picture(32, 16, 0));
    await new Promise((resolve) => setTimeout(resolve, 10));
  });
  expect(await text('.status')).toBe('Picture opened, 32 by 16 pixels.');
  expect(await page.locator('kontext-editor .edit').isEnabled()).toBe(true);
});

it('offers adapters with their strengths, and hands over those that are chosen', async () => {
  await page.evaluate(async () => {
    editor.adapters = [
      { name: 'sepia', source: '/adapters/sepia.safetensors', chosen: true, scale: 0.8 },
      { name: 'eight steps', source: new Blob(['x']) },
    ];
    await editor.open(picture(64, 64, 0));
  });
  await page.locator('kontext-editor .adapters').waitFor();
  const chosen = () =>
    page.evaluate(async () => {
      await editor.edit('x');
      const { adapters } = requests.at(-1)! as { adapters?: { name: string; source: unknown; scale: number }[] };
      return adapters?.map(({ name, source, scale }) => [name, source instanceof Blob ? 'a blob' : source, scale]);
    });
  // Addresses are those of the page, because a worker has another one.
  const sepia = `${server.url}/adapters/sepia.safetensors`;
  expect(await chosen()).toEqual([['sepia', sepia, 0.8]]);
  expect(await page.locator('kontext-editor .adapters [type=range]').nth(1).isDisabled()).toBe(true);
  await page.locator('kontext-editor .adapters [type=checkbox]').nth(1).check();
  await page.locator('kontext-editor .adapters [type=range]').nth(0).focus();
  await page.keyboard.press('ArrowRight');
  await page.keyboard.press('ArrowRight');
  expect(await chosen()).toEqual([
    ['sepia', sepia, 0.9],
    ['eight steps', 'a blob', 1],
  ]);
  expect(await page.locator('kontext-editor .adapters output').first().textContent()).toBe('0.90');
  // Those that stay keep what was chosen; without any, requests say nothing of adapters.
  // An edit started in the same turn as a change counts the change.
  const afterwards = (adapters: 'one' | 'none') =>
    page.evaluate(async (left) => {
      editor.adapters = left === 'one' ? editor.adapters.slice(0, 1) : [];
      await editor.edit('x');
      return (requests.at(-1)! as { adapters?: { name: string }[] }).adapters?.map(({ name }) => name);
    }, adapters);
  expect(await afterwards('one')).toEqual(['sepia']);
  expect(await chosen()).toEqual([['sepia', sepia, 0.9]]);
  if (process.env.KONTEXT_SCREENSHOTS) await page.screenshot({ path: `${root}/docs/pictures/editor-adapters.png` });
  expect(await afterwards('none')).toBeUndefined();
  expect(await page.locator('kontext-editor .adapters').count()).toBe(0);
});
