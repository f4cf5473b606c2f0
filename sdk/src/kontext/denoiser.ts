// The denoising loop on the GPU: programs bound to each other's ports, and the steps from noise to picture.
// Nothing is read back inside the loop, save for what a request asks to see.
import { throwIfAborted } from '../../../runtime/src/errors.ts';
import type { Executable } from '../../../runtime/src/execute/executable.ts';
import { BufferUsage } from '../../../runtime/src/gpu/flags.ts';
import type { PixelImage } from '../image/pixels.ts';
import { addsNoise, type SamplerStage } from '../sampling/samplers.ts';
import { sinusoids } from './conditioning.ts';
import { patches, TOKEN_CHANNELS, tokenCount } from './latents.ts';
import type { Parts, ShapeRequest, Work } from './parts.ts';
import type { Previewer } from './preview.ts';
import { type Place, ropeTable } from './rope.ts';
import type { EncodedPrompt } from './text.ts';
import type { ImageSize } from './types.ts';

/** What all pictures of a request have in common. */
export interface DenoiseJob {
  target: ImageSize;
  /** Of the pictures the transformer sees beside the target, in pixels, and where they lie. */
  context: ImageSize[];
  places: Place[];
  /** Of the steps to run, and the final 0. */
  sigmas: Float32Array;
  /** Prompts that are evaluated at each stage. */
  branches: 1 | 2;
  /** Evaluations and updates that lead from the first σ to the last. */
  stages: SamplerStage[];
  /** Whether every stage is Euler's, which has a program of its own. */
  euler: boolean;
  guidance: number;
  trueCfgScale: number;
  maxSequenceLength: number;
  conditioning: 'exact' | 'bfloat16';
  previewEvery: number | undefined;
  /** Packed `[tokens, 64]` each: what is kept where the mask is 0. */
  keep?: { mask: Float32Array<ArrayBuffer>; known: Float32Array<ArrayBuffer> };
  afterStep?: ((image: number, step: number, latents: Float32Array) => void) | undefined;
}

/** How often the transformer runs for one picture. */
export const evaluationsOf = ({ stages, branches }: DenoiseJob): number => stages.length * branches;

export const stepsOf = ({ sigmas }: { sigmas: Float32Array }): number => sigmas.length - 1;

/** One prompt's share of the guidance: its text and its modulation rows, on the GPU. */
export interface Branch {
  text: GPUBuffer;
  textBytes: number;
  modulation: GPUBuffer;
  /** Of one step. */
  rowBytes: number;
}

const TABLE_USAGE = BufferUsage.COPY_SRC | BufferUsage.COPY_DST;

export async function makeBranch(
  parts: Parts,
  job: DenoiseJob,
  prompt: EncodedPrompt,
  buffers: GPUBuffer[],
  work: Work,
): Promise<Branch> {
  const { guidance, conditioning, sigmas } = job;
  const steps = stepsOf(job);
  const table = async (label: string, bytes: number) => {
    const buffer = await parts.allocate(label, bytes, TABLE_USAGE);
    buffers.push(buffer);
    return buffer;
  };
  const executable = await parts.bind({ component: 'modulation', steps }, work);
  executable.write('timesteps', sinusoids(sigmas.subarray(0, steps), conditioning));
  executable.write('pooled', prompt.pooled);
  if (parts.specs.transformer.guidance) executable.write('guidance', sinusoids([guidance], conditioning));
  const port = executable.program.ports.find(({ name }) => name === 'modulation')!;
  const rowBytes = port.shape[1]! * 4;
  const modulation = await table('modulation rows', steps * rowBytes);
  await parts.run(executable, work, {
    after: (encoder) => encoder.copyBufferToBuffer(executable.port('modulation'), 0, modulation, 0, steps * rowBytes),
  });
  const text = await table('text states', prompt.text.byteLength);
  parts.gpu.queue.writeBuffer(text, 0, prompt.text);
  return { text, textBytes: prompt.text.byteLength, modulation, rowBytes };
}

/** Programs of the loop, bound to each other's ports, and the inputs that no step changes. */
export interface Denoiser {
  velocity: Executable;
  /** Euler's update, or that of any sampler. */
  update: Executable;
  cfg?: { mix: Executable; negative: Branch };
  keep?: Executable;
  positive: Branch;
  preview?: Previewer;
}

/** Components that only the loop binds; to be unbound after it. */
export const LOOP_COMPONENTS = ['euler', 'sampler', 'cfg', 'keep-known'] as const;

/**
 * @param context packed latents of what the transformer sees beside the target
 * @param buffers receives what is to be freed after the loop
 */
