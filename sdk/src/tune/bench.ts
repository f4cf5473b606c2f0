// One shape on the GPU: its operands, results of kernels on them, and how long they take.
import type { KernelSource, MatrixView } from '../../../kernels-codegen/src/kernels/kernel.ts';
import { allBindings, viewLength } from '../../../kernels-codegen/src/kernels/kernel.ts';
import { type Operand, operandsOf, type TunableShape } from '../../../kernels-codegen/src/tune/shapes.ts';
import type { CompiledKernel, KontextDevice } from '../../../runtime/src/gpu/device.ts';
import { paddedBytes } from '../../../runtime/src/gpu/device.ts';
import { BufferUsage, MAP_MODE_READ } from '../../../runtime/src/gpu/flags.ts';
import { floatToHalf, halfToFloat } from '../../../runtime/src/half.ts';
import { STORED_FORMATS, storedLayout, type WeightFormat } from '../../../runtime/src/program/formats.ts';

/** A kernel bound to the shape's operands. */
export interface Bound {
  source: KernelSource;
  compiled: CompiledKernel;
  group: GPUBindGroup;
}

/** Rows at the start and at the end of a result that are compared. */
const COMPARED_ROWS = 64;

/** Operands of one shape; give them back with {@link ShapeBench.dispose}. */
export class ShapeBench {
  /** Sizes of kernels that take them as data. */
  private readonly tables: GPUBuffer[] = [];

  private constructor(
    private readonly gpu: KontextDevice,
    private readonly buffers: readonly GPUBuffer[],
    private readonly out: MatrixView,
  ) {}

  /** @throws KontextError `out-of-memory` */
  static async create(gpu: KontextDevice, shape: TunableShape): Promise<ShapeBench> {
    const operands = operandsOf(shape);
    const buffers: GPUBuffer[] = [];
    const last = operands.at(-1) as Operand & { kind: 'view' };
    const bench = new ShapeBench(gpu, buffers, last.view);
    try {
      for (const [i, operand] of operands.entries()) {
        const bytes = paddedBytes(bytesOfOperand(operand));
        const usage = BufferUsage.STORAGE | BufferUsage.COPY_DST | BufferUsage.COPY_SRC;
        const buffer = await gpu.allocate(`operand ${i}`, bytes, usage);
        buffers.push(buffer);
        if (i < operands.length - 1) fill(gpu, buffer, operand);
      }
      return bench;
    } catch (error) {
      bench.dispose();
      throw error;
    }
  }

  dispose(): void {
    for (const buffer of [...this.buffers, ...this.tables]) this.gpu.free(buffer);
  }

  /** @throws KontextError `gpu-validation` when the driver refuses the kernel */
  async bind(source: KernelSource): Promise<Bound> {
    const compiled = await this.gpu.kernel({ ...source, bindings: allBindings(source) });
    const bound = source.sizes ? [...this.buffers, await this.table(source.sizes)] : this.buffers;
    const entries = bound.map((buffer, binding) => ({ binding, resource: { buffer } }));
    return { source, compiled, group: this.gpu.device.createBindGroup({ layout: compiled.layout, entries }) };
  }

  private async table(sizes: Uint32Array): Promise<GPUBuffer> {
    const usage = BufferUsage.UNIFORM | BufferUsage.COPY_DST;
    const buffer = await this.gpu.allocate('sizes', paddedBytes(sizes.byteLength), usage);
    this.tables.push(buffer);
    this.gpu.queue.writeBuffer(buffer, 0, Uint32Array.from(sizes));
    return buffer;
  }

  /** Runs once on a cleared output. @returns its first and last rows */
  async result(bound: Bound): Promise<{ first: Float64Array; last: Float64Array }> {
    const { gpu, out } = this;
    const target = this.buffers.at(-1)!;
    const encoder = gpu.device.createCommandEncoder();
    encoder.clearBuffer(target);
    encode(encoder, bound, 1);
    gpu.queue.submit([encoder.finish()]);
    const rows = Math.min(COMPARED_ROWS, out.rows);
    return { first: await this.rows(0, rows), last: await this.rows(out.rows - rows, rows) };
  }

  /** Milliseconds a run, over as many runs as `times`. */
  async time(bound: Bound, times: number): Promise<number> {
    const { gpu } = this;
    const encoder = gpu.device.createCommandEncoder();
    encode(encoder, bound, times);
    const commands = encoder.finish();
    const started = performance.now();
    gpu.queue.submit([commands]);
    await gpu.idle();
    return (performance.now() - started) / times;
  }

