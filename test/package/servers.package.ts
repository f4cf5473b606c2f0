// A model served by what web developers have at hand: Vite's development server and preview, a server that answers every missing
// file with the app's page, one that answers 404. A model's folder lacks some files that a loader asks for; none may get in the way.
import { cpSync, mkdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { createServer as createHttpServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { extname, join } from 'node:path';
import type { Browser, Page } from 'playwright-core';
import { createServer, preview, build as vite } from 'vite';
import { afterAll, beforeAll, expect, it } from 'vitest';
import type * as InWorker from '../../sdk/src/worker/client.ts';
import { launch, openPage } from '../browser/support/chromium.ts';
import { install, pack, root } from './project.ts';

let packed: ReturnType<typeof pack>;
let project: string;
let browser: Browser;
const closing: (() => Promise<unknown>)[] = [];

beforeAll(async () => {
  packed = pack();
  project = install(packed, 'served', 'bundled');
  // As an app would: the model in the folder that Vite serves as it is.
  cpSync(join(root, 'examples/demo-model/model'), join(project, 'public/model'), { recursive: true });
  // Readable formats of a file that is not there must not be taken for it either.
  mkdirSync(join(project, 'public/empty'), { recursive: true });
  writeFileSync(join(project, 'public/empty/readme.txt'), 'no model');
  await vite({ root: project, configFile: false, logLevel: 'error' });
  browser = await launch();
});
afterAll(async () => {
  await browser?.close();
  for (const close of closing) await close();
  rmSync(packed.folder, { recursive: true });
});

const SERVERS: Record<string, () => Promise<string>> = {
  async "Vite's development server"() {
    const server = await createServer({
      root: project,
      configFile: false,
      logLevel: 'error',
      server: { port: 0, host: '127.0.0.1' },
    });
    await server.listen();
    closing.push(() => server.close());
    return `http://127.0.0.1:${(server.httpServer!.address() as AddressInfo).port}`;
  },
  async "Vite's preview"() {
    const server = await preview({
      root: project,
      configFile: false,
      logLevel: 'error',
      preview: { port: 0, host: '127.0.0.1' },
    });
    closing.push(() => server.close());
    return `http://127.0.0.1:${(server.httpServer.address() as AddressInfo).port}`;
  },
  'a server that answers 404': () => files(() => undefined),
  'a server that answers with the page': () => files(() => 'index.html'),
  'a server without ranges that answers with the page': () => files(() => 'index.html', false),
};

/** A static server of the built app. @param fallback the file to send instead of a missing one */
async function files(fallback: () => string | undefined, ranges = true): Promise<string> {
  const folder = join(project, 'dist');
  const server = createHttpServer((request, response) => {
    const path = decodeURIComponent(new URL(request.url ?? '/', 'http://server').pathname);
    const wanted = join(folder, path === '/' ? 'index.html' : path);
    const spare = fallback();
    const file = statSync(wanted, { throwIfNoEntry: false })?.isFile() ? wanted : spare && join(folder, spare);
    if (!file) {
      response.writeHead(404, { 'content-type': 'text/html' }).end('<h1>Not found</h1>');
      return;
    }
    const content = readFileSync(file);
    const types: Record<string, string> = {
      '.html': 'text/html',
      '.js': 'text/javascript',
      '.json': 'application/json',
    };
    const type = types[extname(file)] ?? 'application/octet-stream';
    const range = ranges ? /^bytes=(\d+)-(\d*)$/.exec(request.headers.range ?? '') : null;
    if (!range) {
      response.writeHead(200, { 'content-type': type, 'content-length': content.length }).end(content);
      return;
    }
    const [start, end] = [
      Number(range[1]),
      range[2] ? Math.min(Number(range[2]), content.length - 1) : content.length - 1,
    ];
    response
      .writeHead(206, {
        'content-type': type,
        'content-length': end - start + 1,
        'content-range': `bytes ${start}-${end}/${content.length}`,
      })
      .end(content.subarray(start, end + 1));
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  closing.push(() => new Promise((resolve) => server.closeAllConnections() ?? server.close(resolve)));
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
}

it.each(Object.keys(SERVERS))('%s serves a model', async (name) => {
  const url = await SERVERS[name]!();
  const { page, problems } = await openPage(browser, `${url}/`);
  await page.waitForFunction(() => 'app' in globalThis, undefined, { timeout: 60_000 });
  expect(await load(page, '/model/')).toBe('swiftshader');
  // A second time, from the browser's cache.
  expect(await load(page, '/model/')).toBe('swiftshader');
  // A folder without a model, and one that is not there: named as such, not as a broken file.
  for (const folder of ['/empty/', '/nowhere/']) expect(await load(page, folder)).toMatch(/no model|has no /);
  expect(problems).toEqual([]);
});

it('finds a file that was not there before: neither a 404 nor a fallback is kept for ever', async () => {
  const own = join(project, 'dist/model/kontext.json');
  rmSync(own);
  // A lock says which files there are; this folder is to be one without.
  rmSync(join(project, 'dist/model/kontext.lock.json'));
  let spare: string | undefined;
  const url = await files(() => spare);
  const { page } = await openPage(browser, `${url}/`);
  await page.waitForFunction(() => 'app' in globalThis);
  expect(await load(page, '/model/')).toBe('swiftshader');
  spare = 'index.html';
  expect(await load(page, '/model/')).toBe('swiftshader');
  // Told from a good one by the error it makes.
  writeFileSync(own, '{ "unheardOf": 1 }');
  expect(await load(page, '/model/')).toMatch(/kontext\.json.*unheardOf/);
});

/** Opens a model in the page's worker. @returns what it runs on, or the error's message */
function load(page: Page, model: string): Promise<string> {
  return page.evaluate(async (model) => {
    const { Kontext } = (globalThis as unknown as { app: typeof InWorker }).app;
    try {
      const kontext = await Kontext.load(model);
      const { architecture } = kontext.adapter!;
      await kontext.close();
      return architecture;
    } catch (error) {
      return String((error as Error).message);
    }
  }, model);
}
