// What comes out of a request: pictures or latents, every option as it was used, time and memory.
import type { PixelImage } from '../image/pixels.ts';
import type { MaskMode, ReferencePositions, SamplerName, ScheduleName, StitchDirection } from './options.ts';
import type { ProgressEvent } from './progress-types.ts';
import type { AdapterScale, CacheOptions, ImageSize, Sides } from './request-types.ts';

/** Milliseconds of each stage, in the order they ran, without loading. */
export interface Timings {
  /** Resizing and encoding of references. */
  encodeImageMs: number;
  /** Tokenizers and text encoders; near 0 when the prompt was cached. */
  encodeTextMs: number;
  /** Modulation rows of all steps. */
  modulationMs: number;
  /** All steps of all pictures. */
  denoiseMs: number;
  /** The autoencoder's decoder, all pictures. */
  decodeMs: number;
  /** Compiling kernels and loading weights, of all stages. */
  loadMs: number;
  /** Wall time of the request without waiting in the queue. */
  totalMs: number;
}

/** A tensor of an adapter's file that changes nothing. */
export interface UnusedAdapterKey {
  /** Its name in the file. */
  key: string;
  /** Why it is not used. */
  reason: string;
}

/** An adapter as a request used it. */
export interface UsedAdapter {
  /** As given, or its file's. */
  name: string;
  /** As given. */
  scale: AdapterScale;
  /** Keys of the file that changed nothing, and why; absent when all were used. */
  unused?: UnusedAdapterKey[];
}

/** GPU memory of the model, in bytes, as allocated. */
export interface MemoryUse {
  /** Weights now on the GPU. */
  weightBytes: number;
  /** Adapters' factors now on the GPU, and weights that adapters have changed. */
  adapterBytes: number;
  /** Activations and ports now on the GPU. */
  activationBytes: number;
  /** The largest sum of both so far. */
  peakBytes: number;
}

/** Everything needed to make the same picture again, with every default filled in. */
export interface ResolvedOptions extends ImageSize {
  /** As given. */
  prompt: string;
  /** As given; absent when it had no effect. */
  negativePrompt?: string;
  /** 1 when there was no true classifier-free guidance. */
  trueCfgScale: number;
  /** As used; absent without CFG-Zero*. */
  cfgZeroStar?: boolean;
  /** As used; absent without CFG-Zero*. */
  cfgZeroInitSteps?: number;
  /** As used; absent without normalised attention guidance, as its other settings. */
  nagScale?: number;
  /** As used. */
  nagTau?: number;
  /** As used. */
  nagAlpha?: number;
  /** As used. */
  nagSigmaEnd?: number;
  /** Denoising steps. */
  steps: number;
  /** Distilled guidance. */
  guidance: number;
  /** T5 tokens. */
  maxSequenceLength: number;
  /** How timesteps and guidance were rounded on their way into the transformer. */
  conditioning: 'exact' | 'diffusers' | 'bfl';
  /** Operands of the matmuls. Norms, softmax statistics and accumulators are float32 in both. */
  precision: 'f32' | 'f16';
  /** Sizes the references were brought to. */
  references: ImageSize[];
  /** Adapters that were used; absent without any. */
  adapters?: UsedAdapter[];
  /** As used; absent when 1. */
  strength?: number;
  /** False when the transformer did not see the image. */
  context?: boolean;
  /** As given; absent when CLIP read the prompt. */
  clipPrompt?: string;
  /** As used; absent without a negative prompt or when it counted everywhere. */
  cfgInterval?: [from: number, to: number];
  /** As used; absent without. */
  cache?: CacheOptions;
  /** As given; absent without. */
  expand?: Required<Sides>;
  /** As used; absent when `euler` and without adapters, which may want another. */
  sampler?: SamplerName;
  /** As used; absent but for ancestral samplers. */
  eta?: number;
  /** As used; absent when `model` and without adapters, and with own sigmas. */
  schedule?: ScheduleName;
  /** As given; absent without own ones. */
  sigmas?: number[];
  /** As used; absent unless there were several references and it was not `offset`. */
  referencePositions?: ReferencePositions;
  /** As used; absent unless stitched. */
  stitchDirection?: StitchDirection;
  /** As used; absent unless stitched. */
  stitchSpacing?: number;
  /** What the mask meant and what of the input was edited; absent without one. */
  mask?: MaskUse;
}

/** How a mask was used. */
export interface MaskUse {
  /** What it meant. */
  mode: MaskMode;
  /** What was edited: of the input's pixels, with `reference` of the model's size. */
  box: PixelBox;
}

/** A rectangle of pixels, from its top left corner. */
export interface PixelBox {
  /** Pixels from the left. */
  x: number;
  /** Pixels from the top. */
  y: number;
  /** Pixels. */
  width: number;
  /** Pixels. */
  height: number;
}

/** Result of a request that stops before the decoder. */
export interface LatentsResult {
  /** Float32, packed `[tokens, 64]` of each picture as the transformer leaves them: channels (mean − shift) · scale, tokens row by row. */
  latents: Float32Array<ArrayBuffer>[];
  /** Of the first picture; a bigint when above 2⁵³ − 1. */
  seed: number | bigint;
  /** Of every picture. */
  seeds: (number | bigint)[];
  /** Every option as it was used. */
  options: ResolvedOptions;
  /** The prompt had more T5 tokens than `maxSequenceLength`: its end had no influence beyond CLIP's. */
  truncated: boolean;
  /** How often the transformer was evaluated for one picture: once a step, twice with a negative prompt or `heun`. */
  evaluations: number;
  /** How many of all pictures' evaluations reused an earlier one, with a region cache in part; absent without `cache`. */
  skipped?: number;
  /** Where the time went, in milliseconds. */
  timings: Timings;
  /** GPU memory of the model, in bytes. */
  memory: MemoryUse;
}

/** Result of `edit()` and `generate()`. */
export interface EditResult extends LatentsResult {
  /** The first picture. */
  image: PixelImage;
  /** All pictures. */
  images: PixelImage[];
}

/** What {@link KontextEngine.stream} yields: every progress event, then the result. */
export type StreamEvent = ProgressEvent | { type: 'result'; result: EditResult };
