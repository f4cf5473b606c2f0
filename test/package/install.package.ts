// The packed package in fresh projects: Node, TypeScript, Vite, webpack and a page with an import map.
// What a bundler makes of the worker, the compiler's chunk and the WASM module shows only in a browser, so it is run there.
import { execFileSync } from 'node:child_process';
import { copyFileSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { basename, join } from 'node:path';
import { gzipSync } from 'node:zlib';
import { checkPackage, createPackageFromTarballData } from '@arethetypeswrong/core';
import type { Browser, Page } from 'playwright-core';
import { publint } from 'publint';
import { formatMessage } from 'publint/utils';
import { build as vite } from 'vite';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import webpack, { type Configuration, type Stats } from 'webpack';
import type * as InPage from '../../sdk/src/browser.ts';
import { decodeImage } from '../../sdk/src/image/node.ts';
import type * as InWorker from '../../sdk/src/worker/client.ts';
import { launch, openPage } from '../browser/support/chromium.ts';
import { serve, type TestServer } from '../browser/support/server.ts';
import { demoEdit } from '../support/demo-edit.ts';
import { psnr } from '../support/psnr.ts';
import { install, pack, root } from './project.ts';

let packed: ReturnType<typeof pack>;
let browser: Browser;
const servers: TestServer[] = [];

beforeAll(async () => {
  packed = pack();
  browser = await launch();
});
afterAll(async () => {
  await browser?.close();
  for (const server of servers) await server.close();
  rmSync(packed.folder, { recursive: true });
});

it('has nothing that publint objects to', async () => {
  const tarball = new Uint8Array(readFileSync(packed.tarball)).buffer;
  const { messages, pkg } = await publint({ pack: { tarball }, strict: true });
  expect(messages.map((message) => formatMessage(message, pkg, { color: false }))).toEqual([]);
});

it('has types that are right in every mode that can load an ES module by its exports', async () => {
  const result = await checkPackage(createPackageFromTarballData(new Uint8Array(readFileSync(packed.tarball))), {
    // Files, not modules: they have no types.
    excludeEntrypoints: ['./worker.js', './kontext.wasm', './package.json'],
  });
  if (!result.types) throw new Error('the package has no types');
  const applies = (problem: (typeof result.problems)[number]): boolean =>
    !('resolutionKind' in problem) || ['node16-esm', 'bundler'].includes(problem.resolutionKind);
  expect(result.problems.filter(applies)).toEqual([]);
});

describe('Node', () => {
  let project: string;
  beforeAll(() => {
    project = install(packed, 'node', 'node');
  });

  it('imports it, finds the demo model, and gets errors of the package’s own class', () => {
    const out = execFileSync(process.execPath, ['main.js'], { cwd: project, encoding: 'utf8' });
    expect(JSON.parse(out)).toEqual({
      model: join(project, 'node_modules/kontext-webgpu/examples/demo-model/model'),
      typed: true,
      // The optional package `webgpu` is not installed here.
      code: 'webgpu-unavailable',
    });
  });

  it('has the command line', () => {
    const run = join(project, 'node_modules/.bin/kontext');
    const targets = execFileSync(run, ['targets'], { cwd: project, encoding: 'utf8' });
    expect(targets).toContain('swiftshader');
  });

  it.each([
    ['bundler', 'esnext'],
    ['node16', 'node16'],
  ])('type-checks with moduleResolution %s', (moduleResolution, module) => {
    const tsc = join(root, 'node_modules/typescript/bin/tsc');
    const options = [
      '--noEmit',
      '--strict',
      '--target',
      'es2022',
      '--lib',
      'es2023,esnext.disposable,dom,dom.iterable',
    ];
    const resolution = ['--module', module, '--moduleResolution', moduleResolution];
    try {
      // No ambient types are installed here, and the package's own declarations are checked too.
      execFileSync(process.execPath, [tsc, ...options, ...resolution, 'app.ts'], { cwd: project, encoding: 'utf8' });
    } catch (error) {
      throw new Error((error as { stdout: string }).stdout);
    }
  });
});

describe('browser', () => {
  it('Vite builds it, and the built page makes the demo edit', async () => {
    const project = install(packed, 'vite', 'bundled');
    await vite({ root: project, configFile: false, logLevel: 'error' });
    const { page, problems, server } = await open(join(project, 'dist'));
    const { request, input, expected } = await demoEdit();
    server.mounts['/input/'] = input.folder;
    const png = await page.evaluate(
      async ({ request, file }) => {
        const { Kontext, toBlob } = (globalThis as unknown as { app: typeof InWorker }).app;
        const kontext = await Kontext.load('/model/');
        const { image } = await kontext.edit({ ...request, image: `/input/${file}` });
        await kontext.close();
        return [...new Uint8Array(await (await toBlob(image)).arrayBuffer())];
      },
      { request, file: input.file },
    );
    const decibels = psnr(await decodeImage(new Uint8Array(png), 'output'), expected);
    console.log(`Vite: ${decibels.toFixed(1)} dB of the reference`);
    expect(decibels).toBeGreaterThan(55);
    expect(problems).toEqual([]);
    // As the guide says: with this setting Vite leaves the compiler out of the worker's file.
    await vite({ root: project, configFile: false, logLevel: 'error', worker: { format: 'es' } });
    expect(readdirSync(join(project, 'dist/assets')).filter((file) => file.startsWith('compiler'))).toHaveLength(1);
  });

  it('webpack builds it, and the built page opens the model in the worker', async () => {
    const project = install(packed, 'webpack', 'bundled');
    const stats = await bundle({
      context: project,
      mode: 'production',
      entry: './main.js',
      output: { path: join(project, 'dist'), filename: 'main.js' },
      // Its advice on sizes is for apps.
      performance: false,
    });
    expect(stats.toString({ all: false, errors: true, warnings: true })).toBe('');
    copyFileSync(join(project, 'index.html'), join(project, 'dist/index.html'));
    const { page, problems } = await open(join(project, 'dist'));
    expect(await openModel(page)).toEqual({ architecture: 'swiftshader', element: true });
    expect(problems).toEqual([]);
  });

  it('a page with an import map opens the model, and loads no more than it may', async () => {
    const { page, problems, server } = await open(install(packed, 'page', 'page'));
    expect(await openModel(page)).toEqual({ architecture: 'swiftshader', element: true });
    expect(problems).toEqual([]);
    const scripts = [...new Set(server.log.map(({ path }) => path))].filter((path) => path.endsWith('.js'));
    const sizes = new Map(
      scripts.map((path) => [
        basename(path),
        gzipSync(readFileSync(join(packed.folder, 'page', path)), { level: 9 }).length / 1024,
      ]),
    );
    // This page has no prebuilt programs, so the compiler comes on top of what every page loads.
    const compiler = sizes.get('compiler.js')!;
    // This model is in its published form; one that `kontext pack` wrote is opened without these.
    const opener = ['open-files.js', 'weights-file.js', 'weight-names.js', 'safetensors.js'].reduce(
      (sum, name) => sum + sizes.get(name)!,
      0,
    );
    const loaded = [...sizes.values()].reduce((sum, kib) => sum + kib) - compiler - opener;
    console.log(
      `element, worker and engine: ${loaded.toFixed(1)} KiB gzipped; compiler: ${compiler.toFixed(1)}, opener of published files: ${opener.toFixed(1)} KiB`,
    );
    expect(opener).toBeLessThanOrEqual(16);
    expect([...sizes.keys()]).toEqual(expect.arrayContaining(['element.js', 'client.js', 'worker.js', 'wasm.js']));
    expect(loaded).toBeLessThanOrEqual(120);
    expect(compiler).toBeLessThanOrEqual(60);
  });
});

function bundle(config: Configuration): Promise<Stats> {
  return new Promise((resolve, reject) => {
    webpack(config, (error, stats) => (error ? reject(error) : resolve(stats!)));
  });
}

async function open(folder: string) {
  const server = await serve(folder);
  server.mounts = { '/model/': join(root, 'examples/demo-model/model/') };
  servers.push(server);
  return { server, ...(await openPage(browser, `${server.url}/index.html`)) };
}

/** Starts the worker and opens the model in it: everything but the edit. */
async function openModel(page: Page) {
  await page.waitForFunction(() => 'app' in globalThis);
  return page.evaluate(async () => {
    const { Kontext } = (globalThis as unknown as { app: typeof InPage | typeof InWorker }).app;
    const kontext = await Kontext.load('/model/');
    const { architecture } = kontext.adapter!;
    await kontext.close();
    return { architecture, element: document.querySelector('kontext-editor')!.shadowRoot !== null };
  });
}
