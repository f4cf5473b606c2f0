// One request from pictures and words to pictures, in the order of the paper and of the reference pipelines.
// Reads like a page: sizes, pictures, text, modulation, noise, denoising, decoding.

import { KontextError } from '../../../runtime/src/errors.ts';
import { programSize } from '../../../runtime/src/execute/executable.ts';
import type { Host } from '../host/module.ts';
import { TorchGenerator } from '../host/random.ts';
import type { PixelImage } from '../image/pixels.ts';
import type { Model } from '../model/open.ts';
import { samplerStages } from '../sampling/samplers.ts';
import {
  type Branch,
  type DenoiseJob,
  denoise,
  denoiseShape,
  evaluationsOf,
  LOOP_COMPONENTS,
  makeBranch,
  makeDenoiser,
  stepsOf,
} from './denoiser.ts';
import { LATENT_CHANNELS, pack, patches, TOKEN_CHANNELS, tokenCount } from './latents.ts';
import type { Parts, ShapeRequest, Work } from './parts.ts';
import { makePreviewer, type PreviewMap } from './preview.ts';
import type { ReferenceEncoder } from './references.ts';
import type { CheckedRequest } from './request.ts';
import { allFinite, checkDenoised, checkFinite } from './stages/finite.ts';
import { referencePlaces } from './stages/references.ts';
import { type Scene, sceneOf } from './stages/scene.ts';
import { requestSigmas } from './stages/schedule.ts';
import { firstStep, noised } from './stages/strength.ts';
import type { EncodedPrompt, TextEncoders } from './text.ts';
import { decodeTiled, isTooLarge, wholeOrTiled } from './tiling.ts';
import type { ImageSize, Timings } from './types.ts';

/** What outlives a request. */
export interface PipelineContext {
  host: Host;
  model: Model;
  parts: Parts;
  text: TextEncoders;
  references: ReferenceEncoder;
  /** Set by the first request that shows previews by it. */
  preview?: PreviewMap;
}

export interface PipelineRequest extends CheckedRequest {
  conditioning: 'exact' | 'bfloat16';
  /** The decoded `references`. */
  pictures: readonly PixelImage[];
  /** The decoded mask. */
  maskPicture?: PixelImage;
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
  const scene = sceneOf(host, request, context.model.defaults);
  const { sizes } = scene;
  checkLatents(request, sizes.target);
  const job = jobOf(context, request, scene);
  await planWork(context, request, job, scene, work);

  // 2. Pictures: resized, encoded.
  tracker.send({ type: 'stage', stage: 'encode-image' });
  const encoded: Float32Array[] = [];
  for (const { picture, size } of scene.context) encoded.push(await references.encode(parts, picture, size, work));
  const known = scene.base && (await references.encode(parts, scene.base.picture, scene.base.size, work));
  for (const values of encoded) checkFinite(values, 'the autoencoder’s encoder');
  if (scene.mask && known) job.keep = { mask: scene.mask, known };
  const previewer = request.previewEvery && (await makePreviewer(parts, sizes.target, context, work));
  await parts.unbind('vae-encode');
  const encodeImageMs = timer();

  // 3. Text, then the encoders make room for the transformer.
  tracker.send({ type: 'stage', stage: 'encode-text' });
  const prompts = [request.prompt, ...(request.negativePrompt === undefined ? [] : [request.negativePrompt])];
  const resident = parts.options.memory === 'resident';
  const cached = prompts.every((prompt) => text.has(prompt, request.maxSequenceLength));
  if (!cached && !resident) await parts.release('transformer');
  const texts: EncodedPrompt[] = [];
  for (const prompt of prompts) texts.push(await text.encode(parts, prompt, request.maxSequenceLength, work));
  for (const { text: states, pooled } of texts) {
    checkFinite(states, 'the text encoder T5');
    checkFinite(pooled, 'the text encoder CLIP');
  }
  if (!resident) for (const part of ['clip', 't5'] as const) await parts.release(part);
  const encodeTextMs = timer();

