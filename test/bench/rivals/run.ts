// Our kernels beside other WebGPU and WASM libraries, on one adapter in one run: npm run bench:rivals [-- node|chromium] [ROUNDS].
// `node`: Dawn on the Vulkan driver of the environment (lavapipe); `chromium`: headless, on its SwiftShader. The rivals are installed on demand.

import { execFileSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { build } from 'esbuild';
import { launch, openPage } from '../../browser/support/chromium.ts';
import { serve } from '../../browser/support/server.ts';
import { contest, type Row } from './contest.ts';

const here = fileURLToPath(new URL('.', import.meta.url));
const root = fileURLToPath(new URL('../../..', import.meta.url));
const where = process.argv[2] ?? 'node';
const rounds = Number(process.argv[3] ?? 7);
if (!existsSync(`${here}node_modules/onnxruntime-web`)) {
  // Without install scripts: none of the rivals needs one, and some of their dependencies download binaries in theirs.
  execFileSync('npm', ['install', '--ignore-scripts', '--no-audit', '--no-fund'], { cwd: here, stdio: 'inherit' });
}

const folder = `${root}out/bench-rivals`;
await build({
  stdin: {
    contents: `import { contest } from './contest.ts';
import * as core from '@tensorflow/tfjs-core';
import '@tensorflow/tfjs-backend-webgpu';
import * as jax from '@jax-js/jax';
const modules = { tensorflow: core, jax };
globalThis.rivals = (rounds) => contest(
  async (name) => modules[name] ?? import(/* @vite-ignore */ '/' + 'test/bench/rivals/node_modules/onnxruntime-web/dist/ort.all.bundle.min.mjs'),
  { paths: location.origin + '/test/bench/rivals/node_modules/onnxruntime-web/dist/' }, rounds);`,
    resolveDir: here,
    loader: 'ts',
  },
  outfile: `${folder}/page.js`,
  bundle: true,
  format: 'esm',
  target: 'es2022',
  logLevel: 'error',
});

print(where === 'chromium' ? await inChromium() : await inNode());
process.exit(0);

async function inChromium() {
  const server = await serve(root);
  const browser = await launch();
  try {
    const { page, problems } = await openPage(browser, `${server.url}/blank.html`);
    page.setDefaultTimeout(0);
    const result = await page.evaluate(async (count) => {
      await importModule('/out/bench-rivals/page.js');
      return (globalThis as unknown as { rivals: (rounds: number) => ReturnType<typeof contest> }).rivals(count);
    }, rounds);
    for (const problem of problems) console.error(`page: ${problem.slice(0, 300)}`);
    return result;
  } finally {
    await browser.close();
    await server.close();
  }
}

async function inNode() {
  const { create, globals } = await import('webgpu');
  const gpu = create(['enable-dawn-features=allow_unsafe_apis']);
  Object.assign(globalThis, globals);
  Object.defineProperty(globalThis, 'navigator', {
    value: { gpu, userAgent: 'node', hardwareConcurrency: 1 },
    configurable: true,
  });
  const modules: Record<string, string> = {
    'onnxruntime-web': 'onnxruntime-web/dist/ort.all.bundle.min.mjs',
    jax: '@jax-js/jax/dist/index.js',
  };
  const load = async (name: string): Promise<unknown> => {
    if (name !== 'tensorflow') return import(pathToFileURL(`${here}node_modules/${modules[name]}`).href);
    await build({
      stdin: {
        contents: "export * from '@tensorflow/tfjs-core'; import '@tensorflow/tfjs-backend-webgpu';",
        resolveDir: here,
      },
      outfile: `${folder}/tensorflow.mjs`,
      bundle: true,
      format: 'esm',
      logLevel: 'error',
    });
    return import(pathToFileURL(`${folder}/tensorflow.mjs`).href);
  };
  return contest(load, { paths: pathToFileURL(`${here}node_modules/onnxruntime-web/dist/`).href }, rounds);
}

function print({ adapter, rows }: { adapter: string; rows: Row[] }): void {
  console.log(`\n${adapter}, in ${where}; float32, medians of ${rounds} alternating runs, error against float64\n`);
  console.log(
    '| task | who | ready | run | GFLOP/s | against ours | error |\n| --- | --- | --- | --- | --- | --- | --- |',
  );
  for (const { task, who, readyMs, times, flops, error, failed } of rows) {
    if (failed) {
      console.log(`| ${task} | ${who} | – | – | – | – | ${failed} |`);
      continue;
    }
    const ms = median(times);
    const own = median(rows.find((row) => row.task === task && row.who === 'ours')?.times ?? []);
    console.log(
      `| ${task} | ${who} | ${readyMs.toFixed(0)} ms | ${ms.toFixed(1)} ms | ${(flops / ms / 1e6).toFixed(2)} | ${(ms / own).toFixed(2)}× the time | ${error.toExponential(1)} |`,
    );
    if (!(error <= 1e-3)) throw new Error(`${who}, ${task}: relative error ${error}`);
  }
}

function median(times: readonly number[]): number {
  return [...times].sort((a, b) => a - b)[times.length >> 1]!;
}
