// The table of options and defaults: what each is called, its range, its default and its help text.
// One table, so that the API, the command line's help and the guide can never disagree.

/** What every option of the tables has. */
export interface OptionFacts {
  /** What it does, in one line. */
  help: string;
  /** Set where the option belongs to edits alone. */
  only?: 'edit';
  /** Its name on the command line, where that is not simply the name with dashes. */
  flag?: string;
}

/** Bounds and help of one numeric option. */
export interface NumberOption extends OptionFacts {
  /** Whether fractions are refused. */
  kind: 'integer' | 'number';
  /** Null when nothing happens unless the option is given. */
  default: number | null;
  /** Smallest value allowed. */
  min: number;
  /** Largest value allowed. */
  max: number;
}

/** An option with a closed list of values. */
export interface ChoiceOption<T extends string = string> extends OptionFacts {
  /** Tells it from a {@link NumberOption}. */
  kind: 'choice';
  /** Taken when nothing is given. */
  default: T;
  /** All values allowed. */
  choices: readonly T[];
  /** An amount of memory is taken too: `8GB`, or a number of bytes. */
  amounts?: true;
}

/** An option that is on or off. */
export interface SwitchOption extends OptionFacts {
  /** Tells it from the other kinds. */
  kind: 'switch';
  /** Taken when nothing is given; the command line has a flag for the other. */
  default: boolean;
}

/** An option of another type, which has checks of its own. */
export interface ValueOption extends OptionFacts {
  /**
   * `text`; `seed`: a whole number of 64 bits; `size`: a width and a height; `picture`: what {@link ImageInput} is; `latents`: floats;
   * `numbers`: a list of them; `sides`: pixels left, top, right, bottom; `cache`: a kind, and its threshold or order.
   */
  kind: 'text' | 'seed' | 'size' | 'picture' | 'latents' | 'numbers' | 'sides' | 'cache';
  /** What happens when nothing is given, in words. */
  default: string;
  /** Whether it takes a list; the flag may then be given several times. */
  list?: true;
}

/** Any option of a request. */
export type RequestOption = NumberOption | ChoiceOption | SwitchOption | ValueOption;

const integer = (
  standard: number | null,
  min: number,
  max: number,
  help: string,
  facts: Partial<OptionFacts> = {},
): NumberOption => ({ kind: 'integer', default: standard, min, max, help, ...facts });
const number = (...of: Parameters<typeof integer>): NumberOption => ({ ...integer(...of), kind: 'number' });
const choice = <const T extends string>(
  standard: T,
  choices: readonly T[],
  help: string,
  facts: Partial<OptionFacts> & { amounts?: true } = {},
): ChoiceOption<T> => ({ kind: 'choice', default: standard, choices, help, ...facts });

const value = (
  kind: ValueOption['kind'],
  standard: string,
  help: string,
  facts: Partial<ValueOption> = {},
): ValueOption => ({ kind, default: standard, help, ...facts });
const flip = (standard: boolean, help: string, facts: Partial<OptionFacts> = {}): SwitchOption => ({
  kind: 'switch',
  default: standard,
  help,
  ...facts,
});

/** Sides of pictures the SDK takes or makes, in pixels. Above it one side alone exceeds the rotary positions FLUX was trained on. */
export const MAX_OUTPUT_SIDE = 4096;
/** A decoded input may be larger, because it is reduced first; beyond this it is refused. */
export const MAX_INPUT_SIDE = 16384;
/** Of an input picture, so that a small file cannot unpack to gigabytes: 256 MiB as RGBA. */
export const MAX_INPUT_PIXELS = 2 ** 26;

/**
 * Options of one request, apart from prompt, picture and what only programs can give; a model's `kontext.json` may replace the defaults of `steps`
 * and `maxSequenceLength`.
 */
