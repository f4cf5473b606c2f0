// Turns what a caller asked for into numbers that are known to be right, before any work starts.
// Every refusal names the option, its value and its bounds: this is where most mistakes of a new user end.
import { type CheckedAdapter, checkAdapters } from './adapters/check.ts';
import { checkCache } from './check-cache.ts';
import { type AttentionGuidance, checkCfgZero, checkInterval, checkNag } from './check-guidance.ts';
import { invalid, numeric, show } from './checks.ts';
import { CLIP_TOKENS, checkPromptLength } from './cut-prompt.ts';
import { refuseUnknown } from './known-options.ts';
import {
  type ChoiceOption,
  MAX_OUTPUT_SIDE,
  type MaskMode,
  type ModelDefaults,
  REQUEST_OPTIONS,
  type ReferencePositions,
  type RequestOption,
  type SamplerName,
  type ScheduleName,
} from './options.ts';
import { checkSignal } from './signal.ts';
import type { Stitch } from './stages/stitch.ts';
import { firstStep } from './stages/strength.ts';
import type {
  CacheOptions,
  ChooseVariants,
  EditRequest,
  GenerateRequest,
  ImageInput,
  ImageSize,
  LatentsOnly,
  RequestOptions,
  Sides,
} from './types.ts';

/** Pictures begun from several seeds, of which some go on. */
export interface Variants {
  /** Seeds that start. */
  count: number;
  /** Steps before the choice. */
  steps: number;
  choose: ChooseVariants | undefined;
}

/** A request with every default filled in; sizes are chosen later, when the pictures are open. */
export interface CheckedRequest {
  kind: 'edit' | 'generate';
  prompt: string;
  negativePrompt: string | undefined;
  trueCfgScale: number;
  /** Steps that CFG-Zero* leaves out at the start; undefined without it. */
  cfgZero: number | undefined;
  nag: AttentionGuidance | undefined;
  steps: number;
  guidance: number;
  maxSequenceLength: number;
  /** In [0, 2⁶⁴). */
  seed: bigint;
  images: number;
  size: 'auto' | 'input' | { width: number; height: number };
  maxArea: number | undefined;
  autoResize: boolean;
  references: readonly ImageInput[];
  latents: Float32Array | undefined;
  output: 'image' | 'latents';
  /** Undefined takes those of the load. */
  adapters: readonly CheckedAdapter[] | undefined;
  previewEvery: number | undefined;
  mask: CheckedMask | undefined;
  strength: number;
  sampler: SamplerName;
  eta: number;
  schedule: ScheduleName;
  sigmas: readonly number[] | undefined;
  clipPrompt: string | undefined;
  guided: readonly [from: number, to: number];
  cache: CacheOptions | undefined;
  variants: Variants;
  expand: Required<Sides> | undefined;
  context: boolean;
  control: ImageInput | undefined;
  referencePositions: ReferencePositions;
  stitch: Stitch;
}

/** What to change in the picture, and how. */
export interface CheckedMask {
  /** Absent where only `expand` says what may change. */
  input?: ImageInput;
  mode: MaskMode;
  paddingCrop: number | undefined;
  feather: number | undefined;
}

/** Defaults of a model: those of its `kontext.json`, else of its family. */
export interface RequestDefaults extends ModelDefaults {
  guidance?: number;
}

/**
 * @param model defaults of the model's `kontext.json`
 * @throws KontextError `invalid-request` naming the first option that is wrong
 */
