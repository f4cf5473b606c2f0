// One request from pictures and words to pictures, in the order of the paper and of the reference pipelines.
// Reads like a page: sizes, pictures, text, modulation, noise, denoising, decoding.

import { KontextError } from '../../../runtime/src/errors.ts';
import { programSize } from '../../../runtime/src/execute/executable.ts';
import { rowsAtOnce } from '../../../runtime/src/program/modulation-rows.ts';
import type { PixelImage } from '../image/pixels.ts';
import { eulerStages } from '../sampling/stage.ts';
import type { Rounding } from './conditioning.ts';
import type { PipelineContext } from './context.ts';
import {
  attentionGuidedOf,
  type DenoiseJob,
  denoise,
  evaluationsOf,
  makeBranch,
  makeDenoiser,
  stepsOf,
} from './denoiser.ts';
import { seesContext } from './family.ts';
import { patches, TOKEN_CHANNELS, tokenCount } from './latents.ts';
import type { Parts, ShapeRequest, Work } from './parts.ts';
import type { CheckedRequest } from './request.ts';
import { allFinite, checkDecoded, checkDenoised } from './stages/finite.ts';
import { isPlain, plainScene, type Scene } from './stages/plain-scene.ts';
import { referencePlaces } from './stages/references.ts';
import { requestSigmas } from './stages/schedule.ts';
import { firstStep } from './stages/strength.ts';
import { makeStart, type Start } from './starts.ts';
import type { EncodedPrompt, Prompt } from './text.ts';
import { decodeTiled, isTooLarge, wholeOrTiled } from './tiling.ts';
import type { ImageSize, Timings } from './types.ts';
import { type Branch, denoiseShape } from './velocity.ts';

export type { PipelineContext } from './context.ts';

export interface PipelineRequest extends CheckedRequest {
  conditioning: Rounding;
  /** The decoded `references`. */
  pictures: readonly PixelImage[];
  /** The decoded mask. */
  maskPicture?: PixelImage;
  /** The decoded control picture. */
  controlPicture?: PixelImage;
  /** For comparing with a reference: latents `[tokens, 64]` after each step. Reads back, so it slows the loop. */
  afterStep?: (image: number, step: number, latents: Float32Array) => void;
}

export interface PipelineResult {
  scene: Scene;
  latents: Float32Array<ArrayBuffer>[];
  /** Empty when only latents were asked for. */
  images: PixelImage[];
  /** Of the transformer, for one picture. */
  evaluations: number;
  /** How many of all reused an earlier one. */
  skipped: number;
  /** Which of the seeds that started each picture is from. */
  chosen: number[];
  truncated: boolean;
  timings: Omit<Timings, 'totalMs'>;
}

