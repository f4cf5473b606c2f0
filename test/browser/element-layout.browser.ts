// The editor fits every window: the whole picture, the prompt and all buttons are in sight, from a small phone to a large desktop.
// Asserted by the boxes of the elements; pictures of some cases go to docs/pictures with KONTEXT_SCREENSHOTS.
import { fileURLToPath } from 'node:url';
import type { Browser, Page } from 'playwright-core';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { launch, openPage } from './support/chromium.ts';
import { openEditor } from './support/fake-editor.ts';
import { serve, type TestServer } from './support/server.ts';

const root = fileURLToPath(new URL('../..', import.meta.url));

let server: TestServer;
let browser: Browser;
let page: Page;
let problems: string[];

beforeAll(async () => {
  server = await serve(root);
  browser = await launch();
  ({ page, problems } = await openPage(browser, `${server.url}/blank.html`));
});
afterAll(async () => {
  await browser?.close();
  await server?.close();
});

/** Width and height in CSS pixels. 200 % zoom halves a window, for layout and for media queries alike. */
const WINDOWS = {
  'small phone': [320, 568],
  'small phone on its side': [568, 320],
  phone: [390, 844],
  tablet: [768, 1024],
  'laptop at 200 %': [640, 400],
  'large laptop at 200 %': [720, 450],
  laptop: [1280, 800],
  desktop: [1920, 1080],
  'large desktop': [2560, 1440],
} as const;

const PICTURES = {
  portrait: [900, 1350],
  landscape: [1350, 900],
  panorama: [4000, 400],
  tower: [300, 3000],
  tiny: [1, 1],
  '12 megapixels': [4000, 3000],
} as const;

const LONG =
  'and now a much longer instruction, which needs several lines in order to be read as a whole by whoever wrote it';
const FAILURE =
  'The GPU has no memory for a thing: 123456 bytes, with 42 bytes in use. Use a smaller quantization, a lower memory setting or a smaller image.';

interface Box {
  left: number;
  top: number;
  right: number;
  bottom: number;
}

/** Boxes of what must be in sight, and the size of the page. */
function boxes() {
  return page.evaluate(() => {
    const root = editor.shadowRoot!;
    const box = (selector: string) => {
      const { left, top, right, bottom } = root.querySelector(selector)!.getBoundingClientRect();
      return { left, top, right, bottom };
    };
    const seen = ['.stage', '.frame', '.after', '#prompt', editor.dataset.state === 'editing' ? '.cancel' : '.edit'];
    const { scrollWidth, scrollHeight } = document.documentElement;
    return {
      seen: Object.fromEntries([...seen, '.undo', '.redo', '.download', '.replace'].map((name) => [name, box(name)])),
      page: [scrollWidth, scrollHeight],
    };
  });
}

const inside = (inner: Box, outer: Box): boolean =>
  inner.left >= outer.left - 0.5 &&
  inner.top >= outer.top - 0.5 &&
  inner.right <= outer.right + 0.5 &&
  inner.bottom <= outer.bottom + 0.5;

async function expectWhole([width, height]: readonly [number, number], ratio: number): Promise<void> {
  const { seen, page: size } = await boxes();
  const window = { left: 0, top: 0, right: width, bottom: height };
  for (const [name, box] of Object.entries(seen))
    expect(inside(box, window), `${name} ${JSON.stringify(box)}`).toBe(true);
  expect(size, 'nothing to scroll').toEqual([width, height]);
  const { '.frame': frame, '.stage': stage, '.after': canvas } = seen as Record<string, Box>;
  expect(inside(frame!, stage!)).toBe(true);
  expect(canvas).toEqual(frame);
  // The whole picture at its own proportions, as large as the stage allows.
  const [across, down] = [frame!.right - frame!.left, frame!.bottom - frame!.top];
  expect(Math.abs(across / down / ratio - 1)).toBeLessThan(0.02 + 1 / Math.min(across, down));
  const touches =
    Math.abs(across - (stage!.right - stage!.left)) < 1 || Math.abs(down - (stage!.bottom - stage!.top)) < 1;
  expect(touches).toBe(true);
  // Every control can be hit with a finger.
  for (const [name, box] of Object.entries(seen)) {
    if (!/stage|frame|after/.test(name)) expect(box.bottom - box.top, name).toBeGreaterThanOrEqual(36);
  }
}

