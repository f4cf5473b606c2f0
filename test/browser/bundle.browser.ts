// A bundle in real Chromium: by URL, as a module of a plain page, in a worker, and inside an app built by Vite.
// The picture equals the one compiled in the page bit for bit, and the compiler's chunk is never asked for.
import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { Browser } from 'playwright-core';
import { rollup } from 'rollup';
import { build } from 'vite';
import { afterAll, beforeAll, expect, it } from 'vitest';
import type * as InPage from '../../sdk/src/browser.ts';
import { runCommand } from '../../sdk/src/cli/command.ts';
import type { BundleSource } from '../../sdk/src/programs/bundle.ts';
import { launch, openPage } from './support/chromium.ts';
import { serve, type TestServer } from './support/server.ts';

const root = fileURLToPath(new URL('../..', import.meta.url));
const guide = join(root, 'docs/guide/ahead-of-time.md');
const model = '/examples/demo-model/model';
const image = '/examples/demo-model/inputs/apple-on-red.png';
const request = { image, prompt: 'make the background blue', steps: 2, seed: 7 };

let folder: string;
let server: TestServer;
let browser: Browser;
/** Compiled in the page. */
let expected: number[];

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'kontext-page-'));
  server = await serve(root);
  server.mounts = { '/programs/': join(folder, 'programs'), '/app/': join(folder, 'app/dist') };
  browser = await launch();
  const compiled = await editIn('/blank.html', { script: '/dist/browser/kontext.js' });
  expect(compiled.requested).toContain('/dist/browser/compiler.js');
  expected = compiled.pixels;
  // What the browser offers, which can be less than the driver does, is what the bundle is for.
  await writeFile(join(folder, 'chromium.json'), JSON.stringify(compiled.adapter));
  const options = ['--model', 'demo', '--size', '64x64', '--steps', '2', '--quantization', 'none'];
  const target = ['--target', join(folder, 'chromium.json')];
  const code = await runCommand(
    ['compile', ...options, ...target, '-o', join(folder, 'programs')],
    AbortSignal.any([]),
  );
  expect(code).toBe(0);
});
afterAll(async () => {
  await browser?.close();
  await server?.close();
  await rm(folder, { recursive: true });
});

/** An edit in a page of its own, and every path it asked the server for. */
async function editIn(path: string, how: { script: string; programs?: string }) {
  const { page, problems } = await openPage(browser, `${server.url}${path}`);
  server.log.length = 0;
  const result = await page.evaluate(
    async ({ how, model, request }) => {
      const { Kontext } = (await importModule(how.script)) as typeof InPage;
      const kontext = await Kontext.load(model, how.programs === undefined ? {} : { programs: how.programs });
      const { image } = await kontext.edit(request);
      const { adapter } = kontext;
      await kontext.close();
      return { pixels: [...image.data], adapter };
    },
    { how, model, request },
  );
  await page.context().close();
  expect(problems).toEqual([]);
  return { ...result, requested: server.log.map(({ path }) => path) };
}

const compilers = (requested: string[]) => requested.filter((path) => path.includes('compiler'));

it('by its URL in a worker', async () => {
  const script = '/dist/browser/client.js';
  const { pixels, requested } = await editIn('/blank.html', { script, programs: '/programs' });
  expect(pixels).toEqual(expected);
  expect(requested).toContain('/programs/manifest.json');
  expect(compilers(requested)).toEqual([]);
});

it('in a plain page, by its URL and as a module', async () => {
  const { page, problems } = await openPage(browser, `${server.url}/blank.html`);
  server.log.length = 0;
  const files = await page.evaluate(async (model) => {
    const { Kontext } = (await importModule('/dist/browser/kontext.js')) as typeof InPage;
    const { default: module } = (await importModule('/programs/index.js')) as { default: BundleSource };
    for (const programs of ['/programs/', module]) await (await Kontext.load(model, { programs })).close();
    const manifest = (await module.read('manifest.json')) as { programs: { body: string }[] };
    return Promise.all(
      manifest.programs.map(async ({ body }) => [body, JSON.stringify(await module.read(`programs/${body}.json`))]),
    );
  }, model);
  await page.context().close();
  expect(problems).toEqual([]);
  expect(files.length).toBeGreaterThan(5);
  for (const [body, text] of files)
    expect(await readFile(join(folder, `programs/programs/${body}.json`), 'utf8')).toBe(text);
  expect(compilers(server.log.map(({ path }) => path))).toEqual([]);
});

it('inside an app built by Vite', async () => {
  const app = join(folder, 'app');
  await mkdir(app, { recursive: true });
  const [, recipe] = /```js vite\n([\s\S]*?)```/.exec(await readFile(guide, 'utf8'))!;
  const main = `${recipe!.replace('./programs/', '../programs/').replace('/models/kontext/', model)}
globalThis.edit = async (request) => [...(await kontext.edit(request)).image.data];
`;
  await writeFile(join(app, 'main.js'), main);
  await writeFile(join(app, 'index.html'), '<!doctype html><script type="module" src="./main.js"></script>');
  const alias = { 'kontext-webgpu/browser': join(root, 'dist/browser/kontext.js') };
  await build({ root: app, base: '/app/', logLevel: 'error', resolve: { alias }, configFile: false });
  server.log.length = 0;
  const { page, problems } = await openPage(browser, `${server.url}/app/index.html`);
  // The recipe awaits the model before the line after it.
  await page.waitForFunction(() => 'edit' in globalThis);
  const pixels = await page.evaluate(
    (request) => (globalThis as unknown as { edit: (of: object) => number[] }).edit(request),
    request,
  );
  const requested = server.log.map(({ path }) => path);
  await page.context().close();
  expect(problems).toEqual([]);
  expect(pixels).toEqual(expected);
  expect(requested.some((path) => path.startsWith('/app/assets/manifest'))).toBe(true);
  expect(compilers(requested)).toEqual([]);
});

it('in a build by rollup, with the plugin of the guide', async () => {
  const [, config] = /```js rollup\n([\s\S]*?)```/.exec(await readFile(guide, 'utf8'))!;
  const file = join(folder, 'rollup.config.mjs');
  await writeFile(file, config!);
  const { default: options } = (await import(/* @vite-ignore */ file)) as { default: { plugins: [] } };
  const bundle = await rollup({ input: join(folder, 'programs/index.js'), plugins: options.plugins });
  await bundle.write({ dir: join(folder, 'rolled') });
  const { default: built } = (await import(/* @vite-ignore */ join(folder, 'rolled/index.js'))) as {
    default: BundleSource;
  };
  expect(await built.read('manifest.json')).toEqual(
    JSON.parse(await readFile(join(folder, 'programs/manifest.json'), 'utf8')),
  );
});