export const REQUEST_OPTIONS = {
  /** @see {@link RequestOptions.steps} */
  steps: integer(28, 1, 1000, 'denoising steps; a model may have its own default'),
  /** @see {@link RequestOptions.guidance} */
  guidance: number(2.5, 0, 100, 'how strongly the distilled guidance follows the prompt; ignored by models without it'),
  /** @see {@link RequestOptions.maxSequenceLength} */
  maxSequenceLength: integer(512, 1, 512, 'T5 tokens; longer prompts are cut; a model may have its own default'),
  /** @see {@link RequestOptions.trueCfgScale} */
  trueCfgScale: number(
    1,
    1,
    100,
    'weight of the prompt against the negative prompt; 1 switches it off, twice the time above',
  ),
  /** @see {@link RequestOptions.cfgZeroStar} */
  cfgZeroStar: flip(false, 'CFG-Zero*: scale the negative velocity to fit, and leave out the first steps'),
  /** @see {@link RequestOptions.cfgZeroInitSteps} */
  cfgZeroInitSteps: integer(1, 0, 1000, 'steps at the start that cfgZeroStar leaves out'),
  /** @see {@link RequestOptions.nagScale} */
  nagScale: number(
    1,
    1,
    100,
    'NAG: guidance by the negative prompt in attention, 5 for instance; 1 switches it off, 1.4 times the time above',
  ),
  /** @see {@link RequestOptions.nagTau} */
  nagTau: number(2.5, 1, 10, 'NAG: how much longer than before guided attention may get'),
  /** @see {@link RequestOptions.nagAlpha} */
  nagAlpha: number(0.25, 0, 1, 'NAG: share of guided attention in the mix with the unguided one'),
  /** @see {@link RequestOptions.nagSigmaEnd} */
  nagSigmaEnd: number(0.75, 0, 1, 'NAG: share of noise down to which it is applied; steps below cost nothing more'),
  /** @see {@link RequestOptions.maxArea} */
  maxArea: integer(
    null,
    256,
    MAX_OUTPUT_SIDE * MAX_OUTPUT_SIDE,
    'scale the size to this many pixels, keeping its aspect',
  ),
  /** @see {@link RequestOptions.images} */
  images: integer(1, 1, 64, 'pictures to make, with the seeds seed, seed+1, …'),
  /** @see {@link RequestOptions.seed} */
  seed: value('seed', 'random', 'of the noise, as `torch.Generator("cpu")`; below 0 is random'),
  /** @see {@link EditRequest.size} */
  size: value('size', 'auto', 'auto, input, or width x height in multiples of 16'),
  /** @see {@link RequestOptions.negativePrompt} */
  negativePrompt: value('text', 'none', 'what to steer away from, with a trueCfgScale or a nagScale above 1'),
  /** @see {@link RequestOptions.latents} */
  latents: value('latents', 'noise', 'packed latents to start from instead of the seed’s noise'),
  /** @see {@link EditRequest.references} */
  references: value('picture', 'none', 'further pictures the prompt refers to', {
    only: 'edit',
    flag: 'reference',
    list: true,
  }),
  /** @see {@link EditRequest.autoResize} */
  autoResize: flip(true, 'bring references to preferred sizes; without it they are only floored to multiples of 16', {
    only: 'edit',
  }),
  /** @see {@link EditRequest.context} */
  context: flip(true, 'show the image to the transformer; without it, edits are FLUX.1 [dev]’s image-to-image', {
    only: 'edit',
  }),
  /** @see {@link RequestOptions.control} */
  control: value('picture', 'none', 'edges or depths for FLUX.1 Canny or Depth, brought to the target’s size'),
  /** @see {@link EditRequest.referencePositions} */
  referencePositions: choice(
    'offset',
    ['offset', 'index', 'stitched'],
    'how the transformer tells several references apart: laid side by side, numbered, or stitched to one picture',
    { only: 'edit' },
  ),
  /** @see {@link EditRequest.stitchDirection} */
  stitchDirection: choice(
    'right',
    ['right', 'down', 'left', 'up'],
    'where stitched references lie, seen from the image',
    {
      only: 'edit',
    },
  ),
  /** @see {@link EditRequest.stitchSpacing} */
  stitchSpacing: integer(0, 0, 1024, 'white pixels between stitched references', { only: 'edit' }),
  /** @see {@link EditRequest.mask} */
  mask: value('picture', 'none', 'where to change the picture: white is changed, black is kept', { only: 'edit' }),
  /** @see {@link EditRequest.maskMode} */
  maskMode: choice(
    'exact',
    ['exact', 'reference'],
    'exact keeps every pixel outside the mask; reference does as diffusers’ FluxKontextInpaintPipeline',
    { only: 'edit' },
  ),
  /** @see {@link EditRequest.maskPaddingCrop} */
  maskPaddingCrop: integer(
    null,
    0,
    MAX_INPUT_SIDE,
    'pixels around the mask that the edit sees; by itself half of its longer side, at least 32',
    { only: 'edit' },
  ),
  /** @see {@link EditRequest.maskFeather} */
  maskFeather: number(
    null,
    0,
    512,
    'pixels over which the edit fades in, inside the mask; by itself 8, less in narrow ones',
    { only: 'edit' },
  ),
  /** @see {@link EditRequest.expand} */
  expand: value('sides', 'none', 'pixels to add around the picture (left, top, right, bottom); the old ones are kept', {
    only: 'edit',
  }),
  /** @see {@link EditRequest.strength} */
  strength: number(1, 0, 1, 'how far from the input denoising starts: 1 from pure noise, less keeps more of it', {
    only: 'edit',
  }),
  /** @see {@link RequestOptions.clipPrompt} */
  clipPrompt: value('text', 'the prompt', 'what CLIP reads instead of the prompt, which then goes to T5 alone'),
  /** @see {@link RequestOptions.cfgInterval} */
  cfgInterval: value('numbers', '0,1', 'shares of the steps from and up to which the negative prompt counts'),
  /** @see {@link RequestOptions.variants} */
  variants: integer(1, 1, 16, 'seeds that start; after variantSteps the best goes on alone'),
  /** @see {@link RequestOptions.variantSteps} */
  variantSteps: integer(null, 1, 1000, 'steps before variants are chosen from; by itself a quarter of them'),
  /** @see {@link RequestOptions.cache} */
  cache: value('cache', 'none', 'reuse steps, lossy: first-block, taylor, or with a mask region'),
  /** @see {@link RequestOptions.sampler} */
  sampler: choice(
    'euler',
    ['euler', 'heun', 'dpmpp_2m', 'res_multistep', 'ipndm', 'deis', 'euler_ancestral'],
    'how a step moves the latents; heun evaluates twice a step',
  ),
  /** @see {@link RequestOptions.eta} */
  eta: number(1, 0, 1, 'how much of each step’s noise euler_ancestral replaces'),
  /** @see {@link RequestOptions.schedule} */
  schedule: choice(
    'model',
    ['model', 'simple', 'sgm_uniform', 'normal', 'beta', 'linear_quadratic', 'kl_optimal'],
    'at which shares of noise the steps lie; model is the one the model is published with',
  ),
  /** @see {@link RequestOptions.sigmas} */
  sigmas: value(
    'numbers',
    'the schedule’s',
    'own shares of noise instead of a schedule, falling, before the model’s shift',
  ),
} as const satisfies Record<string, RequestOption>;

