// What can be asked for: pictures in, and every option of an edit or a generation.
import type { PixelImage } from '../image/pixels.ts';
import type { FileInput } from '../model/files.ts';
import type { MaskMode, ReferencePositions, SamplerName, ScheduleName, StitchDirection } from './options.ts';
import type { ProgressEvent } from './progress-types.ts';

/**
 * A picture: raw RGBA pixels (an ImageData is one), encoded bytes (PNG, JPEG, WebP, …), a Blob or File, a URL, in Node a file
 * path, in a page whatever it can draw.
 * Transparent pixels are laid over white; EXIF orientation is honoured; embedded colour profiles become sRGB.
 */
export type ImageInput = PixelImage | Uint8Array | ArrayBuffer | Blob | URL | string | PagePicture;

/** What pages draw with `drawImage`; there is none of it in Node. */
export type PagePicture =
  | ImageBitmap
  | HTMLImageElement
  | HTMLCanvasElement
  | OffscreenCanvas
  | HTMLVideoElement
  | VideoFrame;

/** Width and height in pixels, multiples of 16. */
export interface ImageSize {
  /** Pixels, 16 to 4096. */
  width: number;
  /** Pixels, 16 to 4096. */
  height: number;
}

/** Width and height as `1024x768`, in pixels, multiples of 16. */
export type SizeInWords = `${number}x${number}`;

/** Options shared by {@link EditRequest} and {@link GenerateRequest}; defaults are in `REQUEST_OPTIONS`. */
export interface RequestOptions {
  /** What to make or to change; not empty. */
  prompt: string;
  /** What to steer away from; has an effect with `trueCfgScale` or `nagScale` above 1. Default none. */
  negativePrompt?: string;
  /** True classifier-free guidance: velocity = negative + scale · (positive − negative), 1 to 100 (Ho & Salimans 2022). Doubles the time above 1, the default. */
  trueCfgScale?: number;
  /**
   * With `trueCfgScale` above 1: CFG-Zero* (Fan et al. 2025, https://arxiv.org/abs/2503.18886). The negative velocity is first multiplied to
   * fit the positive one, and the first `cfgZeroInitSteps` move nothing. Default false.
   */
  cfgZeroStar?: boolean;
  /** With `cfgZeroStar`: steps of the schedule, counted from pure noise, that move nothing and cost nothing, 0 to 1000; default 1, as published. */
  cfgZeroInitSteps?: number;
  /**
   * Normalised attention guidance by the negative prompt (NAG, Chen et al. 2025, https://arxiv.org/abs/2505.21179), 1 to 100, default 1 for none;
   * its authors take 5. Works on models with distilled guidance, and costs two fifths of a step instead of a whole one.
   */
  nagScale?: number;
  /** With `nagScale`: how many times longer than unguided attention the guided one may be (L1 norm), 1 to 10; default 2.5, the authors' for FLUX. */
  nagTau?: number;
  /** With `nagScale`: share of guided attention in the mix, 0 to 1; default 0.25, the authors' for FLUX. */
  nagAlpha?: number;
  /** With `nagScale`: it is applied while the share of noise is at least this, 0 to 1; default 0.75, the authors' for FLUX. 0 for all steps. */
  nagSigmaEnd?: number;
  /** Denoising steps, 1 to 1000; default 28, or the model's own. Time grows in proportion. */
  steps?: number;
  /** Distilled guidance, an input of the transformer, 0 to 100; default 2.5, as FLUX.1 Kontext [dev] is published with. */
  guidance?: number;
  /**
   * Of the noise, as `torch.Generator('cpu').manual_seed(seed)`: 0 to 2⁶⁴ − 1, from 2⁵³ on as a bigint. Drawn at random when absent or
   * below 0, and told in the result.
   */
  seed?: number | bigint;
  /** Rescales the size to this many pixels as the reference pipeline does: aspect kept, sides floored to multiples of 16. */
  maxArea?: number;
  /** T5 tokens, 1 to 512, default 512 or the model's own; longer prompts are cut, which the result tells in `truncated`. */
  maxSequenceLength?: number;
  /**
   * How a step moves the latents; default `euler`, as the model is published. Multistep ones (`dpmpp_2m`, `res_multistep`, `ipndm`, `deis`)
   * reuse earlier evaluations at no cost, `heun` evaluates twice a step, `euler_ancestral` adds noise of its own.
   */
  sampler?: SamplerName;
  /** With `sampler: 'euler_ancestral'`: the share of each step's noise that is drawn anew, 0 to 1 (default). */
  eta?: number;
  /** At which shares of noise the steps lie; default `model`: uniform, shifted as the model's scheduler says. The others have ComfyUI's names. */
  schedule?: ScheduleName;
  /**
   * Own shares of noise instead of a schedule: falling values in (0, 1] without the final 0, as diffusers' argument of that name: the
   * model's shift is applied to them. Their number is that of the steps.
   */
  sigmas?: readonly number[];
  /** For FLUX.1 Canny and Depth, which need it: the edges or depths to follow, brought to the picture's size. */
  control?: ImageInput;
  /** Lets steps reuse earlier ones: faster and not the same picture. Default none; the result tells how many did. */
  cache?: FirstBlockCache | TaylorCache | RegionCache;
  /** Shares of the steps from and up to which `negativePrompt` counts, 0 to 1; outside, steps cost half. Default [0, 1]. */
  cfgInterval?: readonly [from: number, to: number];
  /** What CLIP reads instead of the prompt, which then goes to T5 alone. CLIP sets the mood, T5 the content. */
  clipPrompt?: string;
  /**
   * Seeds that start, `seed`, `seed + 1`, …, 1 (default) to 16: all go `variantSteps` steps, then `choose` says which go on. Costs
   * variants · variantSteps + (steps − variantSteps) for one. In place of `images`.
   */
  variants?: number;
  /** Steps before the choice; default a quarter of them. */
  variantSteps?: number;
  /**
   * Chooses from rough pictures of the variants; by itself the one that leaves most of the input alone and changes the rest most. May
   * return several; the result has them in this order, and the seed of the first.
   */
  choose?: ChooseVariants;
  /** Initial noise instead of the seed's: float32, packed `[tokens, 64]`, tokens = width/16 · height/16, row by row. */
  latents?: Float32Array;
  /**
   * Adapters (LoRA and its relatives) of this request, any number, in place of those of `Kontext.load`; `[]` for none. Another adapter
   * or strength loads no weights again and compiles no kernel again.
   */
  adapters?: readonly AdapterOptions[];
  /** Number of pictures, 1 to 64, default 1, with the seeds `seed`, `seed + 1`, …, each the same as when asked for alone. */
  images?: number;
  /**
   * Rough pictures during denoising: what the final picture would be by now, every so many steps. At 1/8 of the size, or whole where
   * `Kontext.load` was given a `previewDecoder`.
   */
  preview?: {
    /** Steps from one preview to the next, at least 1. */
    every: number;
  };
  /** Cancels the request: it rejects with `aborted`, and the GPU stops after the slice of work it is in (about 100 ms). */
  signal?: AbortSignal;
  /** Called in order with everything that happens; must not throw. */
  onProgress?: (event: ProgressEvent) => void;
}

