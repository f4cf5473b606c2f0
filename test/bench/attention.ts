// GFLOP/s of the attention variants on the adapter at hand, beside plain attention with scores in memory, in one run.
// npm run bench:attention [-- tokens heads size]; without a shape, the model's kinds of attention scaled to a software adapter.
// Fails when a result differs from the plain one's by more than f16 weights explain.
import {
  type AttentionSpec,
  attention,
  chooseAttentionSchedule,
} from '../../kernels-codegen/src/kernels/attention/index.ts';
import { targetFor } from '../../kernels-codegen/src/targets/profiles.ts';
import type { TargetProfile, Tier } from '../../kernels-codegen/src/targets/types.ts';
import { reportAdapter } from '../../runtime/src/gpu/report.ts';
import { openTestDevice } from '../support/gpu.ts';
import { plainAttention } from '../support/plain-attention.ts';
import { printRates } from '../support/print-rates.ts';
import { decode, encode, gaussian, roundTo, view } from '../support/views.ts';
import { relativeError } from './timed-kernel.ts';

interface Pass {
  wgsl: string;
  /** Numbers of the buffers it binds. */
  buffers: number[];
  workgroups: [number, number, number];
}
interface Contender {
  name: string;
  type: 'f32' | 'f16';
  passes: Pass[];
}
type Shape = [tokens: number, heads: number, size: number];

const ROUNDS = 7;
const given = process.argv.slice(2).map(Number);
// The transformer's joint attention, T5's and CLIP's heads, the VAE's single wide head; real token counts are 8704, 512, 77, 16384.
const shapes: Shape[] =
  given.length === 3
    ? [given as Shape]
    : [
        [512, 2, 128],
        [256, 4, 64],
        [256, 1, 512],
      ];
const q = 0;
const k = 1;
const v = 2;
const scores = 3;
const out = 4;

const gpu = await openTestDevice();
const report = reportAdapter(gpu.adapter, gpu.device);
console.log(
  `${report.description || report.device} · medians of ${ROUNDS} alternating rounds · GFLOP/s, × the plain kernel`,
);
for (const shape of shapes) await bench(shape);
if (gpu.errors.length) throw new Error(gpu.errors.join('\n'));
process.exit(0);

async function bench([tokens, heads, size]: Shape): Promise<void> {
  console.log(`\n${tokens} tokens, ${heads} heads × ${size}`);
  const flops = 4 * tokens * tokens * heads * size;
  const spec = (type: 'f32' | 'f16'): AttentionSpec => {
    const m = view(type, tokens, heads * size);
    return { heads, size, q: m, k: m, v: m, out: m, scale: 1 / Math.sqrt(size), causal: false };
  };
  const contenders: Contender[] = [
    { name: 'plain, scores in memory, f32', type: 'f32', passes: plainAttention(tokens, heads, size) },
    ...variants().map(([name, target, type]): Contender => {
      const schedule = chooseAttentionSchedule(spec(type), target);
      const { wgsl, workgroups } = attention(spec(type), target, schedule);
      return { name: `${name}: ${schedule.variant}`, type, passes: [{ wgsl, workgroups, buffers: [q, k, v, out] }] };
    }),
  ];
  const next = gaussian(1);
  const inputs = [q, k, v].map(() =>
    Float64Array.from({ length: tokens * heads * size }, () => roundTo('f16', next())),
  );
  const runs = contenders.map((c) => prepare(c, inputs, heads * tokens * tokens * 4));
  let want: Float64Array | undefined;
  for (const [i, { run, read }] of runs.entries()) {
    await run();
    const got = await read();
    want ??= got;
    const error = relativeError(got, want);
    // The inputs are f16 values for all; an f16 variant rounds weights and result once each, 2⁻¹¹ at most.
    const limit = contenders[i]!.type === 'f32' ? 1e-5 : 1e-3;
    if (!(error <= limit)) throw new Error(`${contenders[i]!.name}: relative error ${error}`);
  }
  const times = contenders.map((): number[] => []);
  for (let round = 0; round < ROUNDS; round++) {
    for (const [i, { run }] of runs.entries()) times[i]!.push(await run());
  }
  printRates(contenders.map(({ name }, i) => ({ name, flops, times: times[i]! })));
  for (const { free } of runs) free();
}

/** Each tier the adapter has, as a GPU would run it, and, for a software adapter, what it is given itself. */
function variants(): [name: string, target: TargetProfile, type: 'f32' | 'f16'][] {
  const list: ReturnType<typeof variants> = [];
  for (const highest of ['f32', 'f16', 'subgroups', 'subgroup-matrix'] satisfies Tier[]) {
    const { software, ...target } = targetFor(report, highest === 'f32' ? 'f32' : 'auto', highest);
    if (target.tier !== highest) continue;
    const type = highest === 'f32' ? 'f32' : 'f16';
    list.push([`tier ${highest}`, target, type]);
    if (software && highest !== 'subgroups') {
      list.push([`tier ${highest}, software adapter`, { ...target, software }, type]);
    }
  }
  return list;
}

/** Uploads once; `run` gives milliseconds until the queue is empty. */
function prepare({ type, passes }: Contender, inputs: Float64Array[], scoreBytes: number) {
  const { device } = gpu;
  const storage = 0x80;
  const copySource = 0x04;
  const copyDestination = 0x08;
  const create = (bytes: number): GPUBuffer =>
    device.createBuffer({ size: Math.ceil(bytes / 16) * 16, usage: storage | copySource | copyDestination });
  const bytes = inputs[0]!.length * (type === 'f32' ? 4 : 2);
  const used = new Set(passes.flatMap((p) => p.buffers));
  const buffers = [q, k, v, scores, out].map((i) =>
    used.has(i) ? create(i === scores ? scoreBytes : bytes) : undefined,
  );
  for (const [i, values] of inputs.entries()) {
    const data = encode(type, values);
    device.queue.writeBuffer(buffers[i]!, 0, data.buffer as ArrayBuffer, data.byteOffset, data.byteLength);
  }
  const ready = passes.map((p) => {
    const module = device.createShaderModule({ code: p.wgsl });
    const pipeline = device.createComputePipeline({ layout: 'auto', compute: { module, entryPoint: 'main' } });
    const entries = p.buffers.map((b, binding) => ({ binding, resource: { buffer: buffers[b]! } }));
    return { pipeline, group: device.createBindGroup({ layout: pipeline.getBindGroupLayout(0), entries }), ...p };
  });
  const run = async (): Promise<number> => {
    const start = performance.now();
    const encoder = device.createCommandEncoder();
    const pass = encoder.beginComputePass();
    for (const { pipeline, group, workgroups } of ready) {
      pass.setPipeline(pipeline);
      pass.setBindGroup(0, group);
      pass.dispatchWorkgroups(...workgroups);
    }
    pass.end();
    device.queue.submit([encoder.finish()]);
    await device.queue.onSubmittedWorkDone();
    return performance.now() - start;
  };
  const read = async (): Promise<Float64Array> => {
    const mapRead = 0x01;
    const source = buffers[out]!;
    const staging = device.createBuffer({ size: source.size, usage: mapRead | copyDestination });
    const encoder = device.createCommandEncoder();
    encoder.copyBufferToBuffer(source, 0, staging, 0, source.size);
    device.queue.submit([encoder.finish()]);
    await staging.mapAsync(mapRead);
    const values = decode(type, staging.getMappedRange().slice(0, bytes));
    staging.destroy();
    return values;
  };
  const free = (): void => {
    for (const buffer of buffers) buffer?.destroy();
  };
  return { run, read, free };
}