async function screenshot(name: string): Promise<void> {
  if (process.env.KONTEXT_SCREENSHOTS) await page.screenshot({ path: `${root}/docs/pictures/editor-${name}.png` });
}

describe.each(Object.entries(WINDOWS))('%s', (window, size) => {
  it.each(Object.entries(PICTURES))(
    'shows a %s picture whole, opened, edited and failed',
    async (name, [width, height]) => {
      await page.setViewportSize({ width: size[0], height: size[1] });
      await openEditor(page, server.url);
      await page.evaluate(async ([width, height]) => editor.open(picture(width, height, 20)), [width, height] as const);
      await expectWhole(size, width / height);
      await page.evaluate(async () => {
        for (let i = 0; i < 3; i++) await editor.edit('make the background blue and add a hat');
      });
      await expectWhole(size, width / height);
      if (name === 'portrait' && window === 'laptop') await screenshot('laptop');
      if (name === 'panorama' && window === 'tablet') await screenshot('tablet');
      await page.locator('kontext-editor #prompt').fill(LONG);
      await page.evaluate(async (message) => {
        script = { fails: message };
        await editor.edit('x').catch(() => {});
      }, FAILURE);
      await expectWhole(size, width / height);
      await page.evaluate(() => {
        script = {
          hangs: true,
          events: [
            { type: 'stage', stage: 'denoise', progress: 0.2 },
            { type: 'step', image: 0, step: 3, steps: 28, stepMs: 900, progress: 0.3, remainingMs: 83_000 },
          ],
        };
        editor.edit('x').catch(() => {});
      });
      await expectWhole(size, width / height);
      if (name === 'portrait' && window === 'small phone') await screenshot('phone');
      if (name === 'landscape' && window === 'laptop at 200 %') await screenshot('zoomed');
      expect(problems).toEqual([]);
    },
  );
});

it.each(['small phone', 'phone', 'laptop'] as const)('shows whose way each picture is on: %s', async (window) => {
  const size = WINDOWS[window];
  await page.setViewportSize({ width: size[0], height: size[1] });
  await openEditor(page, server.url);
  await page.evaluate(async () => {
    await editor.open(picture(900, 700, 20));
    for (const ways of [3, 2]) {
      for (let way = 0; way < ways; way++) {
        if (way > 0) editor.undo();
        await editor.edit('make the background blue');
      }
    }
  });
  await expectWhole(size, 900 / 700);
  const strip = await page.evaluate(() => {
    const root = editor.shadowRoot!;
    const box = (element: Element) => element.getBoundingClientRect().toJSON() as Box;
    const markers = [...root.querySelectorAll('.history .way')];
    return {
      history: box(root.querySelector('.history')!),
      markers: markers.map((marker) => ({
        text: marker.textContent,
        box: box(marker),
        item: box(marker.parentElement!),
        picture: box(marker.parentElement!.querySelector('canvas')!),
        cut: marker.scrollWidth > marker.clientWidth,
      })),
    };
  });
  expect(strip.markers.map(({ text }) => text)).toEqual(['3/3', '2/2']);
  for (const { box, item, picture, cut } of strip.markers) {
    expect(inside(box, item) && inside(box, strip.history), JSON.stringify({ box, item })).toBe(true);
    expect(box.top).toBeGreaterThanOrEqual(picture.bottom);
    // A finger finds it: 24 CSS pixels, as WCAG 2.2 asks, and more.
    expect(Math.min(box.right - box.left, box.bottom - box.top)).toBeGreaterThanOrEqual(28);
    expect(cut).toBe(false);
  }
  await screenshot(`history-${window.replace(' ', '-')}`);
  expect(problems).toEqual([]);
});

