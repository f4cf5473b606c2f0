// Start to first step, from a bundle against compiled in the process: `npm run bench:start [-- ROUNDS]`.
// Each measurement is a process of its own, bundled as an app would be, and the two ways take turns; medians and their ratio.

import { execFile } from 'node:child_process';
import { rmSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { build } from 'esbuild';

const ROUNDS = Number(process.argv[2] ?? 5);
const WAYS = ['in the process', 'from a bundle'] as const;
const root = fileURLToPath(new URL('../../..', import.meta.url));
const folder = `${root}out/bench-start`;

rmSync(folder, { recursive: true, force: true });
await build({
  entryPoints: ['demo', 'real'].map((name) => fileURLToPath(new URL(`./${name}.ts`, import.meta.url))),
  outdir: `${folder}/js`,
  bundle: true,
  // As in the package: the compiler is a chunk of its own, read only when it is needed.
  splitting: true,
  minify: true,
  format: 'esm',
  platform: 'node',
  target: 'node20',
  external: ['webgpu', 'sharp'],
  outExtension: { '.js': '.mjs' },
  logLevel: 'error',
});
const compile = (...args: string[]) =>
  node('--import', 'tsx', 'sdk/src/cli/main.ts', 'compile', '--quantization', 'none', ...args);
await compile('--model', 'demo', '--size', '64x64', '--steps', '2', '--target', 'this', '-o', `${folder}/demo`);
await compile('--size', '1024x1024', '--target', 'nvidia', '-o', `${folder}/real`);

await compare('demo', 'The demo model, edit at 64×64 on this adapter: milliseconds after the start of the process');
await compare('real', 'FLUX.1 Kontext [dev], edit at 1024×1024 for target nvidia: programs before the first step');

/** Runs both ways in turns and prints each of their figures side by side. */
async function compare(name: 'demo' | 'real', title: string): Promise<void> {
  const figures = new Map<string, number[][]>();
  for (let round = 0; round < ROUNDS; round++) {
    for (const [way] of WAYS.entries()) {
      const out = await node(`${folder}/js/${name}.mjs`, ...(way === 1 ? [`${folder}/${name}`] : []));
      for (const [figure, value] of Object.entries(JSON.parse(out) as Record<string, number>)) {
        const times = figures.get(figure) ?? [[], []];
        times[way]!.push(value);
        figures.set(figure, times);
      }
    }
  }
  console.log(`\n${title}, medians of ${ROUNDS}\n\n|  | ${WAYS.join(' | ')} | ratio |\n| --- | --- | --- | --- |`);
  for (const [figure, times] of figures) {
    const [compiled, bundled] = times.map(median) as [number, number];
    console.log(
      `| ${figure} | ${compiled.toFixed(0)} ms | ${bundled.toFixed(0)} ms | ${(compiled / bundled).toFixed(2)} |`,
    );
  }
}

async function node(...args: string[]): Promise<string> {
  return (await promisify(execFile)(process.execPath, args, { cwd: root })).stdout;
}

function median(values: number[]): number {
  return [...values].sort((a, b) => a - b)[values.length >> 1]!;
}