  const buffers: GPUBuffer[] = [];
  try {
    // 4. Modulation rows of every step: they depend on timestep, guidance and pooled text only.
    tracker.send({ type: 'stage', stage: 'modulation' });
    const branches: Branch[] = [];
    for (const prompt of texts) branches.push(await makeBranch(parts, job, prompt, buffers, work));
    await parts.unbind('modulation');
    const modulationMs = timer();

    // 5. and 6. Noise, then the denoising loop, picture by picture.
    tracker.send({ type: 'stage', stage: 'denoise' });
    const denoiser = await makeDenoiser(parts, job, encoded, branches, buffers, work);
    if (previewer) denoiser.preview = previewer;
    const latents: Float32Array<ArrayBuffer>[] = [];
    for (let image = 0; image < request.images; image++) {
      const source = noiseSource(host, request, image, sizes.target);
      try {
        const noise = source.initial();
        const start = known ? noised(known, noise, job.sigmas[0]!) : noise;
        const made = await denoise(parts, job, denoiser, { image, start, noise, freshNoise: source.draw }, work);
        await checkDenoised(made, image, (afterStep) =>
          denoise(parts, { ...job, afterStep }, denoiser, { image, start, noise, freshNoise: source.draw }, work),
        );
        latents.push(made);
      } finally {
        source.dispose();
      }
    }
    for (const component of LOOP_COMPONENTS) await parts.unbind(component);
    const denoiseMs = timer();

    // 7. Latents to pictures.
    const images: PixelImage[] = [];
    if (request.output === 'image') {
      tracker.send({ type: 'stage', stage: 'decode' });
      for (const tokens of latents) {
        images.push(scene.finish(await decode(parts, tokens, sizes.target, work)));
      }
    }
    if (!resident) for (const part of ['vae', 'preview'] as const) await parts.release(part);
    const timings = { encodeImageMs, encodeTextMs, modulationMs, denoiseMs, decodeMs: timer(), loadMs: work.loadMs };
    return { scene, latents, images, evaluations: evaluationsOf(job), truncated: texts[0]!.truncated, timings };
  } finally {
    for (const buffer of buffers) parts.free(buffer);
  }
}

function jobOf({ host, model }: PipelineContext, request: PipelineRequest, scene: Scene): DenoiseJob {
  const { target } = scene.sizes;
  const { strength, guidance, trueCfgScale, maxSequenceLength, conditioning, previewEvery, afterStep } = request;
  const all = requestSigmas(host, model.schedule, request, tokenCount(target));
  const sigmas = all.slice(firstStep(stepsOf({ sigmas: all }), strength));
  const context = scene.context.map(({ size }) => size);
  return {
    target,
    context,
    places: referencePlaces(request.referencePositions, context.map(patches)),
    sigmas,
    branches: request.negativePrompt === undefined ? 1 : 2,
    stages: samplerStages(request.sampler, sigmas, { eta: request.eta }),
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

/** Noise as the reference draws it for a generator with seed + image, or the caller's own to begin with. */
function noiseSource(host: Host, request: PipelineRequest, image: number, size: ImageSize) {
  const values = tokenCount(size) * TOKEN_CHANNELS;
  const generator = TorchGenerator.create(host, BigInt.asUintN(64, request.seed + BigInt(image)));
  const draw = () => pack(generator.randn([LATENT_CHANNELS, size.height / 8, size.width / 8]), size);
  const { latents } = request;
  const initial = () => (latents ? latents.slice(image * values, (image + 1) * values) : draw());
  return { initial, draw, dispose: () => generator.dispose() };
}

function decode(parts: Parts, tokens: Float32Array, { width, height }: ImageSize, work: Work): Promise<PixelImage> {
  const whole = async () => {
    const executable = await parts.bind({ component: 'vae-decode', width, height }, work);
    executable.write('latents', tokens);
    await parts.run(executable, work);
    const bytes = await executable.read('image', 'bytes');
    return { width, height, data: new Uint8ClampedArray(bytes.buffer, 0, width * height * 4) };
  };
  const size = { width, height };
  return wholeOrTiled(size, whole, (tiling) => decodeTiled(parts, tokens, size, tiling, work));
}

/** Announces all operations and bytes of the request, so that its progress is of the whole from the first event on. */
async function planWork(
  { parts, references, text }: PipelineContext,
  request: PipelineRequest,
  job: DenoiseJob,
  scene: Scene,
  { tracker }: Work,
): Promise<void> {
  const steps = stepsOf(job);
  const prompts = request.negativePrompt === undefined ? 1 : 2;
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
  const views = scene.base ? [...scene.context, scene.base] : scene.context;
  for (const [i, view] of views.entries()) {
    const { picture, size } = view;
    const before = views.slice(0, i).some((one) => one.picture === picture && sameSize(one.size, size));
    await plan({ component: 'vae-encode', ...size }, before || references.has(picture, size) ? 0 : 1);
  }
  const uncached = [request.prompt, request.negativePrompt].filter(
    (prompt) => prompt !== undefined && !text.has(prompt, request.maxSequenceLength),
  ).length;
  await plan({ component: 'clip', tokens: 77 }, uncached);
  await plan({ component: 't5', tokens: request.maxSequenceLength }, uncached);
  await plan({ component: 'modulation', steps }, prompts);
  await plan(denoiseShape(job), request.images * evaluationsOf(job));
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
