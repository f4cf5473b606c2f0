// Pictures that are rare or slightly damaged: a page and Node read the same pixels from them, or both refuse them.
import { fileURLToPath } from 'node:url';
import type { Browser, Page } from 'playwright-core';
import { afterAll, beforeAll, expect, it } from 'vitest';
import type * as Sdk from '../../sdk/src/browser.ts';
import { decodeImage } from '../../sdk/src/image/node.ts';
import { bitmaps } from '../support/bitmaps.ts';
import { damagedJpegs } from '../support/damaged-jpegs.ts';
import { launch, openPage } from './support/chromium.ts';
import { serve, type TestServer } from './support/server.ts';

let server: TestServer;
let browser: Browser;
let page: Page;

beforeAll(async () => {
  server = await serve(fileURLToPath(new URL('../..', import.meta.url)));
  browser = await launch();
  ({ page } = await openPage(browser, `${server.url}/blank.html`));
});
afterAll(async () => {
  await browser?.close();
  await server?.close();
});

interface Read {
  width: number;
  height: number;
  data: number[];
}

async function inPage(bytes: Uint8Array): Promise<Read | string> {
  return page.evaluate(
    async (values) => {
      const { decodeImage } = (await importModule('/dist/browser/kontext.js')) as typeof Sdk;
      return decodeImage(Uint8Array.from(values), 'picture').then(
        ({ width, height, data }) => ({ width, height, data: [...data] }),
        (error: { code: string }) => error.code,
      );
    },
    [...bytes],
  );
}

async function inNode(bytes: Uint8Array): Promise<Read | string> {
  return decodeImage(bytes, 'picture').then(
    ({ width, height, data }) => ({ width, height, data: [...data] }),
    (error: { code: string }) => error.code,
  );
}

/** The largest difference of two pictures; their codes where one refused. */
function difference(a: Read | string, b: Read | string): number | string {
  if (typeof a === 'string' || typeof b === 'string') return `${kindOf(a)}, ${kindOf(b)}`;
  expect([a.width, a.height]).toEqual([b.width, b.height]);
  return a.data.reduce((most, value, i) => Math.max(most, Math.abs(value - b.data[i]!)), 0);
}

const kindOf = (read: Read | string) => (typeof read === 'string' ? read : 'a picture');

it('bitmaps', async () => {
  for (const { name, bytes } of bitmaps())
    expect([name, difference(await inNode(bytes), await inPage(bytes))]).toEqual([name, 0]);
});

it('damaged JPEGs', async () => {
  const found: Record<string, number | string> = {};
  for (const [name, bytes] of Object.entries(await damagedJpegs())) {
    found[name] = difference(await inNode(bytes), await inPage(bytes));
  }
  const refused = 'image-invalid, image-invalid';
  expect(found).toEqual({
    whole: 0,
    'without its end mark': refused,
    'with bytes after its end': 0,
    'one bit of the scan flipped': 0,
    'sixteen bytes of the scan zero': 0,
    'a stray byte before the scan': 0,
    'half of the scan gone': refused,
    'a twentieth of the scan gone': refused,
    'only its header': refused,
  });
});
