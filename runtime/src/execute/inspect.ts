// Finds the first dispatch of a program that writes a number that is not finite: one dispatch at a time, read back after each.
// Slow, and run only when a result is known to be unsound; loaded only then.
import { throwIfAborted } from '../errors.ts';
import type { KontextDevice } from '../gpu/device.ts';
import type { Program } from '../program/types.ts';
import type { Step } from './runner.ts';
import { type Buffers, type FloatOutput, StepReader } from './step-reader.ts';
import type { Feed } from './streaming.ts';

/** A dispatch whose output is the first that is not finite. */
export interface Unsound {
  /** As the model names the layer: `double_blocks.3.img_attn.qkv`. */
  layer: string;
  /** The kernel's kind: `matmul`, `attention`, `row-norm`. */
  kind: string;
}

/** Takes the place of a runner for one run. Memory that programs share holds what others left, so only values that change count. */
export class Inspector implements Feed {
  found: Unsound | undefined;
  readonly #reader: StepReader;
  #next = 0;

  constructor(
    gpu: KontextDevice,
    private readonly program: Program,
    private readonly buffers: Buffers,
    private readonly signal: AbortSignal | undefined,
  ) {
    this.#reader = new StepReader(gpu, program, buffers, `inspection of ${program.label}`);
  }

  async add(steps: readonly Step[], before?: (encoder: GPUCommandEncoder) => void): Promise<void> {
    if (this.#next === 0) {
      await this.#reader.submit((encoder) => {
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
      if (await this.#isUnsound(step, this.#reader.outputsOf(dispatch))) {
        this.found = { layer: dispatch.label, kind: this.#reader.kindOf(dispatch) };
      }
    }
  }

  async finish(): Promise<void> {}

  async drain(): Promise<void> {}

  async #isUnsound(step: Step, outputs: readonly FloatOutput[]): Promise<boolean> {
    const before = [];
    for (const output of outputs) before.push(await this.#reader.read(output));
    await this.#reader.run(step);
    for (const [i, output] of outputs.entries()) {
      const [old, now] = [before[i]!, await this.#reader.read(output)];
      const exponent = output.type === 'f32' ? 0x7f800000 : 0x7c00;
      if (now.some((bits, at) => (bits & exponent) === exponent && bits !== old[at])) return true;
    }
    return false;
  }
}
