// Models from the hub without a disk: a page keeps them in its own storage, and Deno on disk. Against a server that behaves as the hub
// does: another host for large files, SHA-256 in its listing, gates.
import { execFile, spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { promisify } from 'node:util';
import type { Browser, Page } from 'playwright-core';
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import type * as InPage from '../../sdk/src/browser.ts';
import type { DownloadProgress } from '../../sdk/src/hub/transfer.ts';
import type * as InWorker from '../../sdk/src/worker/client.ts';
import { type HubServer, hubServer } from '../support/hub-server.ts';
import { writePipelineModel } from '../support/pipeline-model.ts';
import { launch, openPage } from './support/chromium.ts';
import { serve, type TestServer } from './support/server.ts';

const root = fileURLToPath(new URL('../..', import.meta.url));
let folder: string;
let hub: HubServer;
let server: TestServer;
let browser: Browser;
let page: Page;

beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), 'kontext-hub-'));
  writePipelineModel(join(folder, 'model'));
  const files = new Map<string, Buffer>();
  for (const entry of readdirSync(join(folder, 'model'), { recursive: true, withFileTypes: true })) {
    const path = join(entry.parentPath, entry.name);
    if (entry.isFile()) files.set(path.slice(join(folder, 'model').length + 1), readFileSync(path));
  }
  files.set('README.md', Buffer.from('not needed'));
  hub = await hubServer(files);
  server = await serve(root);
  browser = await launch();
  ({ page } = await openPage(browser, `${server.url}/blank.html`));
});
afterAll(async () => {
  await browser?.close();
  await server?.close();
  hub.close();
  rmSync(folder, { recursive: true });
});
beforeEach(() => {
  hub.log.length = 0;
  hub.gate = undefined;
  hub.fault = () => false;
});

/** Opens the model, edits nothing. @returns what was told, or the error */
function load(script: string, token?: string) {
  return page.evaluate(
    async ({ script, endpoint, token }) => {
      const { Kontext } = (await importModule(script)) as typeof InPage | typeof InWorker;
      const events: DownloadProgress[] = [];
      try {
        const kontext = await Kontext.load('hf:owner/model', {
          hub: { endpoint, ...(token !== undefined && { token }) },
          onDownload: (event) => events.push(event),
        });
        await kontext.close();
        return { events };
      } catch (error) {
        const { code, message } = error as InPage.KontextError;
        return { events, code, message };
      }
    },
    { script, endpoint: hub.endpoint, token },
  );
}

function expectProgress(events: DownloadProgress[]): void {
  expect(events.length).toBeGreaterThan(3);
  const { totalBytes } = events[0]!;
  let before = 0;
  for (const { loadedBytes, totalBytes: total, remainingMs, bytesPerSecond } of events) {
    expect(total).toBe(totalBytes);
    expect(loadedBytes).toBeGreaterThanOrEqual(before);
    if (bytesPerSecond > 0) expect(remainingMs).toBeGreaterThanOrEqual(0);
    before = loadedBytes;
  }
  expect(before).toBe(totalBytes);
  expect(events.at(-1)!.bytesPerSecond).toBeGreaterThan(0);
  expect(events.at(-1)!.remainingMs).toBe(0);
}

const sentBytes = () =>
  hub.log
    .filter(({ host }) => host === 'storage')
    .reduce((sum, { range }) => {
      const [, first, last] = /bytes=(\d+)-(\d+)/.exec(range ?? '') ?? [];
      return sum + Number(last) - Number(first) + 1;
    }, 0);