  private async rows(from: number, count: number): Promise<Float64Array> {
    const { gpu, out } = this;
    const size = out.type === 'f16' ? 2 : 4;
    const start = (out.offset + from * out.rowStride) * size;
    const aligned = start - (start % 4);
    const end = start + ((count - 1) * out.rowStride + out.cols) * size;
    const bytes = Math.ceil((end - aligned) / 4) * 4;
    const copy = await gpu.allocate('rows of a result', bytes, BufferUsage.MAP_READ | BufferUsage.COPY_DST);
    try {
      const encoder = gpu.device.createCommandEncoder();
      encoder.copyBufferToBuffer(this.buffers.at(-1)!, aligned, copy, 0, bytes);
      gpu.queue.submit([encoder.finish()]);
      await copy.mapAsync(MAP_MODE_READ);
      const view = new DataView(copy.getMappedRange().slice(0));
      const values = new Float64Array(count * out.cols);
      for (let r = 0; r < count; r++) {
        for (let c = 0; c < out.cols; c++) {
          const at = start - aligned + (r * out.rowStride + c) * size;
          values[r * out.cols + c] = size === 2 ? halfToFloat(view.getUint16(at, true)) : view.getFloat32(at, true);
        }
      }
      return values;
    } finally {
      gpu.free(copy);
    }
  }
}

/** Relative distance of `got` from `want`, over the elements of the shorter; NaN counts as infinitely far. */
export function distance(got: Float64Array, want: Float64Array): number {
  let [error, power] = [0, 0];
  for (let i = 0; i < Math.min(got.length, want.length); i++) {
    error += (got[i]! - want[i]!) ** 2;
    power += want[i]! ** 2;
  }
  const relative = Math.sqrt(error / power);
  return Number.isFinite(relative) ? relative : Infinity;
}

function encode(encoder: GPUCommandEncoder, { source, compiled, group }: Bound, times: number): void {
  const pass = encoder.beginComputePass();
  pass.setPipeline(compiled.pipeline);
  pass.setBindGroup(0, group);
  for (let i = 0; i < times; i++) pass.dispatchWorkgroups(...source.workgroups);
  pass.end();
}

function bytesOfOperand(operand: Operand): number {
  if (operand.kind === 'weight') return storedLayout(operand.format, operand.rows, operand.cols).bytes;
  return viewLength(operand.view) * (operand.view.type === 'f16' ? 2 : 4);
}

/** Values as a model's: about 1 in activations, small in weights. A prime number of them, so that no two rows are alike. */
const PATTERN = 65521;
const values = (scale: number): Float32Array =>
  Float32Array.from({ length: PATTERN }, (_, i) => scale * Math.sin(i * 12.9898 + (i % 251)));

function fill(gpu: KontextDevice, buffer: GPUBuffer, operand: Operand): void {
  if (operand.kind === 'view') {
    repeat(gpu, buffer, 0, buffer.size, encoded(operand.view.type, values(1)));
    return;
  }
  const { format, rows, cols } = operand;
  const { codes, scales } = STORED_FORMATS[format];
  const { sections, bytes } = storedLayout(format, rows, cols);
  const codeSections = codes === 'six' ? 2 : 1;
  for (const [i, start] of sections.entries()) {
    const end = sections[i + 1] ?? bytes;
    repeat(gpu, buffer, start, end, i < codeSections ? codePattern(format) : scalePattern(scales, i - codeSections));
  }
}

function codePattern(format: WeightFormat): Uint8Array<ArrayBuffer> {
  const { codes } = STORED_FORMATS[format];
  if (codes === 'f32' || codes === 'f16') return encoded(codes, values(0.05));
  // Without the highest bit of the exponent 8-bit floats are neither NaN nor infinite.
  const mask = codes === 'e4m3' || codes === 'e5m2' ? 0xbf : 0xff;
  return Uint8Array.from({ length: 4 * PATTERN }, (_, i) => ((i * 2654435761) >>> 13) & mask);
}

function scalePattern(kind: (typeof STORED_FORMATS)[WeightFormat]['scales'], section: number): Uint8Array<ArrayBuffer> {
  if (kind === 'row') return encoded('f32', values(0.01).map(Math.abs));
  const groups = kind === 'group16' || kind === 'group32';
  if (groups && section === 0) return Uint8Array.from({ length: PATTERN - 1 }, (_, i) => 1 + (i % 7));
  return encoded('f16', values(groups ? 1e-4 : 1e-3));
}

function encoded(type: 'f32' | 'f16', list: Float32Array): Uint8Array<ArrayBuffer> {
  const array = type === 'f32' ? Float32Array.from(list) : Uint16Array.from(list, floatToHalf);
  return new Uint8Array(array.buffer as ArrayBuffer);
}

/** Writes a pattern again and again from `start` to `end`, in whole words. */
function repeat(
  gpu: KontextDevice,
  buffer: GPUBuffer,
  start: number,
  end: number,
  pattern: Uint8Array<ArrayBuffer>,
): void {
  const whole = pattern.subarray(0, pattern.length - (pattern.length % 4));
  for (let at = start; at < end; at += whole.length) {
    const bytes = Math.min(whole.length, Math.floor((end - at) / 4) * 4);
    if (bytes > 0) gpu.queue.writeBuffer(buffer, at, whole, 0, bytes);
  }
}