/**
 * First-block caching: where what the transformer's first block adds to the picture differs from the last whole evaluation by less than
 * the threshold (relative, mean of magnitudes), the other blocks are not run and what they added then is added again.
 */
export interface FirstBlockCache {
  /** Tells it from the other kinds. */
  kind: 'first-block';
  /** Relative change up to which a step is reused, above 0; default 0.08. */
  threshold?: number;
}

/** Taylor series over steps (TaylorSeer, https://arxiv.org/abs/2503.06923): a whole evaluation every few steps, extrapolation between them. */
export interface TaylorCache {
  /** Tells it from the other kinds. */
  kind: 'taylor';
  /** Derivatives that are used: 1 (default) or 2. */
  order?: 1 | 2;
  /** Evaluations from one whole one to the next; default 3. */
  interval?: number;
  /** Evaluations at the start that are whole; default 3. */
  start?: number;
  /** From this evaluation on all are whole again; default: none. */
  end?: number;
  /** True (default) extrapolates the velocity, at no cost and in no memory; false the attention of every block, as diffusers does by default. */
  lite?: boolean;
}

/**
 * Region caching for edits with a mask (after RegionE, https://arxiv.org/abs/2510.25590): between evaluations of the whole picture only the
 * tokens that may change are evaluated, the others keep their velocity.
 */
export interface RegionCache {
  /** Tells it from the other kinds. */
  kind: 'region';
  /** Evaluations from one of the whole picture to the next; default 4. */
  interval?: number;
  /** Evaluations at the start that are of the whole picture; default 2. */
  start?: number;
  /** Tokens (16 pixels of the model's size) around the mask that are evaluated with it; default 1. */
  margin?: number;
}

/** Which steps may reuse earlier ones. */
export type CacheOptions = Required<FirstBlockCache> | Required<TaylorCache> | Required<RegionCache>;