export function checkRequest(request: EditRequest | GenerateRequest, model: RequestDefaults = {}): CheckedRequest {
  if (typeof request !== 'object' || request === null) throw invalid('The request must be an object with a prompt.');
  const edit = 'image' in request;
  const known = edit ? [...COMMON_KEYS, ...EDIT_KEYS] : COMMON_KEYS;
  const misplaced = edit ? undefined : Object.keys(request).find((key) => EDIT_KEYS.includes(key));
  if (misplaced) throw invalid(`Unknown option ${misplaced}. It belongs to edit().`, { option: misplaced });
  refuseUnknown(request, known);
  if (edit && (request.image === undefined || request.image === null)) {
    throw invalid('image is missing. Give a picture to edit, or call generate().');
  }
  if (typeof request.prompt !== 'string' || request.prompt.trim() === '') {
    throw invalid('The prompt is empty. Say in a sentence what to make or to change.');
  }
  if (request.negativePrompt !== undefined && typeof request.negativePrompt !== 'string') {
    throw invalid('negativePrompt must be a string.');
  }
  const trueCfgScale = numeric('trueCfgScale', request.trueCfgScale);
  if (trueCfgScale > 1 && request.negativePrompt === undefined) {
    throw invalid(`trueCfgScale ${trueCfgScale} has no effect without a negativePrompt; "" is one.`);
  }
  const nag = checkNag(request);
  const checked: CheckedRequest = {
    kind: edit ? 'edit' : 'generate',
    prompt: request.prompt,
    negativePrompt: trueCfgScale > 1 || nag ? request.negativePrompt : undefined,
    trueCfgScale,
    cfgZero: checkCfgZero(request, trueCfgScale),
    nag,
    steps: checkSteps(request, model),
    guidance: numeric('guidance', request.guidance, model.guidance),
    maxSequenceLength: numeric('maxSequenceLength', request.maxSequenceLength, model.maxSequenceLength),
    seed: checkSeed(request.seed),
    images: numeric('images', request.images),
    size: checkSize(request),
    maxArea: request.maxArea === undefined ? undefined : numeric('maxArea', request.maxArea),
    autoResize: edit ? (request.autoResize ?? true) : true,
    references: edit ? [request.image, ...checkReferences(request.references)] : [],
    latents: request.latents,
    output: (request as Partial<LatentsOnly>).output ?? 'image',
    previewEvery: checkPreview(request),
    adapters: request.adapters === undefined ? undefined : checkAdapters(request.adapters, 'the request'),
    mask: edit ? checkMask(request) : undefined,
    strength: edit ? numeric('strength', request.strength) : 1,
    sampler: choose('sampler', request.sampler ?? model.sampler),
    eta: checkEta(request),
    schedule: choose('schedule', request.schedule ?? (request.sigmas ? undefined : model.schedule)),
    sigmas: request.sigmas && [...request.sigmas],
    clipPrompt: checkText('clipPrompt', request.clipPrompt),
    guided: checkInterval(request),
    cache: checkCache(request, model),
    variants: { count: numeric('variants', request.variants), steps: 0, choose: request.choose },
    expand: edit ? checkExpand(request) : undefined,
    context: checkContext(edit ? request : {}),
    control: request.control,
    referencePositions: choose('referencePositions', edit ? request.referencePositions : undefined),
    stitch: checkStitch(edit ? request : {}),
  };
  checked.variants.steps = checkVariants(request, checked);
  if (checked.output !== 'image' && checked.output !== 'latents') {
    throw invalid(`output is ${show(checked.output)}; it must be "image" or "latents".`);
  }
  checkPromptLength('prompt', checked.prompt, checked.maxSequenceLength);
  checkPromptLength('negativePrompt', checked.negativePrompt ?? '', checked.maxSequenceLength);
  checkPromptLength('clipPrompt', checked.clipPrompt ?? '', CLIP_TOKENS);
  if (typeof checked.autoResize !== 'boolean') throw invalid('autoResize must be true or false.');
  if (checked.latents !== undefined && !(checked.latents instanceof Float32Array)) {
    throw invalid('latents must be a Float32Array of packed tokens.');
  }
  const { signal, onProgress } = request;
  checkSignal(signal);
  if (onProgress !== undefined && typeof onProgress !== 'function') throw invalid('onProgress must be a function.');
  return checked;
}

/** What only programs can give, and what the command line has other words for. */
const PROGRAM_KEYS: readonly string[] = [
  'prompt',
  'output',
  'preview',
  'adapters',
  'choose',
  'signal',
  'onProgress',
] satisfies (keyof GenerateRequest | keyof LatentsOnly)[];

const EDIT_KEYS: readonly string[] = ['image', ...optionNames('edit')];
const COMMON_KEYS: readonly string[] = [...PROGRAM_KEYS, ...optionNames(undefined)];

/** Names of the options with a closed list of values, and the values. */
type Choices = {
  [Name in keyof typeof REQUEST_OPTIONS as (typeof REQUEST_OPTIONS)[Name] extends ChoiceOption
    ? Name
    : never]: (typeof REQUEST_OPTIONS)[Name] extends ChoiceOption<infer T> ? T : never;
};

function choose<Name extends keyof Choices>(name: Name, given: Choices[Name] | undefined): Choices[Name] {
  const option: ChoiceOption = REQUEST_OPTIONS[name];
  const value: string = given ?? option.default;
  if (option.choices.includes(value)) return value as Choices[Name];
  const known = option.choices.map((one) => `"${one}"`).join(', ');
  throw invalid(`${name} is ${show(value)}; it must be one of ${known}.`, { option: name });
}

