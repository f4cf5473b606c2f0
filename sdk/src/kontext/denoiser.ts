// The denoising loop on the GPU: programs bound to each other's ports, and the steps from noise to picture.
// Nothing is read back inside the loop, save for what a request asks to see.
import { throwIfAborted } from '../../../runtime/src/errors.ts';
import type { Executable, Unsound } from '../../../runtime/src/execute/executable.ts';
import { BufferUsage } from '../../../runtime/src/gpu/flags.ts';
import type { PixelImage } from '../image/pixels.ts';
import { addsNoise, type SamplerStage } from '../sampling/stage.ts';
import type { AttentionGuidance } from './check-guidance.ts';
import type { Rounding } from './conditioning.ts';
import { TOKEN_CHANNELS, tokenCount } from './latents.ts';
import { ModulationRows } from './modulation.ts';
import type { Parts, Work } from './parts.ts';
import type { Previewer } from './preview.ts';
import type { Look } from './stages/finite.ts';
import type { Start } from './starts.ts';
import type { EncodedPrompt } from './text.ts';
import type { CacheOptions } from './types.ts';
import { type Branch, type Velocity, type VelocityJob, wholeVelocity } from './velocity.ts';

/** What all pictures of a request have in common. */
export interface DenoiseJob extends VelocityJob {
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
  /** Shares of the steps between which the negative prompt counts. */
  guided: readonly [from: number, to: number];
  /** CFG-Zero*, and how many steps at the start it leaves out. */
  cfgZero?: number;
  /** Guidance by the negative prompt in attention. */
  nag?: AttentionGuidance;
  /** Which steps reuse earlier ones; absent when none may. */
  cache?: CacheOptions;
  conditioning: Rounding;
  previewEvery: number | undefined;
  /** Packed `[tokens, 64]`: after each step the picture is put back where it is 0. */
  mask?: Float32Array<ArrayBuffer>;
  /** Looks at every evaluation. */
  look?: Look;
  afterStep?: ((image: number, step: number, latents: Float32Array) => void) | undefined;
}

/** How often the transformer runs for one picture. */
export function evaluationsOf(job: DenoiseJob): number {
  let [step, count] = [0, 0];
  for (const { ends } of job.stages) {
    if (!isLeftOut(job, step)) count += isGuided(job, step) ? 2 : 1;
    if (ends) step++;
  }
  return count;
}

/** How many of these are with guided attention. */
export function attentionGuidedOf(job: DenoiseJob): number {
  const { nag, sigmas, stages } = job;
  let [step, count] = [0, 0];
  for (const { at, ends } of stages) {
    if (nag && sigmas[at]! >= nag.sigmaEnd && !isLeftOut(job, step)) count++;
    if (ends) step++;
  }
  return count;
}

/** Whether a step moves nothing, so that nothing need be evaluated. */
const isLeftOut = ({ cfgZero = 0 }: DenoiseJob, step: number): boolean => step < cfgZero;

/** Whether the negative prompt is evaluated at a step, by diffusers' rounding of shares to steps. */
function isGuided(
  { branches, guided, stages }: Pick<DenoiseJob, 'branches' | 'guided' | 'stages'>,
  step: number,
): boolean {
  const steps = stages.filter(({ ends }) => ends).length;
  return branches === 2 && step >= Math.trunc(guided[0] * steps) && step < Math.trunc(guided[1] * steps);
}

export const stepsOf = ({ sigmas }: { sigmas: Float32Array }): number => sigmas.length - 1;

const TABLE_USAGE = BufferUsage.COPY_SRC | BufferUsage.COPY_DST;

export async function makeBranch(
  parts: Parts,
  job: DenoiseJob,
  prompt: EncodedPrompt,
  buffers: GPUBuffer[],
  work: Work,
): Promise<Branch> {
  const { guidance, conditioning, sigmas } = job;
  const rows = new ModulationRows(parts, {
    sigmas: sigmas.subarray(0, stepsOf(job)),
    pooled: prompt.pooled,
    guidance,
    conditioning,
  });
  buffers.push(await rows.allocate());
  await rows.reach(0, work);
  const text = await parts.allocate('text states', prompt.text.byteLength, TABLE_USAGE);
  buffers.push(text);
  parts.gpu.queue.writeBuffer(text, 0, prompt.text);
  return { text, textBytes: prompt.text.byteLength, rows };
}

