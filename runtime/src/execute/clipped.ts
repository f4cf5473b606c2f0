// Counts the values that were clipped to f16's range, layer by layer: one dispatch at a time, read back after each.
// Every store into f16 clamps to ±65504, weights' too, so a stored value of that size is one that did not fit. Kernels are those of any run.
import { throwIfAborted } from '../errors.ts';
import type { KontextDevice } from '../gpu/device.ts';
import type { Program } from '../program/types.ts';
import type { Step } from './runner.ts';
import { type Buffers, type FloatOutput, StepReader } from './step-reader.ts';
import type { Feed } from './streaming.ts';

/** A dispatch that stored values at the ends of f16's range, or a weight that holds some. */
export interface ClippedLayer {
  /** As the model names the layer, `encoder.block.3.layer.1.DenseReluDense.wi_1`, or the checkpoint the weight. */
  layer: string;
  /** The kernel's kind: `matmul`, `attention`, `row-norm`; or `weight`. */
  kind: string;
  /** How many. */
  clipped: number;
}

export interface ClippedReport {
  /** f16 values that were looked at, of activations and weights; none in a program that has f32 only. */
  looked: number;
  /** In the order of the run; empty when nothing was clipped. */
  layers: ClippedLayer[];
}

/** Bits of 65504, and of the number below it. */
const LIMIT = 0x7bff;
const BELOW = 0x7bfe;
const isLimit = (bits: number): boolean => (bits & 0x7fff) === LIMIT;

function countLimits(words: Iterable<number>): number {
  let count = 0;
  for (const bits of words) if (isLimit(bits)) count++;
  return count;
}

/** Takes the place of a runner for one run. */
export class ClipCounter implements Feed {
  readonly report: ClippedReport = { looked: 0, layers: [] };
  readonly #reader: StepReader;
  readonly #weights = new Set<number>();
  #next = 0;

  constructor(
    gpu: KontextDevice,
    private readonly program: Program,
    buffers: Buffers,
    private readonly signal: AbortSignal | undefined,
  ) {
    this.#reader = new StepReader(gpu, program, buffers, `clipped values of ${program.label}`);
  }

  async add(
    steps: readonly Step[],
    before?: (encoder: GPUCommandEncoder) => void,
    after?: (encoder: GPUCommandEncoder) => void,
  ): Promise<void> {
    if (before) await this.#reader.submit(before);
    for (const step of steps) {
      throwIfAborted(this.signal);
      const dispatch = this.program.dispatches[this.#next++]!;
      for (const [kind, index] of dispatch.bindings) if (kind === 'weight') await this.#countWeight(index);
      const outputs = this.#reader.outputsOf(dispatch).filter(({ type }) => type === 'f16');
      const clipped = await this.#count(step, outputs);
      this.#tell(dispatch.label, this.#reader.kindOf(dispatch), clipped);
    }
    if (after) await this.#reader.submit(after);
  }

  async finish(): Promise<void> {}

  async drain(): Promise<void> {}

  #tell(layer: string, kind: string, clipped: number): void {
    if (clipped > 0) this.report.layers.push({ layer, kind, clipped });
  }

  /** Once, before its first use: streamed weights are gone later. */
  async #countWeight(index: number): Promise<void> {
    const { name, format, bytes } = this.program.weights[index]!;
    if (format !== 'f16' || this.#weights.has(index)) return;
    this.#weights.add(index);
    const words = await this.#reader.read({ type: 'f16', range: ['weight', index, 0, bytes] });
    this.report.looked += words.length;
    this.#tell(name, 'weight', countLimits(words));
  }

  /**
   * What earlier layers clipped may lie in the same memory, written by this dispatch or not: those values are taken one
   * step off the limit while it runs, and put back where it did not write.
   */
  async #count(step: Step, outputs: readonly FloatOutput[]): Promise<number> {
    const known: (Set<number> | undefined)[] = [];
    for (const output of outputs) {
      const words = (await this.#reader.read(output)) as Uint16Array<ArrayBuffer>;
      const at = new Set<number>();
      for (const [i, bits] of words.entries()) if (isLimit(bits)) at.add(i);
      known.push(at.size > 0 ? at : undefined);
      if (at.size === 0) continue;
      for (const i of at) words[i]!--;
      this.#reader.write(output, words);
    }
    await this.#reader.run(step);
    let clipped = 0;
    for (const [i, output] of outputs.entries()) {
      const words = (await this.#reader.read(output)) as Uint16Array<ArrayBuffer>;
      this.report.looked += words.length;
      clipped += countLimits(words);
      if (!known[i]) continue;
      for (const at of known[i]) if ((words[at]! & 0x7fff) === BELOW) words[at]!++;
      this.#reader.write(output, words);
    }
    return clipped;
  }
}

/** Lines for people: layers of one kind, as `double_blocks.*.img_attn.qkv`, together. */
export function describeClipped(program: string, { looked, layers }: ClippedReport): string {
  const head = `${program}: ${looked} values in f16, `;
  if (layers.length === 0) return `${head}none clipped`;
  const kinds = new Map<string, { clipped: number; layers: string[] }>();
  for (const { layer, kind, clipped } of layers) {
    const name = `${kind} ${layer.replace(/(?<=\.)\d+(?=\.|$)/g, '*')}`;
    const known = kinds.get(name);
    kinds.set(name, { clipped: (known?.clipped ?? 0) + clipped, layers: [...(known?.layers ?? []), layer] });
  }
  const lines = [...kinds].map(
    ([name, kind]) => `  ${kind.clipped} clipped in ${name} (${kind.layers.length}, first ${kind.layers[0]})`,
  );
  return [`${head}clipped at ±65504:`, ...lines].join('\n');
}
