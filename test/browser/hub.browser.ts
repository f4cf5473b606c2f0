// Addresses on the hub in a page and in Deno, from a server that behaves as the hub does: what is downloaded is kept, goes on where it was
// cut off, and is refused when its SHA-256 is another.
import { spawn, spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { mkdtempSync, rmSync } from 'node:fs';
import type { IncomingMessage } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { Browser, Page } from 'playwright-core';
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import type * as Sdk from '../../sdk/src/browser.ts';
import { filesBelow, type HubServer, hubServer } from '../support/hub-server.ts';
import { rawTensors, safetensors } from '../support/model-files.ts';
import { writePipelineModel } from '../support/pipeline-model.ts';
import { launch, openPage } from './support/chromium.ts';
import { serve, type TestServer } from './support/server.ts';

const root = fileURLToPath(new URL('../..', import.meta.url));
const BIG = 'transformer/diffusion_pytorch_model.safetensors';
const MIB = 2 ** 20;
/** Of one range. */
const RANGE = 8 * MIB;

let folder: string;
let hub: HubServer;
let big: Buffer;
let files: Map<string, Buffer>;

beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), 'kontext-hub-'));
  const model = join(folder, 'model');
  writePipelineModel(model);
  files = filesBelow(model);
  // Larger by a tensor that nothing needs: one range would not be cut.
  const data = new Uint8Array(20 * MIB).map((_, i) => (i * 31) ^ (i >> 9));
  big = Buffer.from(
    safetensors(new Map([...rawTensors(files.get(BIG)!), ['unused', { dtype: 'U8', shape: [data.length], data }]])),
  );
  files.set(BIG, big);
  hub = await hubServer(files);
});
afterAll(() => {
  hub?.close();
  rmSync(folder, { recursive: true });
});

const rangeOf = (request: IncomingMessage) =>
  /bytes=(\d+)-(\d+)/
    .exec(request.headers.range ?? '')
    ?.slice(1)
    .map(Number);
const isBig = (request: IncomingMessage) => request.url!.includes(createHash('sha256').update(big).digest('hex'));
/** Bytes of the large file that storage was asked for. */
const asked = () =>
  hub.log
    .filter(({ host, path }) => host === 'storage' && path.includes(createHash('sha256').update(big).digest('hex')))
    .map(
      ({ range }) =>
        /bytes=(\d+)-(\d+)/
          .exec(range ?? '')!
          .slice(1)
          .map(Number) as [number, number],
    )
    .reduce((sum, [first, last]) => sum + Math.min(last, big.length - 1) - first + 1, 0);

/** The connection breaks in the large file after its first range. */
function cut(): void {
  hub.fault = (request, _, host) => {
    if (host !== 'storage' || !isBig(request) || (rangeOf(request)?.[1] ?? 0) <= RANGE) return false;
    request.socket.destroy();
    return true;
  };
}

/** One byte of the large file comes wrong. */
function damage(): void {
  hub.fault = (request, response, host) => {
    const [first, last] = rangeOf(request) ?? [];
    if (host !== 'storage' || !isBig(request) || first === undefined || first < RANGE) return false;
    const end = Math.min(last!, big.length - 1);
    const bytes = Buffer.from(big.subarray(first, end + 1));
    bytes[7]! ^= 16;
    const etag = `"storage-${createHash('sha256').update(big).digest('hex')}"`;
    response.writeHead(206, { etag, 'content-range': `bytes ${first}-${end}/${big.length}` }).end(bytes);
    return true;
  };
}

interface Outcome {
  code?: string;
  message?: string;
  loaded?: number;
  total?: number;
}

/** What a reader of the hub must do, whatever it runs in. @param load opens `hf:owner/model`; @param forget empties what is kept */
function behaves(load: () => Promise<Outcome>, forget: () => Promise<void>): void {
  beforeEach(async () => {
    hub.fault = () => false;
    await forget();
    hub.log.length = 0;
  });

  it('downloads the model whole, and the second time nothing of it', async () => {
    const first = await load();
    expect(first.message).toBeUndefined();
    expect(first.loaded).toBe(first.total);
    expect(first.total).toBeGreaterThan(big.length);
    expect(asked()).toBeGreaterThanOrEqual(big.length);
    hub.log.length = 0;
    expect((await load()).message).toBeUndefined();
    expect(asked()).toBeLessThan(MIB);
  });

  it('goes on where the connection was cut', async () => {
    cut();
    expect(await load()).toMatchObject({ code: 'download-failed' });
    hub.fault = () => false;
    hub.log.length = 0;
    expect((await load()).message).toBeUndefined();
    expect(asked()).toBeLessThan(big.length - RANGE + MIB);
  });

  it('refuses bytes of another SHA-256, and then takes the right ones', async () => {
    damage();
    expect(await load()).toMatchObject({
      code: 'download-failed',
      message: expect.stringContaining('another SHA-256 than the hub lists'),
    });
    hub.fault = () => false;
    expect((await load()).message).toBeUndefined();
  });
}

describe('a page', () => {
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

  const load = () =>
    page.evaluate(async (endpoint): Promise<Outcome> => {
      const { Kontext } = (await importModule('/dist/browser/kontext.js')) as typeof Sdk;
      const told: Outcome = {};
      try {
        const kontext = await Kontext.load('hf:owner/model', {
          hub: { endpoint, request: { attempts: 1 } },
          onDownload: ({ loadedBytes, totalBytes }) => Object.assign(told, { loaded: loadedBytes, total: totalBytes }),
        });
        await kontext.close();
        return told;
      } catch (error) {
        const { code, message } = error as Sdk.KontextError;
        return { code, message };
      }
    }, hub.endpoint);
  behaves(load, () =>
    page.evaluate(async () => {
      const { clearCache } = (await importModule('/dist/browser/kontext.js')) as typeof Sdk;
      await clearCache();
    }),
  );
});

const deno = join(root, 'node_modules/.bin/deno');
const hasDeno = spawnSync(deno, ['--version']).status === 0;
if (!hasDeno) console.log('Deno is not installed: its tests are skipped (npm install puts it into node_modules).');

describe.skipIf(!hasDeno)('Deno', () => {
  const cache = () => join(folder, 'cache');
  const load = () =>
    new Promise<Outcome>((resolve, reject) => {
      const args = ['run', '-A', 'test/browser/support/deno-hub.ts', hub.endpoint, cache()];
      const child = spawn(deno, args, { cwd: root, stdio: ['ignore', 'pipe', 'inherit'] });
      let out = '';
      child.stdout.on('data', (text) => {
        out += text;
      });
      child.on('error', reject);
      child.on('close', () => {
        const line = out.trim().split('\n').at(-1) ?? '';
        try {
          resolve(JSON.parse(line));
        } catch {
          reject(new Error(`Deno said ${JSON.stringify(out.slice(-500))}`));
        }
      });
    });
  behaves(load, async () => rmSync(cache(), { recursive: true, force: true }));
});