/** @throws KontextError whatever its stages throw; `aborted` within one slice of GPU work */
export async function runPipeline(
  context: PipelineContext,
  request: PipelineRequest,
  work: Work,
): Promise<PipelineResult> {
  const { parts, host, references, text } = context;
  const { tracker } = work;
  const timer = stageTimer(work);

  // 1. Sizes, what of the pictures the model sees, and the schedule.
  const seen = { ...request, context: request.context && seesContext(context.family) };
  const { defaults } = context.model;
  const scene = isPlain(seen)
    ? plainScene(seen, defaults)
    : await (await import('./stages/scene.ts')).sceneOf(host, seen, defaults, work.signal);
  const { sizes } = scene;
  checkLatents(request, sizes.target);
  const job = await jobOf(context, request, scene);
  await planWork(context, request, job, scene, work);

  const buffers: GPUBuffer[] = [];
  const starts: Start[] = [];
  try {
    // 2. Pictures: resized, encoded; noise.
    tracker.send({ type: 'stage', stage: 'encode-image' });
    const encoded: Float32Array[] = [];
    for (const { picture, size } of scene.context) encoded.push(await references.encode(parts, picture, size, work));
    const { variants } = request;
    const count = variants.count > 1 ? variants.count : request.images;
    const startJob = { host, parts, references, family: context.family, request, scene, sigma: job.sigmas[0]! };
    for (let image = 0; image < count; image++) starts.push(await makeStart(startJob, image, work));
    const shows = request.previewEvery !== undefined || variants.count > 1;
    const previewer = shows && (await (await import('./preview.ts')).makePreviewer(parts, sizes.target, context, work));
    await parts.unbind('vae-encode');
    const encodeImageMs = timer();

    // 3. Text, then the encoders make room for the transformer.
    tracker.send({ type: 'stage', stage: 'encode-text' });
    const prompts = promptsOf(request);
    const resident = parts.options.memory === 'resident';
    const cached = prompts.every((prompt) => text.has(prompt, request.maxSequenceLength));
    if (!cached && !resident) await parts.release('transformer');
    const texts: EncodedPrompt[] = [];
    for (const prompt of prompts) texts.push(await text.encode(parts, prompt, request.maxSequenceLength, work));
    if (!resident) for (const part of ['clip', 't5'] as const) await parts.release(part);
    const encodeTextMs = timer();

    // 4. Modulation rows of every step: they depend on timestep, guidance and pooled text only.
    tracker.send({ type: 'stage', stage: 'modulation' });
    const branches: Branch[] = [];
    for (const prompt of texts) branches.push(await makeBranch(parts, job, prompt, buffers, work));
    await parts.unbind('modulation');
    const modulationMs = timer();

    // 5. The denoising loop, picture by picture.
    tracker.send({ type: 'stage', stage: 'denoise' });
    const denoiser = await makeDenoiser(parts, job, encoded, branches, work);
    if (previewer) denoiser.preview = previewer;
    const latents: Float32Array<ArrayBuffer>[] = [];
    const { going, skippedBefore } =
      variants.count === 1
        ? { going: starts.map((start) => ({ start, range: undefined })), skippedBefore: 0 }
        : await (await import('./stages/variants.ts')).earlyChoice(
            context,
            variants,
            { job, denoiser, starts, scene },
            work,
          );
    let skipped = skippedBefore;
    try {
      for (const { start, range } of going) {
        const done = await denoise(parts, job, denoiser, start, work, range);
        await checkDenoised(done.latents, start.image, (look) =>
          denoise(parts, { ...job, look }, denoiser, start, work, range),
        );
        latents.push(done.latents);
        skipped += done.skipped;
      }
    } finally {
      await denoiser.dispose();
    }
    const denoiseMs = timer();

    // 6. Latents to pictures.
    const images: PixelImage[] = [];
    if (request.output === 'image') {
      tracker.send({ type: 'stage', stage: 'decode' });
      for (const tokens of latents) {
        images.push(await scene.finish(await decode(parts, tokens, sizes.target, work)));
      }
    }
    if (!resident) for (const part of ['vae', 'preview'] as const) await parts.release(part);
    const timings = { encodeImageMs, encodeTextMs, modulationMs, denoiseMs, decodeMs: timer(), loadMs: work.loadMs };
    return {
      scene,
      latents,
      images,
      chosen: going.map(({ start }) => start.image),
      skipped,
      evaluations: evaluationsOf(job),
      truncated: texts[0]!.truncated,
      timings,
    };
  } finally {
    for (const start of starts) start.dispose();
    for (const buffer of buffers) parts.free(buffer);
  }
}

/** The positive prompt, and the negative one where there is one. */
function promptsOf({ prompt, clipPrompt, negativePrompt }: PipelineRequest): Prompt[] {
  return [{ t5: prompt, clip: clipPrompt }, ...(negativePrompt === undefined ? [] : [{ t5: negativePrompt }])];
}

async function jobOf(
  { host, model, family }: PipelineContext,
  request: PipelineRequest,
  scene: Scene,
): Promise<DenoiseJob> {
  const { target } = scene.sizes;
  const { strength, guidance, trueCfgScale, maxSequenceLength, conditioning, previewEvery, afterStep } = request;
  const all = await requestSigmas(host, model.schedule, request, tokenCount(target));
  const left = firstStep(stepsOf({ sigmas: all }), strength);
  const sigmas = all.slice(left);
  const context = scene.context.map(({ size }) => size);
  return {
    target,
    context,
    ...(scene.mask && family !== 'fill' && { mask: scene.mask }),
    places: referencePlaces(request.referencePositions, context.map(patches)),
    sigmas,
    guided: request.guided,
    ...(request.cache && { cache: request.cache }),
    branches: request.trueCfgScale > 1 ? 2 : 1,
    ...(request.cfgZero !== undefined && { cfgZero: Math.max(0, request.cfgZero - left) }),
    ...(request.nag && { nag: request.nag }),
    stages:
      request.sampler === 'euler'
        ? eulerStages(sigmas)
        : (await import('../sampling/samplers.ts')).samplerStages(request.sampler, sigmas, { eta: request.eta }),
    euler: request.sampler === 'euler',
    guidance,
    trueCfgScale,
    maxSequenceLength,
    conditioning,
    previewEvery,
    afterStep,
  };
}