/** Programs of the loop, bound to each other's buffers, and the inputs that no step changes. */
export interface Denoiser {
  branches: readonly Branch[];
  velocity: Velocity;
  /** Euler's update, or that of any sampler. */
  update: Executable;
  /** Mixes the negative prompt's velocity in. */
  mix?: Executable;
  keep?: Executable;
  preview?: Previewer;
  dispose(): Promise<void>;
}

/** Components that only the loop binds; to be unbound after it. */
const LOOP_COMPONENTS = ['euler', 'sampler', 'cfg', 'cfg-zero', 'keep-known'] as const;

/** @param context packed latents of what the transformer sees beside the target */
export async function makeDenoiser(
  parts: Parts,
  job: DenoiseJob,
  context: readonly Float32Array[],
  branches: readonly Branch[],
  work: Work,
): Promise<Denoiser> {
  const velocity = await makeVelocity(parts, job, context, branches, work);
  const shape = { tokens: tokenCount(job.target), channels: TOKEN_CHANNELS };
  const shared = { latents: velocity.latents, velocity: velocity.velocity };
  const update = await parts.bind({ component: job.euler ? 'euler' : 'sampler', ...shape }, work, shared);
  const negative: GPUBuffer[] = [];
  const dispose = async () => {
    for (const component of LOOP_COMPONENTS) await parts.unbind(component);
    for (const buffer of negative) parts.free(buffer);
    await velocity.dispose?.();
  };
  const denoiser: Denoiser = { branches, velocity, update, dispose };
  if (job.mask) {
    denoiser.keep = await parts.bind({ component: 'keep-known', ...shape }, work, { latents: shared.latents });
    denoiser.keep.write('mask', job.mask);
  }
  if (job.branches < 2) return denoiser;
  const bytes = shape.tokens * TOKEN_CHANNELS * 4;
  negative.push(await parts.allocate('negative velocity', bytes, BufferUsage.STORAGE | TABLE_USAGE));
  const component = job.cfgZero === undefined ? 'cfg' : 'cfg-zero';
  const mix = await parts.bind({ component, ...shape }, work, { velocity: shared.velocity, negative: negative[0]! });
  mix.write('scale', Float32Array.of(job.trueCfgScale, 0, 0, 0));
  if (component === 'cfg-zero') {
    mix.write('ones', new Float32Array(TOKEN_CHANNELS).fill(1));
    mix.write('zeros', new Float32Array(TOKEN_CHANNELS));
  }
  return { ...denoiser, mix };
}

/** The transformer as the request wants it evaluated; what is not plain is loaded when asked for. */
async function makeVelocity(
  parts: Parts,
  job: DenoiseJob,
  context: readonly Float32Array[],
  branches: readonly Branch[],
  work: Work,
): Promise<Velocity> {
  if (job.nag) return (await import('./stages/nag.ts')).nagVelocity(job.nag, parts, job, context, branches, work);
  if (!job.cache) return wholeVelocity(parts, job, context, branches, work);
  if (job.cache.kind === 'region') {
    return (await import('./stages/region.ts')).regionVelocity(job.cache, parts, job, context, branches, work);
  }
  return (await import('./stages/cache.ts')).cachedVelocity(job.cache, parts, job, context, branches, work);
}

/** A picture between two steps: enough to go on as if nothing had been in between. */
export interface Paused {
  latents: Float32Array<ArrayBuffer>;
  /** What a multistep sampler remembers. */
  history: Float32Array<ArrayBuffer>[];
  /** What the picture would be if the velocity stayed as it is: x − σ·v. */
  outlook: Float32Array<ArrayBuffer>;
  /** Evaluations that reused an earlier one. */
  skipped: number;
}

/** Which steps to run, and where an earlier range of them ended. */
export interface StepRange {
  from: number;
  to: number;
  paused?: Paused;
}

