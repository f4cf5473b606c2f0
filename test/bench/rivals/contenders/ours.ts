// This project: the transformer as a compiled program, the others as the kernels that the compiler chooses for the adapter.

import { compile } from '../../../../kernels-codegen/src/compile.ts';
import { acc } from '../../../../kernels-codegen/src/expr/expr.ts';
import { attention } from '../../../../kernels-codegen/src/kernels/attention/index.ts';
import { conv2d } from '../../../../kernels-codegen/src/kernels/conv2d/index.ts';
import type { KernelSource, MatrixView } from '../../../../kernels-codegen/src/kernels/kernel.ts';
import { matmul } from '../../../../kernels-codegen/src/kernels/matmul/index.ts';
import { targetFor } from '../../../../kernels-codegen/src/targets/profiles.ts';
import type { TargetProfile } from '../../../../kernels-codegen/src/targets/types.ts';
import { BufferUsage, MAP_MODE_READ } from '../../../../runtime/src/gpu/flags.ts';
import { bflNaming, Executable, type KontextDevice, openDevice, WeightStore } from '../../../../runtime/src/index.ts';
import { f32Tensor, memorySource } from '../../../support/weights.ts';
import type { Contender, Run } from '../contender.ts';
import { FLUX, GRID, TEXT_TOKENS } from '../network.ts';
import { HEADS, type Tensor, type Work } from '../works.ts';

/** @param precision `auto` as users get it, with f16 where the adapter has it */
export function ours(precision: 'auto' | 'f32'): Contender {
  return {
    async prepare(work) {
      const gpu = await openDevice();
      const target = targetFor(gpu.report, precision);
      return work.name === 'transformer' ? transformer(gpu, work, target) : kernel(gpu, work, target);
    },
  };
}

async function transformer(gpu: KontextDevice, work: Work, target: TargetProfile): Promise<Run> {
  const tensors = Object.entries(work.weights).map(([name, { rows, columns, data }]) => {
    const shape = /weight$/.test(name) ? [rows, columns] : [columns];
    return [name, f32Tensor(shape, (i) => data[i]!)];
  });
  const shape = { textTokens: TEXT_TOKENS, image: GRID, references: [GRID] };
  const program = compile({ component: 'denoise', spec: FLUX, ...shape, target });
  const weights = new WeightStore(gpu, bflNaming(await memorySource(Object.fromEntries(tensors))));
  const executable = await Executable.create(gpu, program, { weights });
  return async () => {
    for (const [name, { data }] of Object.entries(work.inputs)) executable.write(name, data);
    await executable.run();
    return executable.read('velocity');
  };
}

async function kernel(gpu: KontextDevice, work: Work, target: TargetProfile): Promise<Run> {
  const { device, queue } = gpu;
  const data = [...Object.values(work.inputs), ...Object.values(work.weights)].map((tensor) => tensor.data);
  const { source, bytes } = kernelOf(work, target);
  const { STORAGE, COPY_SRC, COPY_DST, MAP_READ } = BufferUsage;
  const module = device.createShaderModule({ code: source.wgsl });
  const pipeline = await device.createComputePipelineAsync({ layout: 'auto', compute: { module } });
  const buffers = [...data.map(({ byteLength }) => byteLength), bytes].map((size) =>
    device.createBuffer({ size, usage: STORAGE | COPY_SRC | COPY_DST }),
  );
  const entries = buffers.map((buffer, binding) => ({ binding, resource: { buffer } }));
  const group = device.createBindGroup({ layout: pipeline.getBindGroupLayout(0), entries });
  const staging = device.createBuffer({ size: bytes, usage: MAP_READ | COPY_DST });
  const inputs = Object.keys(work.inputs).length;
  const upload = (i: number): void => queue.writeBuffer(buffers[i]!, 0, data[i]!);
  for (let i = inputs; i < data.length; i++) upload(i);
  return async () => {
    for (let i = 0; i < inputs; i++) upload(i);
    const encoder = device.createCommandEncoder();
    const pass = encoder.beginComputePass();
    pass.setPipeline(pipeline);
    pass.setBindGroup(0, group);
    pass.dispatchWorkgroups(...source.workgroups);
    pass.end();
    encoder.copyBufferToBuffer(buffers.at(-1)!, 0, staging, 0, bytes);
    queue.submit([encoder.finish()]);
    await staging.mapAsync(MAP_MODE_READ);
    const result = new Float32Array(staging.getMappedRange().slice(0));
    staging.unmap();
    return result;
  };
}

/** The kernel, and the bytes of its result. Bindings are inputs, weights, the result. */
function kernelOf(work: Work, target: TargetProfile): { source: KernelSource; bytes: number } {
  const epilogue = { expr: acc, operands: [] };
  const [first] = Object.values(work.inputs) as [Tensor];
  const weight = work.weights['layer.weight'];
  const view = (columns: number): MatrixView => ({
    type: 'f32',
    rows: first.rows,
    cols: columns,
    rowStride: columns,
    offset: 0,
  });
  const x = view(first.columns);
  if (!weight) {
    const size = first.columns / HEADS;
    const scale = 1 / Math.sqrt(size);
    const spec = { heads: HEADS, size, q: x, k: x, v: x, out: x, scale, causal: false };
    return { source: attention(spec, target), bytes: 4 * first.data.length };
  }
  const stored = { format: 'f32' as const, rows: weight.rows, cols: weight.columns };
  const out = view(weight.rows);
  const bytes = 4 * first.rows * weight.rows;
  if (!work.image) {
    const shape = { m: first.rows, n: weight.rows, segments: [{ a: x }] };
    return { source: matmul({ ...shape, weight: stored, epilogue, out }, target), bytes };
  }
  const { height, width } = work.image;
  const geometry = { inHeight: height, inWidth: width, outHeight: height, outWidth: width };
  const taps = { kernel: 3 as const, stride: 1 as const, padTop: 1, padLeft: 1, upsample: 1 as const };
  const channels = { cin: first.columns, cout: weight.rows };
  return { source: conv2d({ ...geometry, ...taps, ...channels, x, weight: stored, epilogue, out }, target), bytes };
}