/** Own sigmas bring their number of steps along. */
function checkSteps({ steps, sigmas, schedule }: RequestOptions, model: ModelDefaults): number {
  if (sigmas === undefined) return numeric('steps', steps, model.steps);
  if (schedule !== undefined) throw invalid('sigmas are a schedule of their own. Leave out schedule, or sigmas.');
  const list: unknown = sigmas;
  if (!Array.isArray(list) || list.length === 0 || list.length > REQUEST_OPTIONS.steps.max) {
    throw invalid(`sigmas must be a list of 1 to ${REQUEST_OPTIONS.steps.max} numbers.`, { option: 'sigmas' });
  }
  for (const [i, sigma] of sigmas.entries()) {
    const before = i === 0 ? 1 : sigmas[i - 1]!;
    if (sigma > 0 && (i === 0 ? sigma <= before : Math.fround(sigma) < Math.fround(before))) continue;
    throw invalid(`sigmas[${i}] is ${show(sigma)}; they must fall within (0, 1], without the final 0.`, {
      option: 'sigmas',
    });
  }
  if (steps === undefined || steps === sigmas.length) return sigmas.length;
  throw invalid(`steps is ${show(steps)}, but there are ${sigmas.length} sigmas. Leave out steps.`, {
    option: 'steps',
  });
}

function checkContext({ context = true, strength = 1, mask, expand, references = [] }: Partial<EditRequest>): boolean {
  if (typeof context !== 'boolean') throw invalid('context must be true or false.', { option: 'context' });
  if (context || mask !== undefined || expand !== undefined || strength < 1) {
    if (context || references.length === 0) return context;
    throw invalid('references are context: leave them out, or context: false.', { option: 'context' });
  }
  throw invalid(
    'Without context, a mask or a strength below 1 the image would have no influence. Give a strength such as 0.6.',
    {
      option: 'context',
    },
  );
}

function checkText(name: string, text: string | undefined): string | undefined {
  if (text === undefined || typeof text === 'string') return text;
  throw invalid(`${name} must be a string.`, { option: name });
}

/** Steps before the choice. */
function checkVariants(request: EditRequest | GenerateRequest, checked: CheckedRequest): number {
  const { count, choose } = checked.variants;
  const steps = checked.steps - firstStep(checked.steps, checked.strength);
  if (count === 1) {
    for (const name of ['variantSteps', 'choose'] as const) {
      if (request[name] !== undefined)
        throw invalid(`${name} has no effect without variants. Give variants: 4, for instance.`);
    }
    return steps;
  }
  if (checked.latents !== undefined)
    throw invalid('latents are one start, variants start from several seeds. Leave out latents, or variants.', {
      option: 'latents',
    });
  if (checked.images !== 1)
    throw invalid('variants take the place of images: choose may let several go on. Leave out images.');
  if (choose !== undefined && typeof choose !== 'function') throw invalid('choose must be a function of previews.');
  if (choose === undefined && checked.kind === 'generate') {
    throw invalid('variants of generate() need choose: without an input there is nothing to tell a better one by.');
  }
  const wanted =
    request.variantSteps === undefined ? Math.ceil(steps / 4) : numeric('variantSteps', request.variantSteps);
  if (wanted < steps) return wanted;
  throw invalid(`variantSteps is ${wanted}, but only ${steps} steps are run; it must be less.`, {
    option: 'variantSteps',
  });
}

function checkExpand({ expand, mask, maskMode }: EditRequest): Required<Sides> | undefined {
  if (expand === undefined) return undefined;
  const sides = { left: 0, top: 0, right: 0, bottom: 0, ...expand };
  for (const [name, pixels] of Object.entries(sides)) {
    if (!(name in { left: 0, top: 0, right: 0, bottom: 0 }))
      throw invalid(`expand.${name} is no side; they are left, top, right, bottom.`);
    if (Number.isInteger(pixels) && pixels >= 0) continue;
    throw invalid(`expand.${name} is ${show(pixels)}; it must be a whole number of pixels.`, { option: 'expand' });
  }
  if (Object.values(sides).every((pixels) => pixels === 0))
    throw invalid('expand adds nothing: give at least one side some pixels.');
  if (mask !== undefined && maskMode === 'reference')
    throw invalid('expand keeps the old pixels; it does not go with maskMode "reference".');
  return sides;
}

function checkEta({ eta, sampler }: RequestOptions): number {
  if (eta !== undefined && sampler !== 'euler_ancestral') {
    throw invalid('eta belongs to sampler "euler_ancestral". Leave it out, or choose that sampler.', { option: 'eta' });
  }
  return numeric('eta', eta);
}

function checkStitch(request: Partial<EditRequest>): Stitch {
  const { stitchDirection, stitchSpacing, referencePositions } = request;
  for (const [name, value] of Object.entries({ stitchDirection, stitchSpacing })) {
    if (value === undefined || referencePositions === 'stitched') continue;
    throw invalid(`${name} belongs to referencePositions "stitched". Leave it out, or choose that.`, { option: name });
  }
  return { direction: choose('stitchDirection', stitchDirection), spacing: numeric('stitchSpacing', stitchSpacing) };
}

