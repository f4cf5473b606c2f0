// GFLOP/s of the convolution variants on the adapter at hand, beside a plain hand-written kernel, in one run.
// npm run bench:conv2d [-- height width cin cout]; without a shape, the VAE's kinds of layer scaled to a software adapter.
// Fails when a result differs from the plain kernel's by more than f16 operands explain.
import { type Conv2dSpec, chooseConv2dSchedule, conv2d } from '../../kernels-codegen/src/kernels/conv2d/index.ts';
import type { KernelSource } from '../../kernels-codegen/src/kernels/kernel.ts';
import { targetFor } from '../../kernels-codegen/src/targets/profiles.ts';
import type { TargetProfile, Tier } from '../../kernels-codegen/src/targets/types.ts';
import { reportAdapter } from '../../runtime/src/gpu/report.ts';
import { openTestDevice, runKernel } from '../support/gpu.ts';
import { type Conv2dShape, conv2dSpec } from '../support/oracle-conv2d.ts';
import { plainConv2d } from '../support/plain-conv2d.ts';
import { printRates } from '../support/print-rates.ts';
import { encode, gaussian, roundTo } from '../support/views.ts';
import { relativeError, timedKernel } from './timed-kernel.ts';

interface Contender {
  name: string;
  kernel: KernelSource;
  buffers: ArrayBufferView[];
}

const ROUNDS = 7;
const [height, width, cin, cout] = process.argv.slice(2).map(Number);
const shapes: Conv2dShape[] = cout
  ? [{ height: height!, width: width!, cin: cin!, cout }]
  : [
      { height: 32, width: 32, cin: 64, cout: 64 },
      { height: 16, width: 16, cin: 64, cout: 64, upsample: 2 },
      { height: 64, width: 64, cin: 32, cout: 32, stride: 2 },
      { height: 64, width: 64, cin: 32, cout: 3 },
      { height: 64, width: 64, cin: 4, cout: 32 },
    ];

const gpu = await openTestDevice();
const report = reportAdapter(gpu.adapter, gpu.device);
console.log(
  `${report.description || report.device} · medians of ${ROUNDS} alternating rounds · GFLOP/s, × the plain kernel`,
);
for (const shape of shapes) await bench(shape);
process.exit(0);

async function bench(shape: Conv2dShape): Promise<void> {
  const notes = [shape.stride ? 'stride 2' : '', shape.upsample ? 'upsampled' : ''].filter(Boolean).join(' ');
  console.log(`\n${shape.height}×${shape.width}, ${shape.cin} → ${shape.cout} ${notes}`);
  const spec = (type: 'f32' | 'f16'): Conv2dSpec => conv2dSpec({ ...shape, x: type, weight: type });
  const { x, weight, out, ...plain } = spec('f32');
  const next = gaussian(1);
  const image = Float64Array.from({ length: x.rows * x.cols }, () => roundTo('f16', next()));
  const scale = 1 / Math.sqrt(weight.cols);
  const filter = Float64Array.from({ length: weight.rows * weight.cols }, () => roundTo('f16', next() * scale));
  const buffers = (type: 'f32' | 'f16') => [
    encode(type, image),
    encode(type, filter),
    new Float32Array(out.rows * out.cols),
  ];
  const contenders: Contender[] = [
    { name: 'plain, f32', kernel: plainConv2d({ x, weight, out, ...plain }), buffers: buffers('f32') },
    ...variants().map(([name, target, type]) => {
      const schedule = chooseConv2dSchedule(spec(type), target);
      const kernel = conv2d(spec(type), target, schedule);
      return { name: `${name}: ${schedule.variant}`, kernel, buffers: buffers(type) };
    }),
  ];
  let want: Float32Array | undefined;
  for (const { name, kernel, buffers } of contenders) {
    const got = new Float32Array((await runKernel(gpu, kernel, buffers)).get(2)!);
    want ??= got;
    const error = relativeError(got, want);
    // The operands are f16 values in every variant, so only the order of f32 sums differs.
    if (!(error <= 1e-5)) throw new Error(`${name}: relative error ${error}`);
  }
  const runs = contenders.map((c) => timedKernel(gpu.device, c.kernel, c.buffers));
  const times = contenders.map((): number[] => []);
  for (let round = -1; round < ROUNDS; round++) {
    for (const [i, run] of runs.entries()) {
      const ms = await run();
      if (round >= 0) times[i]!.push(ms);
    }
  }
  printRates(contenders.map(({ name, kernel }, i) => ({ name, flops: kernel.flops, times: times[i]! })));
}

/** Each tier the adapter has, as a GPU would run it, and, for a software adapter, what it is given itself. */
function variants(): [name: string, target: TargetProfile, type: 'f32' | 'f16'][] {
  const list: ReturnType<typeof variants> = [];
  for (const highest of ['f32', 'f16', 'subgroup-matrix'] satisfies Tier[]) {
    const { software, ...target } = targetFor(report, highest === 'f32' ? 'f32' : 'auto', highest);
    if (target.tier !== highest) continue;
    const type = highest === 'f32' ? 'f32' : 'f16';
    list.push([`tier ${highest}`, target, type]);
    if (software) list.push([`tier ${highest}, software adapter`, { ...target, software }, type]);
  }
  return list;
}
