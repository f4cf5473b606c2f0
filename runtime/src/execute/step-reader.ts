// One dispatch at a time, and what it writes read back: for what looks at values between dispatches, which is slow and rare.
import type { KontextDevice } from '../gpu/device.ts';
import { BufferUsage, MAP_MODE_READ } from '../gpu/flags.ts';
import type { BufferKind, BufferRange, Dispatch, Program } from '../program/types.ts';
import type { Step } from './runner.ts';

export type Buffers = Readonly<Record<BufferKind, readonly (GPUBuffer | undefined)[]>>;

/** An array of floats that a dispatch writes; the range may hold more than it writes. */
export interface FloatOutput {
  type: FloatType;
  range: BufferRange;
}

type FloatType = 'f32' | 'f16';
type Encode = (encoder: GPUCommandEncoder) => void;

export class StepReader {
  constructor(
    private readonly gpu: KontextDevice,
    private readonly program: Program,
    private readonly buffers: Buffers,
    /** What WebGPU's errors are said to be of. */
    private readonly label: string,
  ) {}

  outputsOf(dispatch: Dispatch): FloatOutput[] {
    const kernel = this.program.kernels[dispatch.kernel]!;
    return kernel.bindings.flatMap((access, i) => {
      const type = access === 'read_write' ? floatType(kernel.wgsl, i) : undefined;
      return type ? [{ type, range: dispatch.bindings[i]! }] : [];
    });
  }

  /** The kernel's kind (`matmul`, `attention`, `row-norm`) of a dispatch. */
  kindOf(dispatch: Dispatch): string {
    const { label } = this.program.kernels[dispatch.kernel]!;
    return /^[\w-]+/.exec(label)?.[0] ?? label;
  }

  run(step: Step): Promise<void> {
    return this.submit((encoder) => {
      const pass = encoder.beginComputePass({ label: step.label });
      pass.setPipeline(step.pipeline);
      pass.setBindGroup(0, step.group);
      pass.dispatchWorkgroups(...step.workgroups);
      pass.end();
    });
  }

  /** The bits of the values in a range, as they are after what was submitted before. */
  async read({ type, range }: FloatOutput): Promise<Uint32Array<ArrayBuffer> | Uint16Array<ArrayBuffer>> {
    const [kind, index, offset, size] = range;
    const staging = await this.gpu.allocate('inspected values', size, BufferUsage.MAP_READ | BufferUsage.COPY_DST);
    try {
      await this.submit((encoder) => encoder.copyBufferToBuffer(this.buffers[kind][index]!, offset, staging, 0, size));
      await this.gpu.guard(staging.mapAsync(MAP_MODE_READ));
      const bytes = staging.getMappedRange().slice(0, size);
      return type === 'f32' ? new Uint32Array(bytes) : new Uint16Array(bytes);
    } finally {
      this.gpu.free(staging);
    }
  }

  write({ range }: FloatOutput, words: Uint16Array<ArrayBuffer>): void {
    const [kind, index, offset] = range;
    this.gpu.queue.writeBuffer(this.buffers[kind][index]!, offset, words);
  }

  submit(encode: Encode): Promise<void> {
    return this.gpu.scoped(this.label, () => {
      const encoder = this.gpu.device.createCommandEncoder({ label: this.label });
      encode(encoder);
      this.gpu.queue.submit([encoder.finish()]);
    });
  }
}

/** What a binding's array holds, by the kernel's own text; undefined for integers, which are always finite. */
function floatType(wgsl: string, binding: number): FloatType | undefined {
  const pattern = new RegExp(
    `@binding\\(${binding}\\)\\s*var<storage,\\s*read_write>\\s*\\w+\\s*:\\s*array<(?:vec\\d<)?(f32|f16)`,
  );
  return pattern.exec(wgsl)?.[1] as FloatType | undefined;
}