it('takes options of every edit, also those set before its class was there', async () => {
  await openEditor(page, server.url);
  const seen = await page.evaluate(async () => {
    const later = document.createElement('kontext-later') as typeof editor;
    later.request = { steps: 5, negativePrompt: 'blurred', nagScale: 5 };
    later.engine = editor.engine;
    later.setAttribute('steps', '9');
    later.setAttribute('seed', '3');
    document.body.append(later);
    customElements.define('kontext-later', class extends (editor.constructor as typeof HTMLElement) {});
    await later.open(picture(90, 70, 20));
    await later.edit('make it night', { nagScale: 7 });
    later.request = {};
    await later.edit('make it day');
    later.remove();
    return requests.map(({ steps, seed, negativePrompt, nagScale }) => ({ steps, seed, negativePrompt, nagScale }));
  });
  expect(seen).toEqual([
    { steps: 5, seed: 3, negativePrompt: 'blurred', nagScale: 7 },
    { steps: 9, seed: 3, negativePrompt: undefined, nagScale: undefined },
  ]);
});

it('fits right to left, in German and in the dark', async () => {
  await page.emulateMedia({ colorScheme: 'dark' });
  await page.setViewportSize({ width: 390, height: 844 });
  await openEditor(page, server.url, true);
  await page.evaluate(async () => {
    document.documentElement.dir = 'rtl';
    await editor.open(picture(900, 700, 20));
    for (let i = 0; i < 9; i++) await editor.edit('mache den Hintergrund blau');
  });
  await expectWhole([390, 844], 900 / 700);
  await screenshot('rtl-dark');
  const { history, current, prompt, edit, background } = await page.evaluate(() => {
    const root = editor.shadowRoot!;
    const box = (selector: string) => root.querySelector(selector)!.getBoundingClientRect().toJSON() as Box;
    const background = getComputedStyle(editor).backgroundColor;
    return {
      history: box('.history'),
      current: box('.history [aria-current]'),
      prompt: box('#prompt'),
      edit: box('.edit'),
      background,
    };
  });
  // The newest of ten pictures is scrolled into sight; the button stands left of the prompt.
  expect(inside(current, history)).toBe(true);
  expect(edit.right).toBeLessThan(prompt.left);
  expect(background).toBe('rgb(23, 24, 28)');
  await page.emulateMedia({ colorScheme: 'light' });
});

it('fits with text at 200 %', async () => {
  await page.setViewportSize({ width: 1280, height: 800 });
  await openEditor(page, server.url);
  await page.evaluate(async () => {
    document.documentElement.style.fontSize = '200%';
    await editor.open(picture(900, 1350, 20));
    await editor.edit('make the background blue and add a hat');
  });
  await expectWhole([1280, 800], 900 / 1350);
});

it('is light on a page that knows no dark, whatever the system says', async () => {
  await page.emulateMedia({ colorScheme: 'dark' });
  await openEditor(page, server.url);
  const background = await page.evaluate(() => {
    document.documentElement.style.colorScheme = '';
    return getComputedStyle(editor).backgroundColor;
  });
  await page.emulateMedia({ colorScheme: 'light' });
  expect(background).toBe('rgb(255, 255, 255)');
});

it.each([
  ['a fixed height', 'height: 500px', [600, 500]],
  ['a flexible row', '', [600, 0]],
] as const)('takes the room of a host with %s', async (_, style, [width, height]) => {
  await page.setViewportSize({ width: 1000, height: 900 });
  await openEditor(page, server.url);
  const box = await page.evaluate(
    async ({ style, width }) => {
      const frame = document.createElement('div');
      frame.style.cssText = `display: flex; width: ${width}px`;
      editor.style.cssText = style;
      document.body.append(frame);
      frame.append(editor);
      await editor.open(picture(900, 1350, 20));
      return editor.getBoundingClientRect().toJSON() as Box;
    },
    { style, width },
  );
  expect(box.right - box.left).toBe(width);
  if (height) expect(box.bottom - box.top).toBe(height);
});