function checkMask(request: EditRequest): CheckedMask | undefined {
  const { expand, mask, maskMode, maskPaddingCrop, maskFeather } = request;
  if (mask === undefined && expand === undefined) {
    for (const [name, value] of Object.entries({ maskMode, maskPaddingCrop, maskFeather })) {
      if (value !== undefined) throw invalid(`${name} has no effect without a mask. Give a mask, or leave it out.`);
    }
    return undefined;
  }
  if (mask === null) throw invalid('mask is null; give a picture that is white where the input may change.');
  const paddingCrop = maskPaddingCrop === undefined ? undefined : numeric('maskPaddingCrop', maskPaddingCrop);
  const feather = maskFeather === undefined ? undefined : numeric('maskFeather', maskFeather);
  const mode = choose('maskMode', maskMode);
  if (mode === 'reference' && feather !== undefined) {
    throw invalid('maskFeather belongs to maskMode "exact": the reference has no soft edges. Leave it out.');
  }
  return { ...(mask !== undefined && { input: mask }), mode, paddingCrop, feather };
}

function optionNames(only: 'edit' | undefined): string[] {
  return Object.entries<RequestOption>(REQUEST_OPTIONS).flatMap(([name, option]) =>
    option.only === only ? [name] : [],
  );
}

/** Below 0 is random, as in every other tool that makes pictures; PyTorch alone counts such seeds from the top. */
function checkSeed(seed: number | bigint | undefined): bigint {
  const whole = seed === undefined || typeof seed === 'bigint' || Number.isSafeInteger(seed);
  if (!whole || (seed ?? 0) >= 2n ** 64n) {
    throw invalid(
      `seed is ${show(seed)}; it must be a whole number up to 2⁶⁴ − 1, from 2⁵³ on as a bigint; below 0 it is drawn at random.`,
      { option: 'seed' },
    );
  }
  if (seed === undefined || seed < 0) return BigInt(crypto.getRandomValues(new Uint32Array(1))[0]!);
  return BigInt(seed);
}

/** A single picture is no list, although strings and bytes can be walked through like one. */
function checkReferences(references: EditRequest['references']): readonly ImageInput[] {
  if (references === undefined) return [];
  if (!Array.isArray(references)) {
    const as = typeof references === 'string' ? show(references) : 'picture';
    throw invalid(`references is ${show(references)}; it must be a list of pictures: [${as}].`, {
      option: 'references',
    });
  }
  const missing = references.findIndex((picture) => picture === undefined || picture === null || picture === '');
  if (missing < 0) return references;
  throw invalid(`references[${missing}] is ${show(references[missing])}; it must be a picture.`, {
    option: 'references',
  });
}

function checkSize(request: EditRequest | GenerateRequest): CheckedRequest['size'] {
  const size = request.size ?? 'auto';
  if (size === 'auto') return size;
  if (size === 'input') {
    if ('image' in request) return size;
    throw invalid('size "input" needs an image. Give a width and a height.');
  }
  const { width, height } = typeof size === 'object' && size !== null ? size : sizeInWords(size);
  for (const [name, side] of Object.entries({ width, height })) {
    if (!Number.isInteger(side) || side < 16 || side > MAX_OUTPUT_SIDE) {
      throw invalid(`${name} is ${show(side)}; it must be a whole number from 16 to ${MAX_OUTPUT_SIDE}.`);
    }
    if (side % 16 !== 0 && request.maxArea === undefined) {
      const nearest = Math.max(16, Math.round(side / 16) * 16);
      throw invalid(`${name} is ${side}; it must be a multiple of 16, such as ${nearest}.`);
    }
  }
  return { width, height };
}

/** `1024x768`, also with the multiplication sign. */
function sizeInWords(text: unknown): ImageSize {
  const [, width, height] = /^\s*(\d+)\s*[x×*]\s*(\d+)\s*$/i.exec(String(text)) ?? [];
  if (width !== undefined && height !== undefined) return { width: Number(width), height: Number(height) };
  throw invalid(
    `size is ${show(text)}; it must be "auto", "input", "1024x768" or { width: 1024, height: 768 }, in multiples of 16.`,
    { option: 'size' },
  );
}

function checkPreview({ preview }: RequestOptions): number | undefined {
  if (preview === undefined) return undefined;
  refuseUnknown(preview, ['every'], 'preview');
  if (Number.isInteger(preview.every) && preview.every >= 1) return preview.every;
  throw invalid(`preview.every is ${show(preview.every)}; it must be a whole number of steps, at least 1.`);
}
