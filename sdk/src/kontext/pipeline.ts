// One request from pictures and words to pictures, in the order of the paper and of the reference pipelines.
// Reads like a page: sizes, references, text, modulation, noise, denoising, decoding.

import { KontextError, throwIfAborted } from '../../../runtime/src/errors.ts';
import type { Executable } from '../../../runtime/src/execute/executable.ts';
import { BufferUsage } from '../../../runtime/src/gpu/flags.ts';
import type { Host } from '../host/module.ts';
import { TorchGenerator } from '../host/random.ts';
import { sigmas as scheduleSigmas } from '../host/schedule.ts';
import type { PixelImage } from '../image/pixels.ts';
import type { Model } from '../model/open.ts';
import { sinusoids } from './conditioning.ts';
import { LATENT_CHANNELS, pack, patches, TOKEN_CHANNELS, tokenCount } from './latents.ts';
import { type Parts, programFlops, type ShapeRequest, type Work } from './parts.ts';
import { makePreviewer, type Previewer, type PreviewMap } from './preview.ts';
import type { ReferenceEncoder } from './references.ts';
import type { CheckedRequest } from './request.ts';
import { ropeTable } from './rope.ts';
import { type ChosenSizes, chooseSizes } from './sizes.ts';
import type { EncodedPrompt, TextEncoders } from './text.ts';
import { DEFAULT_TILING, decodeTiled, isTooLarge } from './tiling.ts';
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
  /** For comparing with a reference: latents `[tokens, 64]` after each step. Reads back, so it slows the loop. */
  afterStep?: (image: number, step: number, latents: Float32Array) => void;
}

export interface PipelineResult {
  sizes: ChosenSizes;
  latents: Float32Array<ArrayBuffer>[];
  /** Empty when only latents were asked for. */
  images: PixelImage[];
  truncated: boolean;
  timings: Omit<Timings, 'totalMs'>;
}

/** @throws KontextError whatever its stages throw; `aborted` within one slice of GPU work */
export async function runPipeline(
  context: PipelineContext,
  request: PipelineRequest,
  work: Work,
): Promise<PipelineResult> {
  const { parts, references, text } = context;
  const { tracker } = work;
  const timer = stageTimer(work);

  // 1. Sizes of the picture and of each reference.
  const sizes = chooseSizes(request, request.pictures, context.model.defaults);
  checkLatents(request, sizes.target);
  await planWork(context, request, sizes, work);

  // 2. References: resized, encoded.
  tracker.send({ type: 'stage', stage: 'encode-image' });
  const encoded: Float32Array[] = [];
  for (const [i, picture] of request.pictures.entries()) {
    encoded.push(await references.encode(parts, picture, sizes.references[i]!, work));
  }
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
  if (!resident) for (const part of ['clip', 't5'] as const) await parts.release(part);
  const encodeTextMs = timer();

  const buffers: GPUBuffer[] = [];
  try {
    // 4. Modulation rows of every step: they depend on timestep, guidance and pooled text only.
    tracker.send({ type: 'stage', stage: 'modulation' });
    const sigmas = scheduleSigmas(context.host, {
      ...context.model.schedule,
      steps: request.steps,
      imageTokens: tokenCount(sizes.target),
    });
    const branches: Branch[] = [];
    for (const prompt of texts) branches.push(await makeBranch(parts, request, sigmas, prompt, buffers, work));
    await parts.unbind('modulation');
    const modulationMs = timer();

    // 5. and 6. Noise, then the denoising loop, picture by picture.
    tracker.send({ type: 'stage', stage: 'denoise' });
    const denoiser = await makeDenoiser(parts, request, sizes, encoded, branches, buffers, work);
    if (previewer) denoiser.preview = previewer;
    const latents: Float32Array<ArrayBuffer>[] = [];
    for (let image = 0; image < request.images; image++) {
      latents.push(await denoise(context, request, denoiser, image, sigmas, sizes.target, work));
    }
    await parts.unbind('euler');
    await parts.unbind('cfg');
    const denoiseMs = timer();

    // 7. Latents to pictures.
    const images: PixelImage[] = [];
    if (request.output === 'image') {
      tracker.send({ type: 'stage', stage: 'decode' });
      for (const tokens of latents) images.push(await decode(parts, tokens, sizes.target, work));
    }
    if (!resident) for (const part of ['vae', 'preview'] as const) await parts.release(part);
    const timings = { encodeImageMs, encodeTextMs, modulationMs, denoiseMs, decodeMs: timer(), loadMs: work.loadMs };
    return { sizes, latents, images, truncated: texts[0]!.truncated, timings };
  } finally {
    for (const buffer of buffers) parts.free(buffer);
  }
}

