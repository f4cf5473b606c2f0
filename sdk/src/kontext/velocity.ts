// The transformer as the denoising loop sees it: latents in, velocity out, once for each prompt.
// Whole by default; `stages/cache.ts` offers the same with steps that reuse earlier ones.
import type { Executable, Unsound } from '../../../runtime/src/execute/executable.ts';
import { patches } from './latents.ts';
import type { ModulationRows } from './modulation.ts';
import type { Parts, ShapeRequest, Work } from './parts.ts';
import { type Place, ropeTable } from './rope.ts';
import type { ImageSize } from './types.ts';

/** One prompt's share of the guidance: its text and its modulation rows, on the GPU. */
export interface Branch {
  text: GPUBuffer;
  textBytes: number;
  rows: ModulationRows;
}

/** What the transformer is to see beside latents and prompts. */
export interface VelocityJob {
  target: ImageSize;
  /** Of the pictures the transformer sees beside the target, in pixels, and where they lie. */
  context: ImageSize[];
  places: Place[];
  maxSequenceLength: number;
}

/** Evaluates v(latents, σ, prompt). */
export interface Velocity {
  /** Buffers shared with samplers and guidance. */
  latents: GPUBuffer;
  velocity: GPUBuffer;
  writeLatents(values: Float32Array): void;
  /** Further channels of each token. */
  writeControl(values: Float32Array): void;
  read(port: 'latents' | 'velocity'): Promise<Float32Array<ArrayBuffer>>;
  /**
   * @param branch which prompt: 0 the positive, 1 the negative one
   * @param at which of the modulation rows
   * @param after copies to add to the submission
   * @returns milliseconds
   */
  run(branch: 0 | 1, at: number, after?: (encoder: GPUCommandEncoder) => void): Promise<number>;
  /** Runs an evaluation again, whole, to find the layer in which its numbers stop being finite. */
  locate(branch: 0 | 1, at: number): Promise<Unsound | undefined>;
  /** Forgets what earlier pictures left. */
  reset(): void;
  /** Frees what it allocated, when the loop is over. */
  dispose?(): Promise<void>;
  /** Evaluations since the last reset that reused an earlier one. */
  readonly skipped: number;
}

/** The shape of a denoising program, or of a part of one. */
export function denoiseShape<C extends 'denoise' | `denoise-${string}`>(
  component: C,
  job: Omit<VelocityJob, 'places'>,
) {
  return {
    component,
    textTokens: job.maxSequenceLength,
    image: patches(job.target),
    references: job.context.map(patches),
  };
}

/** What a whole evaluation reads of a branch, copied into the ports of its program. The row `at` must have been reached. */
export function branchCopies({ rows, text, textBytes }: Branch, at: number) {
  return [rows.copyOf(at), { from: text, fromOffset: 0, to: 'text', toOffset: 0, bytes: textBytes }];
}

/** Inputs that no step changes. */
export function writeScene(
  parts: Parts,
  program: Executable,
  job: VelocityJob,
  context: readonly Float32Array[],
): void {
  const { axes, theta } = parts.specs.transformer;
  program.write('rope', ropeTable(axes, theta, job.maxSequenceLength, patches(job.target), job.places));
  writeContext(program, context);
}

/** Packed latents of what the transformer sees beside the target, one after the other. */
export function writeContext(program: Executable, context: readonly Float32Array[]): void {
  let at = 0;
  for (const latents of context) {
    program.write('references', latents, at);
    at += latents.byteLength;
  }
}

/** What samplers and guidance touch, where one program has all of it. */
export function portsOf(
  program: Executable,
): Pick<Velocity, 'latents' | 'velocity' | 'writeLatents' | 'writeControl' | 'read'> {
  return {
    latents: program.port('latents'),
    velocity: program.port('velocity'),
    writeLatents: (values) => program.write('latents', values),
    writeControl: (values) => program.write('control', values),
    read: (port) => program.read(port),
  };
}

/**
 * Every evaluation whole.
 *
 * @param context packed latents of what the transformer sees beside the target
 */
export async function wholeVelocity(
  parts: Parts,
  job: VelocityJob,
  context: readonly Float32Array[],
  branches: readonly Branch[],
  work: Work,
): Promise<Velocity> {
  const program = await parts.bind(denoiseShape('denoise', job) as ShapeRequest, work);
  writeScene(parts, program, job, context);
  return {
    ...portsOf(program),
    run: (branch, at, after) =>
      parts.run(program, work, { copies: branchCopies(branches[branch]!, at), ...(after && { after }) }),
    locate: (branch, at) => program.firstUnsound({ copies: branchCopies(branches[branch]!, at), signal: work.signal }),
    reset: () => {},
    skipped: 0,
  };
}