/** Rectified flow from the first σ to data (σ = 0), or a part of the way. */
export async function denoise(
  parts: Parts,
  job: DenoiseJob,
  denoiser: Denoiser,
  { image, start, noise, known, control, freshNoise }: Start,
  work: Work,
  { from, to, paused }: StepRange = { from: 0, to: stepsOf(job) },
): Promise<Paused> {
  const { velocity, update, keep, preview: showPreview } = denoiser;
  const { sigmas, stages } = job;
  const noisy = addsNoise(stages);
  const values = start.length;
  const steps = stepsOf(job);
  const read = async (port: 'latents' | 'velocity') => (await velocity.read(port)).slice(0, values);
  const outlook = async (sigma: number) => {
    const [latents, v] = [await read('latents'), await read('velocity')];
    return latents.map((x, i) => x - sigma * v[i]!);
  };
  velocity.reset();
  velocity.writeLatents(paused?.latents ?? start);
  for (const [i, values] of (paused?.history ?? []).entries()) update.write(HISTORY_PORTS[i + 1]!, values);
  if (control) velocity.writeControl(control);
  if (keep && known) {
    keep.write('noise', noise);
    keep.write('known', known);
  }
  let [step, stepMs] = [0, 0];
  for (const stage of stages) {
    const first = step === 0 && stage.at === 0;
    if (step < from || step >= to) {
      if (stage.ends) step++;
      continue;
    }
    throwIfAborted(work.signal);
    stepMs += await evaluate(parts, job, denoiser, stage.at, step, work);
    await job.look?.(
      step,
      () => read('velocity'),
      () => locate(denoiser, stage.at, work),
    );
    if (job.euler) update.write('step', Float32Array.of(sigmas[step + 1]! - sigmas[step]!, 0, 0, 0));
    else {
      update.write('step', Float32Array.of(...stage.keep, ...stage.move));
      if (noisy) update.write('noise', freshNoise());
    }
    stepMs += await parts.run(update, work, job.euler ? {} : historyMoves(update, first));
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
      const preview: PixelImage = await showPreview(await outlook(sigmas[step + 1]!));
      work.tracker.send({ type: 'preview', image, step: step + 1, preview });
    }
    step++;
  }
  const latents = await read('latents');
  const { skipped } = velocity;
  if (to === steps) return { latents, history: [], outlook: latents, skipped };
  const history = job.euler ? [] : await Promise.all(HISTORY_PORTS.slice(1).map((name) => update.read(name)));
  return { latents, history, outlook: await outlook(sigmas[to]!), skipped };
}

/** The velocity at one stage, of one prompt or mixed of two. @returns milliseconds */
async function evaluate(
  parts: Parts,
  job: DenoiseJob,
  { branches, velocity, mix }: Denoiser,
  at: number,
  step: number,
  work: Work,
): Promise<number> {
  if (isLeftOut(job, step)) {
    const encoder = parts.gpu.device.createCommandEncoder();
    encoder.clearBuffer(velocity.velocity);
    parts.gpu.queue.submit([encoder.finish()]);
    return 0;
  }
  for (const { rows } of branches) await rows.reach(at, work);
  if (!mix || !isGuided(job, step)) return velocity.run(0, at);
  const negative = await velocity.run(1, at, (encoder) =>
    encoder.copyBufferToBuffer(velocity.velocity, 0, mix.port('negative'), 0, mix.port('negative').size),
  );
  const positive = await velocity.run(0, at);
  return negative + positive + (await parts.run(mix, work));
}

/** The layer in which the numbers of an evaluation stop being finite: of the prompts' modulation, then of the blocks. */
async function locate({ branches, velocity }: Denoiser, at: number, work: Work): Promise<Unsound | undefined> {
  for (const [i, { rows }] of branches.entries()) {
    const found = (await rows.locate(at, work)) ?? (await velocity.locate(i as 0 | 1, at));
    if (found) return found;
  }
  return undefined;
}

const HISTORY_PORTS = ['derivative', 'd1', 'd2', 'd3'] as const;

/** What a sampler remembers moves on by one after its update; what another picture left is forgotten before the first. */
function historyMoves(update: Executable, first: boolean): Parameters<Executable['run']>[0] {
  const line = HISTORY_PORTS.map((name) => update.port(name));
  return {
    before: (encoder) => {
      if (first) for (const buffer of line.slice(1)) encoder.clearBuffer(buffer);
    },
    after: (encoder) => {
      for (let i = line.length - 1; i > 0; i--) encoder.copyBufferToBuffer(line[i - 1]!, 0, line[i]!, 0, line[i]!.size);
    },
  };
}