/** One prompt's share of the guidance: its text and its modulation rows, on the GPU. */
interface Branch {
  text: GPUBuffer;
  textBytes: number;
  modulation: GPUBuffer;
  /** Of one step. */
  rowBytes: number;
}

const TABLE_USAGE = BufferUsage.COPY_SRC | BufferUsage.COPY_DST;

async function makeBranch(
  parts: Parts,
  request: PipelineRequest,
  sigmas: Float32Array,
  prompt: EncodedPrompt,
  buffers: GPUBuffer[],
  work: Work,
): Promise<Branch> {
  const { steps, guidance, conditioning } = request;
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
interface Denoiser {
  velocity: Executable;
  euler: Executable;
  cfg?: { mix: Executable; negative: Branch };
  positive: Branch;
  preview?: Previewer;
}

async function makeDenoiser(
  parts: Parts,
  request: PipelineRequest,
  sizes: ChosenSizes,
  references: readonly Float32Array[],
  branches: readonly Branch[],
  buffers: GPUBuffer[],
  work: Work,
): Promise<Denoiser> {
  const velocity = await parts.bind(denoiseShape(request, sizes), work);
  const { axes, theta } = parts.specs.transformer;
  const grids = sizes.references.map(patches);
  velocity.write('rope', ropeTable(axes, theta, request.maxSequenceLength, patches(sizes.target), grids));
  let at = 0;
  for (const latents of references) {
    velocity.write('references', latents, at);
    at += latents.byteLength;
  }
  const tokens = tokenCount(sizes.target);
  const shared = { latents: velocity.port('latents'), velocity: velocity.port('velocity') };
  const euler = await parts.bind({ component: 'euler', tokens, channels: TOKEN_CHANNELS }, work, shared);
  const [positive, negative] = branches;
  if (!negative) return { velocity, euler, positive: positive! };
  const kept = await parts.allocate(
    'negative velocity',
    tokens * TOKEN_CHANNELS * 4,
    BufferUsage.STORAGE | TABLE_USAGE,
  );
  buffers.push(kept);
  const mix = await parts.bind({ component: 'cfg', tokens, channels: TOKEN_CHANNELS }, work, {
    velocity: shared.velocity,
    negative: kept,
  });
  mix.write('scale', Float32Array.of(request.trueCfgScale, 0, 0, 0));
  return { velocity, euler, cfg: { mix, negative }, positive: positive! };
}

function denoiseShape(request: PipelineRequest, sizes: ChosenSizes): ShapeRequest {
  return {
    component: 'denoise',
    textTokens: request.maxSequenceLength,
    image: patches(sizes.target),
    references: sizes.references.map(patches),
  };
}

/** The Euler loop of rectified flow from noise (σ = 1) to data (σ = 0); nothing is read back inside, save for previews. */
async function denoise(
  context: PipelineContext,
  request: PipelineRequest,
  { velocity, euler, cfg, positive, preview: showPreview }: Denoiser,
  image: number,
  sigmas: Float32Array,
  size: ImageSize,
  work: Work,
): Promise<Float32Array<ArrayBuffer>> {
  const { parts, host } = context;
  const values = tokenCount(size) * TOKEN_CHANNELS;
  const read = async (port: string) => (await velocity.read(port)).slice(0, values);
  velocity.write('latents', initialLatents(host, request, image, size));
  for (let step = 0; step < request.steps; step++) {
    throwIfAborted(work.signal);
    let stepMs = 0;
    const evaluate = async (branch: Branch, after?: (encoder: GPUCommandEncoder) => void) => {
      stepMs += await parts.run(velocity, work, {
        copies: [
          {
            from: branch.modulation,
            fromOffset: step * branch.rowBytes,
            to: 'modulation',
            toOffset: 0,
            bytes: branch.rowBytes,
          },
          { from: branch.text, fromOffset: 0, to: 'text', toOffset: 0, bytes: branch.textBytes },
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
    euler.write('step', Float32Array.of(sigmas[step + 1]! - sigmas[step]!, 0, 0, 0));
    stepMs += await parts.run(euler, work);

    request.afterStep?.(image, step, await read('latents'));
    work.tracker.send({ type: 'step', image, step: step + 1, steps: request.steps, stepMs });
    const { previewEvery } = request;
    if (previewEvery && showPreview && (step + 1) % previewEvery === 0 && step + 1 < request.steps) {
      // What the picture would be if the velocity stayed as it is: x − σ·v.
      const [latents, v] = [await read('latents'), await read('velocity')];
      for (let i = 0; i < values; i++) latents[i] = latents[i]! - sigmas[step + 1]! * v[i]!;
      const preview = await showPreview(latents);
      work.tracker.send({ type: 'preview', image, step: step + 1, preview });
    }
  }
  return read('latents');
}

function checkLatents({ latents, images }: PipelineRequest, size: ImageSize): void {
  const values = images * tokenCount(size) * TOKEN_CHANNELS;
  if (!latents || latents.length === values) return;
  throw new KontextError(
    'invalid-request',
    `latents has ${latents.length} values; ${images} × ${tokenCount(size)} tokens of a ${size.width}×${size.height} picture are ${values}.`,
    { values: latents.length, needed: values },
  );
}

/** Noise as the reference draws it for a generator with seed + image, or the caller's own. */
function initialLatents(
  host: Host,
  request: PipelineRequest,
  image: number,
  size: ImageSize,
): Float32Array<ArrayBuffer> {
  const values = tokenCount(size) * TOKEN_CHANNELS;
  if (request.latents) return request.latents.slice(image * values, (image + 1) * values);
  const generator = TorchGenerator.create(host, BigInt.asUintN(64, request.seed + BigInt(image)));
  try {
    return pack(generator.randn([LATENT_CHANNELS, size.height / 8, size.width / 8]), size);
  } finally {
    generator.dispose();
  }
}

async function decode(
  parts: Parts,
  tokens: Float32Array,
  { width, height }: ImageSize,
  work: Work,
): Promise<PixelImage> {
  try {
    const executable = await parts.bind({ component: 'vae-decode', width, height }, work);
    executable.write('latents', tokens);
    await parts.run(executable, work);
    const bytes = await executable.read('image', 'bytes');
    return { width, height, data: new Uint8ClampedArray(bytes.buffer, 0, width * height * 4) };
  } catch (error) {
    // A long denoising is not lost to a decoder that does not fit: tiles need a fraction of the memory.
    if (!isTooLarge(error)) throw error;
    return decodeTiled(parts, tokens, { width, height }, DEFAULT_TILING, work);
  }
}

/** Announces all operations and bytes of the request, so that its progress is of the whole from the first event on. */
async function planWork(
  { parts, references, text }: PipelineContext,
  request: PipelineRequest,
  sizes: ChosenSizes,
  { tracker }: Work,
): Promise<void> {
  const evaluations = request.negativePrompt === undefined ? 1 : 2;
  const plan = async (shape: ShapeRequest, runs: number) => {
    if (runs === 0) return;
    const { program, bound } = await parts.program(shape);
    tracker.plan(`run ${shape.component}`, runs * programFlops(program));
    if (!bound)
      tracker.plan(
        `load ${shape.component}`,
        program.weights.reduce((sum, { bytes }) => sum + bytes, 0),
      );
  };
  for (const [i, size] of sizes.references.entries()) {
    await plan({ component: 'vae-encode', ...size }, references.has(request.pictures[i]!, size) ? 0 : 1);
  }
  const uncached = [request.prompt, request.negativePrompt].filter(
    (prompt) => prompt !== undefined && !text.has(prompt, request.maxSequenceLength),
  ).length;
  await plan({ component: 'clip', tokens: 77 }, uncached);
  await plan({ component: 't5', tokens: request.maxSequenceLength }, uncached);
  await plan({ component: 'modulation', steps: request.steps }, evaluations);
  await plan(denoiseShape(request, sizes), request.images * request.steps * evaluations);
  await plan({ component: 'vae-decode', ...sizes.target }, request.output === 'image' ? request.images : 0);
}

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