export async function makeDenoiser(
  parts: Parts,
  job: DenoiseJob,
  context: readonly Float32Array[],
  branches: readonly Branch[],
  buffers: GPUBuffer[],
  work: Work,
): Promise<Denoiser> {
  const velocity = await parts.bind(denoiseShape(job), work);
  const { axes, theta } = parts.specs.transformer;
  velocity.write('rope', ropeTable(axes, theta, job.maxSequenceLength, patches(job.target), job.places));
  let at = 0;
  for (const latents of context) {
    velocity.write('references', latents, at);
    at += latents.byteLength;
  }
  const shape = { tokens: tokenCount(job.target), channels: TOKEN_CHANNELS };
  const shared = { latents: velocity.port('latents'), velocity: velocity.port('velocity') };
  const update = await parts.bind({ component: job.euler ? 'euler' : 'sampler', ...shape }, work, shared);
  const [positive, negative] = branches;
  const denoiser: Denoiser = { velocity, update, positive: positive! };
  if (job.keep) {
    denoiser.keep = await parts.bind({ component: 'keep-known', ...shape }, work, { latents: shared.latents });
    denoiser.keep.write('mask', job.keep.mask);
    denoiser.keep.write('known', job.keep.known);
  }
  if (!negative) return denoiser;
  const bytes = shape.tokens * TOKEN_CHANNELS * 4;
  const kept = await parts.allocate('negative velocity', bytes, BufferUsage.STORAGE | TABLE_USAGE);
  buffers.push(kept);
  const ports = { velocity: shared.velocity, negative: kept };
  const mix = await parts.bind({ component: 'cfg', ...shape }, work, ports);
  mix.write('scale', Float32Array.of(job.trueCfgScale, 0, 0, 0));
  return { ...denoiser, cfg: { mix, negative } };
}

export function denoiseShape(job: Pick<DenoiseJob, 'target' | 'context' | 'maxSequenceLength'>): ShapeRequest {
  return {
    component: 'denoise',
    textTokens: job.maxSequenceLength,
    image: patches(job.target),
    references: job.context.map(patches),
  };
}

/** Where one picture's denoising begins. */
export interface Start {
  /** Which one it is, for its events. */
  image: number;
  /** Packed latents `[tokens, 64]` at the first σ. */
  start: Float32Array;
  /** What it started from, for what is kept. */
  noise: Float32Array;
  /** Draws what an ancestral step adds. */
  freshNoise: () => Float32Array;
}

/** Rectified flow from the first σ to data (σ = 0). */
export async function denoise(
  parts: Parts,
  job: DenoiseJob,
  { velocity, update, cfg, keep, positive, preview: showPreview }: Denoiser,
  { image, start, noise, freshNoise }: Start,
  work: Work,
): Promise<Float32Array<ArrayBuffer>> {
  const { sigmas, stages } = job;
  const noisy = addsNoise(stages);
  const values = start.length;
  const steps = stepsOf(job);
  const read = async (port: string) => (await velocity.read(port)).slice(0, values);
  velocity.write('latents', start);
  keep?.write('noise', noise);
  let [step, stepMs] = [0, 0];
  for (const [i, stage] of stages.entries()) {
    throwIfAborted(work.signal);
    const evaluate = async (branch: Branch, after?: (encoder: GPUCommandEncoder) => void) => {
      const row = {
        from: branch.modulation,
        fromOffset: stage.at * branch.rowBytes,
        toOffset: 0,
        bytes: branch.rowBytes,
      };
      const text = { from: branch.text, fromOffset: 0, toOffset: 0, bytes: branch.textBytes };
      stepMs += await parts.run(velocity, work, {
        copies: [
          { ...row, to: 'modulation' },
          { ...text, to: 'text' },
        ],
        ...(after && { after }),
      });
    };
    if (cfg) {
      await evaluate(cfg.negative, (encoder) =>
        encoder.copyBufferToBuffer(velocity.port('velocity'), 0, cfg.mix.port('negative'), 0, values * 4),
      );
    }
    await evaluate(positive);
    if (cfg) stepMs += await parts.run(cfg.mix, work);
    if (job.euler) update.write('step', Float32Array.of(sigmas[step + 1]! - sigmas[step]!, 0, 0, 0));
    else {
      update.write('step', Float32Array.of(...stage.keep, ...stage.move));
      if (noisy) update.write('noise', freshNoise());
    }
    stepMs += await parts.run(update, work, job.euler ? {} : historyMoves(update, i === 0));
    if (!stage.ends) continue;
    if (keep) {
      keep.write('step', Float32Array.of(sigmas[step + 1]!, 0, 0, 0));
      stepMs += await parts.run(keep, work);
    }

    if (job.afterStep) job.afterStep(image, step, await read('latents'));
    work.tracker.send({ type: 'step', image, step: step + 1, steps, stepMs });
    stepMs = 0;
    const { previewEvery } = job;
    if (previewEvery && showPreview && (step + 1) % previewEvery === 0 && step + 1 < steps) {
      // What the picture would be if the velocity stayed as it is: x − σ·v.
      const [latents, v] = [await read('latents'), await read('velocity')];
      for (let i = 0; i < values; i++) latents[i] = latents[i]! - sigmas[step + 1]! * v[i]!;
      const preview: PixelImage = await showPreview(latents);
      work.tracker.send({ type: 'preview', image, step: step + 1, preview });
    }
    step++;
  }
  return read('latents');
}

/** What a sampler remembers moves on by one after its update; what another picture left is forgotten before the first. */
function historyMoves(update: Executable, first: boolean): Parameters<Executable['run']>[0] {
  const line = ['derivative', 'd1', 'd2', 'd3'].map((name) => update.port(name));
  return {
    before: (encoder) => {
      if (first) for (const buffer of line.slice(1)) encoder.clearBuffer(buffer);
    },
    after: (encoder) => {
      for (let i = line.length - 1; i > 0; i--) encoder.copyBufferToBuffer(line[i - 1]!, 0, line[i]!, 0, line[i]!.size);
    },
  };
}