/** Answers with the index of a preview, or several. */
export type ChooseVariants = (
  previews: readonly PixelImage[],
  signal: AbortSignal,
) => number | readonly number[] | Promise<number | readonly number[]>;

/** Pixels at the sides of a picture; those left out are 0. */
export interface Sides {
  /** Pixels. */
  left?: number;
  /** Pixels. */
  top?: number;
  /** Pixels. */
  right?: number;
  /** Pixels. */
  bottom?: number;
}

/** What to change in which picture: the argument of {@link KontextEngine.edit}. */
export interface EditRequest extends RequestOptions {
  /** The picture to edit. */
  image: ImageInput;
  /** Further pictures the prompt may refer to. */
  references?: readonly ImageInput[];
  /**
   * Whether the transformer sees the image beside the picture it makes; default true, as FLUX.1 Kontext was trained. Without, `strength`
   * below 1 or a mask is what makes the image matter, as in diffusers' `FluxImg2ImgPipeline` with FLUX.1 [dev], [schnell] and [Krea dev].
   */
  context?: boolean;
  /**
   * How several references are told apart. `offset` (default): all as the one reference the model was trained with, laid side by side, as
   * ComfyUI and stable-diffusion.cpp do. `index`: numbered, for models trained so. `stitched`: image and references become one picture.
   */
  referencePositions?: ReferencePositions;
  /** With `stitched`: on which side of the image the references lie; default `right`. They take its height, or width, and keep their aspect. */
  stitchDirection?: StitchDirection;
  /** With `stitched`: white pixels between two pictures, 0 (default) to 1024. */
  stitchSpacing?: number;
  /**
   * Where to change the picture: of its size, white is changed, black is kept, edges may be soft. See `maskMode`.
   */
  mask?: ImageInput;
  /**
   * `exact` (default): every pixel that is black in the mask is the input's own, bit for bit, in a result of the input's full size;
   * only the mask and its surroundings are brought to the model's size. `reference`: as diffusers' `FluxKontextInpaintPipeline`; the
   * result has the model's size and all of it went through the autoencoder, the context is `references` where given, else the image.
   */
  maskMode?: MaskMode;
  /** Pixels of surroundings around the mask's box that are edited with it. With `maskMode: 'reference'` none given means the whole picture. */
  maskPaddingCrop?: number;
  /** Pixels over which the edit fades in from the mask's edge, inside it, with `maskMode: 'exact'`; by itself 8 or a quarter of the mask's half width. */
  maskFeather?: number;
  /**
   * Pixels to add around the picture (outpainting), its own kept bit for bit. Works like an exact `mask` of the new parts, and together
   * with one.
   */
  expand?: Sides;
  /**
   * Where between noise and the picture denoising starts: 1 (default) from pure noise, 0.6 leaves the first 40 % of the steps out and
   * starts from the picture with the noise of that step, as diffusers' image-to-image pipelines do. Above 0.
   */
  strength?: number;
  /** Resize references to the preferred size nearest their aspect (default), or only floor their sides to multiples of 16. */
  autoResize?: boolean;
  /**
   * `auto` (default): the preferred size nearest the input's aspect ratio. `input`: the input's size, floored to multiples
   * of 16. Or a size, also in words: `1024x768`. Nothing is ever cropped.
   */
  size?: 'auto' | 'input' | SizeInWords | ImageSize;
}

/** A picture to make from words alone: the argument of {@link KontextEngine.generate}. */
export interface GenerateRequest extends RequestOptions {
  /** `auto` (default): the model's squarest preferred size, 1024×1024 for FLUX. Or a size, also in words: `1024x768`. */
  size?: 'auto' | SizeInWords | ImageSize;
}

/** Added to a request: stop before the decoder. */
export interface LatentsOnly {
  /** The result has `latents` and no picture. */
  output: 'latents';
}

/** How strongly an adapter is used, −10 to 10: everywhere, or by patterns of module names in which `*` stands for any characters. */
export type AdapterScale = number | Readonly<Record<string, number>>;

/** An adapter: its file, or the name under which it was loaded. */
export interface AdapterOptions {
  /** What to call it; its file's name without ending by default. */
  name?: string;
  /** The file, safetensors of any of the usual kinds. A request may leave it out for an adapter that `Kontext.load` was given. */
  source?: FileInput;
  /**
   * Default 1. By patterns: `{ 'single_blocks.*': 0.5, 'clip.*': 0 }`; of several that match the last counts, and modules that none
   * matches are at 1.
   */
  scale?: AdapterScale;
  /** Default true: a file of which something cannot be used is refused. False uses the rest, and the result lists what was left out. */
  strict?: boolean;
}