describe('in a page', () => {
  it('says which page to accept, then downloads with the token, verified, and keeps the files', async () => {
    hub.gate = 'secret';
    expect(await load('/dist/browser/kontext.js')).toMatchObject({
      code: 'download-failed',
      message: expect.stringContaining(`${hub.endpoint}/owner/model`),
    });
    const { events, message } = await load('/dist/browser/kontext.js', 'secret');
    expect(message).toBeUndefined();
    expectProgress(events);
    expect(hub.log.some(({ host, token }) => host === 'storage' && token !== undefined)).toBe(false);
    // Kept: the second visit asks which release there is, and reads no weights from afar.
    hub.log.length = 0;
    expect((await load('/dist/browser/kontext.js', 'secret')).message).toBeUndefined();
    expect(sentBytes()).toBeLessThan(2000);
  });

  it('does the same in a worker, over cut connections', async () => {
    await page.evaluate(async () => {
      const { clearCache } = (await importModule('/dist/browser/kontext.js')) as typeof InPage;
      await clearCache();
    });
    let faults = 3;
    hub.fault = (request, response, host) => {
      if (host !== 'storage' || faults-- <= 0) return false;
      if (faults === 1) request.socket.destroy();
      else response.writeHead(503).end();
      return true;
    };
    const { events, message } = await load('/dist/browser/client.js');
    expect(message).toBeUndefined();
    expectProgress(events);
  });

  it('refuses bytes that are not the hub’s', async () => {
    const name = 'transformer/diffusion_pytorch_model.safetensors';
    const good = hub.files.get(name)!;
    await page.evaluate(async () => {
      const { clearCache } = (await importModule('/dist/browser/kontext.js')) as typeof InPage;
      await clearCache();
    });
    // Damaged on its way: the listing still has the right hash.
    const damaged = Buffer.from(good);
    damaged[damaged.length - 5]! ^= 1;
    const hash = createHash('sha256').update(good).digest('hex');
    hub.fault = (request, response, host) => {
      const [, first, last] = /bytes=(\d+)-(\d+)/.exec(request.headers.range ?? '') ?? [];
      if (host !== 'storage' || !request.url!.includes(hash) || first === undefined) return false;
      response.writeHead(206, { etag: '"x"', 'content-range': `bytes ${first}-${last}/${good.length}` });
      response.end(damaged.subarray(Number(first), Number(last) + 1));
      return true;
    };
    expect(await load('/dist/browser/kontext.js')).toMatchObject({
      code: 'download-failed',
      message: expect.stringMatching(/diffusion_pytorch_model\.safetensors came with another SHA-256/),
    });
    hub.fault = () => false;
    expect((await load('/dist/browser/kontext.js')).message).toBeUndefined();
  });
});

const deno = join(root, 'node_modules/.bin/deno');
const found = spawnSync(deno, ['--version'], { encoding: 'utf8' });
if (found.status !== 0)
  console.log('Deno is not installed: its test is skipped (npm install puts it into node_modules).');

describe.skipIf(found.status !== 0)('in Deno', () => {
  it('downloads to disk with progress, edits, and opens what is there the next time', async () => {
    const script = join(folder, 'edit.ts');
    writeFileSync(
      script,
      `import { Kontext } from '${pathToFileURL(join(root, 'dist/node.js'))}';
import { create } from '${pathToFileURL(join(root, 'node_modules/webgpu/index.js'))}';
const gpu = create(['enable-dawn-features=allow_unsafe_apis']);
const events = [];
const kontext = await Kontext.load('hf:owner/model', { device: { gpu }, onDownload: (event) => events.push(event) });
const { image } = await kontext.generate({ prompt: 'a door', steps: 1, seed: 1, size: { width: 32, height: 32 }, maxSequenceLength: 16 });
await kontext.close();
console.log(JSON.stringify({ events, width: image.width }));
`,
    );
    const cache = join(folder, 'cache');
    const run = async () => {
      const env = { ...process.env, HF_ENDPOINT: hub.endpoint, XDG_CACHE_HOME: cache };
      // Not the synchronous call: the hub answers from this process.
      const { stdout } = await promisify(execFile)(deno, ['run', '-A', script], { env });
      return JSON.parse(stdout.trim().split('\n').at(-1)!) as { width: number; events: DownloadProgress[] };
    };
    const first = await run();
    expect(first.width).toBe(32);
    expectProgress(first.events);
    const place = join(cache, 'kontext-webgpu', 'owner--model', hub.commit);
    const name = 'transformer/diffusion_pytorch_model.safetensors';
    expect(readFileSync(join(place, name)).equals(hub.files.get(name)!)).toBe(true);
    hub.log.length = 0;
    expect(await run()).toMatchObject({ width: 32, events: [] });
    expect(sentBytes()).toBe(0);
  });
});
