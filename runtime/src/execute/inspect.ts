// Finds the first dispatch of a program that writes a number that is not finite: one dispatch at a time, read back after each.
// Slow, and run only when a result is known to be unsound; loaded only then.
import { throwIfAborted } from '../errors.ts';
import type { KontextDevice } from '../gpu/device.ts';
import { BufferUsage, MAP_MODE_READ } from '../gpu/flags.ts';
import type { BufferKind, BufferRange, Program } from '../program/types.ts';
import type { Step } from './runner.ts';
import type { Feed } from './streaming.ts';

/** A dispatch whose output is the first that is not finite. */
export interface Unsound {
  /** As the model names the layer: `double_blocks.3.img_attn.qkv`. */
  layer: string;
  /** The kernel's kind: `matmul`, `attention`, `row-norm`. */
  kind: string;
}

type Buffers = Readonly<Record<BufferKind, readonly (GPUBuffer | undefined)[]>>;

/** Takes the place of a runner for one run. Memory that programs share holds what others left, so only values that change count. */
export class Inspector implements Feed {
  found: Unsound | undefined;
  #next = 0;

  constructor(
    private readonly gpu: KontextDevice,
    private readonly program: Program,
    private readonly buffers: Buffers,
    private readonly signal: AbortSignal | undefined,
  ) {}

  async add(steps: readonly Step[], before?: (encoder: GPUCommandEncoder) => void): Promise<void> {
    if (this.#next === 0) {
      await this.#submit((encoder) => {
        // The run that went wrong has left the very values that are looked for.
        for (const buffer of this.buffers.slab) if (buffer) encoder.clearBuffer(buffer);
        this.program.ports.forEach(({ direction }, i) => {
          if (direction === 'out') encoder.clearBuffer(this.buffers.port[i]!);
        });
        before?.(encoder);
      });
    }
    for (const step of steps) {
      if (this.found) return;
      throwIfAborted(this.signal);
      const dispatch = this.program.dispatches[this.#next++]!;
      const kernel = this.program.kernels[dispatch.kernel]!;
      const outputs = kernel.bindings.flatMap((access, i) => {
        const type = access === 'read_write' ? floatType(kernel.wgsl, i) : undefined;
        return type ? [{ type, range: dispatch.bindings[i]! }] : [];
      });
      if (await this.#isUnsound(step, outputs)) {
        this.found = { layer: dispatch.label, kind: /^[\w-]+/.exec(kernel.label)?.[0] ?? kernel.label };
      }
    }
  }

  async finish(): Promise<void> {}

  async drain(): Promise<void> {}

  async #isUnsound(step: Step, outputs: readonly { type: FloatType; range: BufferRange }[]): Promise<boolean> {
    const { gpu } = this;
    const stagings: GPUBuffer[] = [];
    const allocate = async (bytes: number) => {
      const usage = BufferUsage.MAP_READ | BufferUsage.COPY_DST;
      const made = await gpu.allocate('inspected values', bytes, usage);
      stagings.push(made);
      return made;
    };
    try {
      const looks: { type: FloatType; range: BufferRange; before: GPUBuffer; after: GPUBuffer }[] = [];
      for (const { type, range } of outputs) {
        const bytes = range[3];
        looks.push({ type, range, before: await allocate(bytes), after: await allocate(bytes) });
      }
      await this.#submit((encoder) => {
        const copy = (when: 'before' | 'after') => {
          for (const { range, ...look } of looks) {
            const [kind, index, offset, size] = range;
            encoder.copyBufferToBuffer(this.buffers[kind][index]!, offset, look[when], 0, size);
          }
        };
        copy('before');
        const pass = encoder.beginComputePass({ label: step.label });
        pass.setPipeline(step.pipeline);
        pass.setBindGroup(0, step.group);
        pass.dispatchWorkgroups(...step.workgroups);
        pass.end();
        copy('after');
      });
      for (const { type, before, after } of looks) {
        const [old, now] = [await this.#words(type, before), await this.#words(type, after)];
        const exponent = type === 'f32' ? 0x7f800000 : 0x7c00;
        for (let i = 0; i < now.length; i++) {
          if ((now[i]! & exponent) === exponent && now[i] !== old[i]) return true;
        }
      }
      return false;
    } finally {
      for (const staging of stagings) gpu.free(staging);
    }
  }

  async #words(type: FloatType, buffer: GPUBuffer): Promise<Uint32Array | Uint16Array> {
    await this.gpu.guard(buffer.mapAsync(MAP_MODE_READ));
    const bytes = buffer.getMappedRange().slice(0);
    return type === 'f32' ? new Uint32Array(bytes) : new Uint16Array(bytes);
  }

  #submit(encode: (encoder: GPUCommandEncoder) => void): Promise<void> {
    const label = `inspection of ${this.program.label}`;
    return this.gpu.scoped(label, () => {
      const encoder = this.gpu.device.createCommandEncoder({ label });
      encode(encoder);
      this.gpu.queue.submit([encoder.finish()]);
    });
  }
}

type FloatType = 'f32' | 'f16';

/** What a binding's array holds, by the kernel's own text; undefined for integers, which are always finite. */
function floatType(wgsl: string, binding: number): FloatType | undefined {
  const pattern = new RegExp(
    `@binding\\(${binding}\\)\\s*var<storage,\\s*read_write>\\s*\\w+\\s*:\\s*array<(?:vec\\d<)?(f32|f16)`,
  );
  return pattern.exec(wgsl)?.[1] as FloatType | undefined;
}
