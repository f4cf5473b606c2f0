// How long compile() takes for the real denoise program, and how large the result is: `npm run bench:compile`.
// Medians of several runs in one process; the first run is cold and printed apart. CPU time is beside the clock's, because
// on a busy machine the clock measures the others.

import { gzipSync } from 'node:zlib';
import { type CompileRequest, compile } from '../../kernels-codegen/src/compile.ts';
import { FLUX1_KONTEXT_DEV } from '../../kernels-codegen/src/models/specs.ts';
import { targetByName } from '../../kernels-codegen/src/targets/profiles.ts';
import type { Program } from '../../runtime/src/program/types.ts';

const RUNS = 9;
const grid = { height: 64, width: 64 };

console.log(
  '| target | first | median of the rest | CPU, median | kernels | dispatches | JSON gzipped |\n| --- | --- | --- | --- | --- | --- | --- |',
);
for (const name of ['nvidia-f32', 'mali', 'nvidia', 'nvidia-matrix']) {
  const request: CompileRequest = {
    component: 'denoise',
    spec: FLUX1_KONTEXT_DEV.transformer,
    textTokens: 512,
    image: grid,
    references: [grid],
    target: targetByName(name),
  };
  const times: number[] = [];
  const work: number[] = [];
  let program: Program | undefined;
  for (let run = 0; run < RUNS; run++) {
    const started = performance.now();
    const before = process.cpuUsage();
    program = compile(request);
    const { user, system } = process.cpuUsage(before);
    times.push(performance.now() - started);
    work.push((user + system) / 1000);
  }
  if (!program) continue;
  const [first, ...rest] = times;
  const medianOf = (list: number[]): number => list.toSorted((a, b) => a - b)[list.length >> 1]!;
  const bytes = gzipSync(JSON.stringify(program)).length;
  console.log(
    `| ${name} | ${first!.toFixed(0)} ms | ${medianOf(rest).toFixed(0)} ms | ${medianOf(work.slice(1)).toFixed(0)} ms | ${program.kernels.length} | ${program.dispatches.length} | ${(bytes / 1024).toFixed(1)} KiB |`,
  );
}