/** How several references are told apart. */
export type ReferencePositions = (typeof REQUEST_OPTIONS.referencePositions.choices)[number];
/** Where stitched references lie, seen from the image. */
export type StitchDirection = (typeof REQUEST_OPTIONS.stitchDirection.choices)[number];
/** How a step moves the latents. */
export type SamplerName = (typeof REQUEST_OPTIONS.sampler.choices)[number];
/** At which shares of noise the steps lie. */
export type ScheduleName = (typeof REQUEST_OPTIONS.schedule.choices)[number];

/** What a mask means. */
export type MaskMode = (typeof REQUEST_OPTIONS.maskMode.choices)[number];

/** Options of a loaded model. */
export const LOAD_OPTIONS = {
  /** @see {@link LoadOptions.precision} */
  precision: choice('auto', ['auto', 'f16', 'f32'], 'arithmetic of the matmuls: f16 when the adapter has it'),
  /** @see {@link LoadOptions.conditioning} */
  conditioning: choice(
    'auto',
    ['auto', 'exact', 'diffusers', 'bfl'],
    'rounding of 1000·t and 1000·guidance: as diffusers’ pipeline or as BFL’s own, both in bfloat16, or exact; auto is exact with f32, ' +
      'else diffusers, whose sizes and schedule are the defaults too',
  ),
  /** @see {@link LoadOptions.quantization} */
  quantization: choice(
    'auto',
    ['auto', 'none', 'f16', 'q8', 'q4'],
    'storage of the large matrices on the GPU; auto: as the file has them, without loss; none: at the arithmetic’s precision; ' +
      'q8 and q4 save memory, not time',
  ),
  /** @see {@link LoadOptions.memory} */
  memory: choice(
    'phased',
    ['phased', 'resident', 'streamed'],
    'phased holds text encoders or transformer, never both; resident keeps every part loaded between edits; ' +
      'streamed loads text encoder and transformer piece by piece, the transformer in every step, slow but small; an amount ' +
      '(8GB) chooses these, and quantization unless given',
    { amounts: true },
  ),
  /** @see {@link LoadOptions.tune} */
  tune: choice(
    'off',
    ['off', 'background'],
    'background measures, while nothing else is to be done, which schedules are fastest on this GPU, for the next load',
  ),
} as const satisfies Record<string, ChoiceOption>;

/** Arithmetic of the matmuls; `auto` takes f16 where the adapter has it. */
export type Precision = (typeof LOAD_OPTIONS.precision.choices)[number];
/** Rounding of 1000·t and 1000·guidance before their embedding: as one of the two published bfloat16 pipelines rounds, or exactly. */
export type Conditioning = (typeof LOAD_OPTIONS.conditioning.choices)[number];
/**
 * How the large matrices are stored on the GPU: `auto` as the file has them (quantised ones without loss, floats by the precision),
 * `none` as float32 or float16 by the precision, whatever the file has.
 */
export type Quantization = (typeof LOAD_OPTIONS.quantization.choices)[number];
/** Whether idle time is used to measure schedules. */
export type Tune = (typeof LOAD_OPTIONS.tune.choices)[number];
/** Which parts of the model stay on the GPU, and for how long. */
export type MemoryMode = (typeof LOAD_OPTIONS.memory.choices)[number];
/** An amount of GPU memory: `8GB`, `7.5GiB`, `900MB`, or bytes. */
export type MemoryBudget = number | `${number}${'MB' | 'GB' | 'MiB' | 'GiB'}`;

/** What a model folder's `kontext.json` may say about itself; explicit options win over it. */
export interface ModelDefaults {
  /** `[width, height]` pairs, each a multiple of 16, that `size: 'auto'` and `autoResize` choose from. */
  preferredSizes?: [number, number][];
  /** T5 tokens, 1 to 512. */
  maxSequenceLength?: number;
  /** Denoising steps, 1 to 1000. */
  steps?: number;
  /** Distilled guidance, 0 to 100. */
  guidance?: number;
  /** Name of a sampler. */
  sampler?: SamplerName;
  /** Name of a schedule. */
  schedule?: ScheduleName;
}
