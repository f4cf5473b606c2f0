// GFLOP/s of the matmul variants on the adapter at hand, beside a plain hand-written kernel, in one run.
// npm run bench:matmul [-- m n k], multiples of 16; without a shape, linears of the model's blocks scaled to a software adapter.
// Fails when the first rows of a result differ from the float64 oracle.
import type { KernelSource } from '../../kernels-codegen/src/kernels/kernel.ts';
import { chooseMatmulSchedule, matmul } from '../../kernels-codegen/src/kernels/matmul/index.ts';
import { targetFor } from '../../kernels-codegen/src/targets/profiles.ts';
import type { TargetProfile, Tier } from '../../kernels-codegen/src/targets/types.ts';
import { reportAdapter } from '../../runtime/src/gpu/report.ts';
import type { WeightFormat } from '../../runtime/src/program/types.ts';
import { openTestDevice, runKernel } from '../support/gpu.ts';
import { matmulSpec } from '../support/matmul-shapes.ts';
import { matmulReference, randomWeight } from '../support/oracle-matmul.ts';
import { plainMatmul } from '../support/plain-matmul.ts';
import { printRates } from '../support/print-rates.ts';
import { encode, gaussian, roundTo } from '../support/views.ts';
import { relativeError, timedKernel } from './timed-kernel.ts';

interface Contender {
  name: string;
  format: WeightFormat;
  kernel: KernelSource;
  buffers: ArrayBufferView[];
}

const ROUNDS = 7;
const CHECKED_ROWS = 16;
const given = process.argv.slice(2).map(Number);
// Rows as 512² + 512² tokens / 8; widths as the double block's QKV and the single block's second linear / 8.
const shapes =
  given.length === 3
    ? [given]
    : [
        [256, 1152, 384],
        [256, 384, 1920],
        [16, 2304, 384],
      ];

const gpu = await openTestDevice();
const report = reportAdapter(gpu.adapter, gpu.device);
console.log(
  `${report.description || report.device} · medians of ${ROUNDS} alternating rounds · GFLOP/s, × the plain kernel`,
);
for (const [m, n, k] of shapes) await bench(m!, n!, k!);
process.exit(0);

async function bench(m: number, n: number, k: number): Promise<void> {
  console.log(`\n${m}×${n}×${k}`);
  const next = gaussian(m + n + k);
  const a = Float64Array.from({ length: m * k }, () => roundTo('f16', next()));
  const weights = new Map(
    (['f32', 'f16', 'q8', 'q4'] as WeightFormat[]).map((format) => [
      format,
      randomWeight(format, n, k, gaussian(n * k)),
    ]),
  );
  const contenders = variants().flatMap(([name, target, type, format]): Contender[] => {
    const spec = matmulSpec({ m, n, k, type, format });
    const schedule = chooseMatmulSchedule(spec, target);
    const buffers = [encode(type, a), weights.get(format)!.bytes, new Float32Array(m * n)];
    return [
      { name: `${name}, ${format}: ${schedule.variant}`, format, kernel: matmul(spec, target, schedule), buffers },
    ];
  });
  const buffers = [encode('f32', a), weights.get('f32')!.bytes, new Float32Array(m * n)];
  contenders.unshift({ name: 'plain 16×16 tiles, f32', format: 'f32', kernel: plainMatmul(m, n, k), buffers });

  const runs = contenders.map((c) => timedKernel(gpu.device, c.kernel, c.buffers));
  const times = contenders.map((): number[] => []);
  for (const { name, kernel, buffers, format } of contenders) {
    const y = new Float32Array((await runKernel(gpu, kernel, buffers)).get(2)!);
    const rows = Math.min(m, CHECKED_ROWS);
    const want = matmulReference(matmulSpec({ m: rows, n, k, format }), [a], weights.get(format)!.values);
    const error = relativeError(y, want);
    // f16 tiles round quantised weights, by 2⁻¹² of their size.
    if (!(error <= 1e-3)) throw new Error(`${name}: relative error ${error}`);
  }
  for (let round = 0; round < ROUNDS; round++) {
    for (const [i, run] of runs.entries()) times[i]!.push(await run());
  }
  printRates(contenders.map(({ name, kernel }, i) => ({ name, flops: kernel.flops, times: times[i]! })));
}

/** What the adapter can run: each tier as on a GPU, and, for a software adapter, what it is given. */
function variants(): [name: string, target: TargetProfile, type: 'f32' | 'f16', format: WeightFormat][] {
  const list: ReturnType<typeof variants> = [];
  const own = targetFor(report);
  for (const highest of ['f32', 'f16', 'subgroups', 'subgroup-matrix'] satisfies Tier[]) {
    const { software, ...target } = targetFor(report, highest === 'f32' ? 'f32' : 'auto', highest);
    if (target.tier !== highest) continue;
    if (highest === 'f32') {
      list.push(['tier f32', target, 'f32', 'f32']);
      if (software) list.push(['software adapter', { ...target, software }, 'f32', 'f32']);
    } else {
      list.push([`tier ${highest}`, target, 'f16', 'f16']);
    }
  }
  const type = own.tier === 'f32' ? 'f32' : 'f16';
  return [...list, [`own target, ${own.tier}`, own, type, 'q8'], [`own target, ${own.tier}`, own, type, 'q4']];
}
