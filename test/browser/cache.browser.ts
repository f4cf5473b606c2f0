// The cache of model files in a real browser: a cut download goes on, a damaged piece comes again, a full disk is survived.
// What the server was asked for is counted in bytes.
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Browser, Page } from 'playwright-core';
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import type * as Sdk from '../../sdk/src/browser.ts';
import { launch, openPage } from './support/chromium.ts';
import { serve, type TestServer } from './support/server.ts';

const PIECE = 1000;
const SIZE = 10_500;
const content = Uint8Array.from({ length: SIZE }, (_, i) => (i * 37 + (i >> 8)) & 255);

let folder: string;
let server: TestServer;
let browser: Browser;
let page: Page;

beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), 'kontext-cache-'));
  writeFileSync(join(folder, 'weights.bin'), content);
  server = await serve(folder);
  server.mounts = { '/dist/': join(import.meta.dirname, '../../dist/') };
  browser = await launch();
  ({ page } = await openPage(browser, `${server.url}/blank.html`));
});
afterAll(async () => {
  await browser?.close();
  await server?.close();
  rmSync(folder, { recursive: true });
});
beforeEach(async () => {
  server.fail = () => false;
  await page.evaluate(async () => {
    const { clearCache } = (await importModule('/dist/browser/kontext.js')) as typeof Sdk;
    await clearCache();
    await caches.delete('kontext-models');
  });
  server.log.length = 0;
});

const asked = () => server.log.filter(({ path }) => path === '/weights.bin').reduce((sum, { bytes }) => sum + bytes, 0);

/** Opens the file anew, as after a reload, and reads it in odd steps. @returns its bytes, or the error's code */
function readAll(store: 'opfs' | 'cache-storage' | 'full' = 'opfs', tab = page) {
  return tab.evaluate(
    async ({ PIECE, store }) => {
      const { cachedFiles } = (await importModule('/dist/browser/kontext.js')) as typeof Sdk;
      const notices: { message: string; quotaBytes: number }[] = [];
      const put = FileSystemFileHandle.prototype.createWritable;
      if (store === 'full') {
        FileSystemFileHandle.prototype.createWritable = () =>
          Promise.reject(new DOMException('no space', 'QuotaExceededError'));
      }
      const directory = StorageManager.prototype.getDirectory;
      if (store === 'cache-storage') StorageManager.prototype.getDirectory = () => Promise.reject(new Error('refused'));
      try {
        const files = cachedFiles(location.origin, {
          pieceBytes: PIECE,
          onChanged: (message) => notices.push({ message, quotaBytes: 0 }),
          onFull: (message, details) => notices.push({ message, quotaBytes: details.quotaBytes }),
        });
        const file = (await files.open('weights.bin'))!;
        const bytes: number[] = [];
        for (let at = 0; at < file.size; at += 777) {
          bytes.push(...(await file.read(at, Math.min(file.size, at + 777))));
        }
        return { bytes, notices };
      } catch (error) {
        return { code: (error as Sdk.KontextError).code, notices };
      } finally {
        FileSystemFileHandle.prototype.createWritable = put;
        StorageManager.prototype.getDirectory = directory;
      }
    },
    { PIECE, store },
  );
}

describe.each(['opfs', 'cache-storage'] as const)('%s', (store) => {
  it('asks the server for nothing the second time', async () => {
    expect((await readAll(store)).bytes).toEqual([...content]);
    // One byte tells the size.
    expect(asked()).toBe(SIZE + 1);
    server.fail = (path) => path === '/weights.bin';
    expect((await readAll(store)).bytes).toEqual([...content]);
    expect(asked()).toBe(SIZE + 1);
  });

  it('fetches only what is missing after the network was cut', async () => {
    server.fail = (path) => path === '/weights.bin' && asked() > 4 * PIECE;
    expect((await readAll(store)).code).toBe('download-failed');
    const before = asked();
    expect(before).toBe(4 * PIECE + 1);
    server.fail = () => false;
    expect((await readAll(store)).bytes).toEqual([...content]);
    expect(asked() - before).toBe(SIZE - 4 * PIECE + 1);
  });
});

it('two tabs that download the same file at once both get it, and leave it whole', async () => {
  const other = await page.context().newPage();
  await other.goto(page.url());
  const [first, second] = await Promise.all([readAll(), readAll('opfs', other)]);
  await other.close();
  expect(first.bytes).toEqual([...content]);
  expect(second.bytes).toEqual([...content]);
  server.fail = () => true;
  expect((await readAll()).bytes).toEqual([...content]);
});

it('finds a damaged piece and fetches it again', async () => {
  await readAll();
  const before = asked();
  await page.evaluate(async () => {
    const top = await (await navigator.storage.getDirectory()).getDirectoryHandle('kontext-models');
    for await (const folder of (top as unknown as { values(): AsyncIterable<FileSystemDirectoryHandle> }).values()) {
      const handle = await folder.getFileHandle('000003');
      const bytes = new Uint8Array(await (await handle.getFile()).arrayBuffer());
      bytes[500]! ^= 1;
      const writable = await handle.createWritable();
      await writable.write(bytes);
      await writable.close();
    }
  });
  expect((await readAll()).bytes).toEqual([...content]);
  expect(asked() - before).toBe(PIECE + 1);
});

it('loads without caching when there is no room, and tells it once with numbers', async () => {
  const { bytes, notices } = await readAll('full');
  expect(bytes).toEqual([...content]);
  expect(notices).toHaveLength(1);
  expect(notices[0]!.message).toMatch(/QuotaExceededError.*uses \d+\.\d GB of the \d+\.\d GB/);
  expect(notices[0]!.quotaBytes).toBeGreaterThan(0);
});

it('remembers that a file is not there for this visit only, and asks again', async () => {
  const open = (tab = page) =>
    tab.evaluate(async () => {
      const { cachedFiles } = (await importModule('/dist/browser/kontext.js')) as typeof Sdk;
      return (await cachedFiles(location.origin).open('nothing.json')) === undefined;
    });
  expect(await open()).toBe(true);
  server.fail = () => true;
  expect(await open()).toBe(true);
  server.fail = () => false;
  writeFileSync(join(folder, 'nothing.json'), '{}');
  try {
    expect(await open()).toBe(false);
  } finally {
    rmSync(join(folder, 'nothing.json'));
  }
});

it('never mixes two releases of a file: the new one is downloaded whole, and the app told', async () => {
  server.fail = (path) => path === '/weights.bin' && asked() > 2 * PIECE;
  await readAll();
  server.fail = () => false;
  const changed = content.map((value) => value ^ 255);
  writeFileSync(join(folder, 'weights.bin'), changed);
  try {
    const { bytes, notices } = await readAll();
    expect(bytes).toEqual([...changed]);
    expect(notices.map(({ message }) => message)).toEqual([expect.stringMatching(/weights\.bin has changed/)]);
  } finally {
    writeFileSync(join(folder, 'weights.bin'), content);
  }
});
