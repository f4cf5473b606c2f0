// The table of options and defaults: what each is called, its range, its default and its help text.
// One table, so that the API, the command line's help and the guide can never disagree.

/** Bounds and help of one numeric option. */
export interface NumberOption {
  kind: 'integer' | 'number';
  /** Null when nothing happens unless the option is given. */
  default: number | null;
  min: number;
  max: number;
  help: string;
}

/** An option with a closed list of values. */
export interface ChoiceOption<T extends string = string> {
  kind: 'choice';
  default: T;
  choices: readonly T[];
  help: string;
}

const integer = (standard: number | null, min: number, max: number, help: string): NumberOption => ({
  kind: 'integer',
  default: standard,
  min,
  max,
  help,
});
const number = (standard: number | null, min: number, max: number, help: string): NumberOption => ({
  ...integer(standard, min, max, help),
  kind: 'number',
});
const choice = <const T extends string>(standard: T, choices: readonly T[], help: string): ChoiceOption<T> => ({
  kind: 'choice',
  default: standard,
  choices,
  help,
});

/** Sides of pictures the SDK takes or makes, in pixels. Above it one side alone exceeds the rotary positions FLUX was trained on. */
export const MAX_OUTPUT_SIDE = 4096;
/** A decoded input may be larger, because it is reduced first; beyond this it is refused. */
export const MAX_INPUT_SIDE = 16384;

/** Options of one request; a model's `kontext.json` may replace the defaults of `steps` and `maxSequenceLength`. */
export const REQUEST_OPTIONS = {
  steps: integer(28, 1, 1000, 'denoising steps'),
  guidance: number(2.5, 0, 100, 'how strongly the distilled guidance follows the prompt; ignored by models without it'),
  maxSequenceLength: integer(512, 1, 512, 'T5 tokens; longer prompts are cut'),
  trueCfgScale: number(
    1,
    1,
    100,
    'weight of the prompt against the negative prompt; 1 switches it off, twice the time above',
  ),
  maxArea: integer(
    null,
    256,
    MAX_OUTPUT_SIDE * MAX_OUTPUT_SIDE,
    'scale the size to this many pixels, keeping its aspect',
  ),
  images: integer(1, 1, 64, 'pictures to make, with the seeds seed, seed+1, …'),
} as const satisfies Record<string, NumberOption>;

/** Options of a loaded model. */
export const LOAD_OPTIONS = {
  precision: choice('auto', ['auto', 'f16', 'f32'], 'arithmetic of the matmuls: f16 when the adapter has it'),
  conditioning: choice(
    'auto',
    ['auto', 'exact', 'bfloat16'],
    'rounding of 1000·t and 1000·guidance: bfloat16 as the published pipelines run, exact as in float32; auto is exact with f32',
  ),
  quantization: choice(
    'none',
    ['none', 'f16', 'q8', 'q4'],
    'storage of the large matrices on the GPU; q8 and q4 save memory, not time',
  ),
  memory: choice(
    'phased',
    ['phased', 'resident', 'streamed'],
    'phased holds text encoders or transformer, never both; resident keeps every part loaded between edits; ' +
      'streamed loads the transformer piece by piece in every step, slow but small',
  ),
} as const satisfies Record<string, ChoiceOption>;

export type Precision = (typeof LOAD_OPTIONS.precision.choices)[number];
export type Conditioning = (typeof LOAD_OPTIONS.conditioning.choices)[number];
export type Quantization = (typeof LOAD_OPTIONS.quantization.choices)[number];
export type MemoryMode = (typeof LOAD_OPTIONS.memory.choices)[number];

/** What a model folder's `kontext.json` may say about itself; explicit options win over it. */
export interface ModelDefaults {
  /** `[width, height]` pairs, each a multiple of 16, that `size: 'auto'` and `autoResize` choose from. */
  preferredSizes?: [number, number][];
  maxSequenceLength?: number;
  steps?: number;
}