function checkLatents({ latents, images }: PipelineRequest, size: ImageSize): void {
  const values = images * tokenCount(size) * TOKEN_CHANNELS;
  if (latents && !allFinite(latents)) {
    throw new KontextError('invalid-request', 'latents holds a value that is not finite.', { option: 'latents' });
  }
  if (!latents || latents.length === values) return;
  throw new KontextError(
    'invalid-request',
    `latents has ${latents.length} values; ${images} × ${tokenCount(size)} tokens of a ${size.width}×${size.height} picture are ${values}.`,
    { values: latents.length, needed: values },
  );
}

function decode(parts: Parts, tokens: Float32Array, { width, height }: ImageSize, work: Work): Promise<PixelImage> {
  const whole = async () => {
    const executable = await parts.bind({ component: 'vae-decode', width, height }, work);
    executable.write('latents', tokens);
    await parts.run(executable, work);
    const bytes = await executable.read('image', 'bytes');
    await checkDecoded(bytes, () => {
      executable.write('latents', tokens);
      return executable.firstUnsound({ signal: work.signal });
    });
    return { width, height, data: new Uint8ClampedArray(bytes.buffer, 0, width * height * 4) };
  };
  const size = { width, height };
  return wholeOrTiled(size, whole, (tiling) => decodeTiled(parts, tokens, size, tiling, work));
}

/** Announces all operations and bytes of the request, so that its progress is of the whole from the first event on. */
async function planWork(
  { parts, references, text, family }: PipelineContext,
  request: PipelineRequest,
  job: DenoiseJob,
  scene: Scene,
  { tracker }: Work,
): Promise<void> {
  const steps = stepsOf(job);
  const prompts = request.negativePrompt === undefined ? 1 : 2;
  // A bundle that lacks one refuses here, before any work.
  const { loopPrograms } = await import('./loop-programs.ts');
  for (const shape of await loopPrograms(job, parts.specs.transformer)) await parts.program(shape);
  const plan = async (shape: ShapeRequest, runs: number) => {
    if (runs === 0) return;
    const found = await parts.program(shape).catch((error: unknown) => {
      // A bundle refuses here what the autoencoder then does in tiles; that work is counted as it comes.
      if (isTooLarge(error) && shape.component.startsWith('vae-')) return undefined;
      throw error;
    });
    if (!found) return;
    const { program, bound } = found;
    tracker.plan(`run ${shape.component}`, runs * programSize(program));
    if (bound) return;
    tracker.plan(`compile ${shape.component}`, program.kernels.length);
    tracker.plan(
      `load ${shape.component}`,
      program.weights.reduce((sum, { bytes }) => sum + bytes, 0),
    );
  };
  const own = scene.base && request.context && seesContext(family) ? [scene.base] : [];
  const views = [...scene.context, ...own];
  for (const [i, view] of views.entries()) {
    const { picture, size } = view;
    const before = views.slice(0, i).some((one) => one.picture === picture && sameSize(one.size, size));
    await plan({ component: 'vae-encode', ...size }, before || references.has(picture, size) ? 0 : 1);
  }
  const uncached = promptsOf(request).filter((prompt) => !text.has(prompt, request.maxSequenceLength)).length;
  await plan({ component: 'clip', tokens: 77 }, uncached);
  await plan({ component: 't5', tokens: request.maxSequenceLength }, uncached);
  const rows = rowsAtOnce(steps, parts.specs.transformer, parts.target.limits);
  const windows = Math.ceil(steps / rows);
  // Made before the first picture; where there are several windows, made again for each picture.
  await plan({ component: 'modulation', steps: rows }, prompts * (windows > 1 ? windows * request.images : 1));
  // A cached step's parts are counted as if they were the whole: they are its kernels.
  const share = request.variants.steps / stepsOf(job);
  const pictures = request.variants.count > 1 ? request.variants.count * share + 1 - share : request.images;
  const guided = attentionGuidedOf(job);
  await plan(denoiseShape('denoise-nag', job) as ShapeRequest, Math.ceil(pictures * guided));
  await plan(denoiseShape('denoise', job) as ShapeRequest, Math.ceil(pictures * (evaluationsOf(job) - guided)));
  await plan({ component: 'vae-decode', ...job.target }, request.output === 'image' ? request.images : 0);
}

const sameSize = (a: ImageSize, b: ImageSize): boolean => a.width === b.width && a.height === b.height;

/** Returns the milliseconds since its last call that were not spent loading. */
function stageTimer(work: Work): () => number {
  let [at, loaded] = [performance.now(), work.loadMs];
  return () => {
    const now = performance.now();
    const spent = now - at - (work.loadMs - loaded);
    [at, loaded] = [now, work.loadMs];
    return Math.max(0, spent);
  };
}
