// Reads the two small files that say how a model wants to be sampled: the scheduler's config and `kontext.json`.
// Both come from outside, so every value is checked before it steers anything.
import { KontextError } from '../../../runtime/src/errors.ts';
import type { ScheduleOptions } from '../host/schedule.ts';
import { checkSettings, SETTING_NAMES } from '../kontext/adapters/settings.ts';
import { MAX_OUTPUT_SIDE, type ModelDefaults, REQUEST_OPTIONS } from '../kontext/options.ts';

/**
 * The schedule of a diffusers `FlowMatchEulerDiscreteScheduler` config.
 *
 * @throws KontextError `weights-invalid` for variants that FLUX does not use: sampling with Karras, exponential or beta sigmas,
 *   inverted ones, a terminal shift, or added noise
 */
export function scheduleOf(config: Readonly<Record<string, unknown>>): ModelSchedule {
  for (const name of UNSUPPORTED) {
    if (config[name]) throw invalid('scheduler_config.json', `${name} is not supported`);
  }
  if ((config.time_shift_type ?? 'exponential') !== 'exponential') {
    throw invalid('scheduler_config.json', `time_shift_type "${String(config.time_shift_type)}" is not supported`);
  }
  const number = (name: string, fallback: number) => {
    const value = config[name] ?? fallback;
    if (typeof value === 'number' && Number.isFinite(value)) return value;
    throw invalid('scheduler_config.json', `${name} must be a number`);
  };
  if (config.use_dynamic_shifting !== true) {
    const factor = number('shift', 1);
    return checkSchedule({ shift: factor === 1 ? 'none' : { static: factor } }, 'scheduler_config.json');
  }
  const schedule = {
    shift: 'dynamic',
    baseShift: number('base_shift', 0.5),
    maxShift: number('max_shift', 1.15),
    baseSeqLen: number('base_image_seq_len', 256),
    maxSeqLen: number('max_image_seq_len', 4096),
  };
  return checkSchedule(schedule, 'scheduler_config.json');
}

/**
 * Checks a schedule that comes from outside: what the sampler will compute with it must be finite.
 *
 * @param file named in errors
 * @throws KontextError `weights-invalid`
 */
export function checkSchedule(schedule: unknown, file: string): ModelSchedule {
  if (typeof schedule !== 'object' || schedule === null) throw invalid(file, 'it has no schedule');
  const { shift, ...numbers } = schedule as Record<string, unknown>;
  const within = (name: string, value: unknown, min: number, max: number) => {
    if (typeof value === 'number' && value >= min && value <= max) return;
    throw invalid(file, `the schedule's ${name} must be a number from ${min} to ${max}`);
  };
  if (typeof shift === 'object' && shift !== null) {
    const [kind, value, ...more] = Object.entries(shift).flat();
    if (more.length > 0 || (kind !== 'static' && kind !== 'mu')) throw invalid(file, 'the schedule has no known shift');
    if (kind === 'static') within('static shift', value, 1e-6, 1e6);
    else within('mu', value, -MAX_SHIFT, MAX_SHIFT);
  } else if (shift !== 'dynamic' && shift !== 'none') throw invalid(file, 'the schedule has no known shift');
  for (const [name, value] of Object.entries(numbers)) {
    const range = Object.hasOwn(SCHEDULE_RANGES, name) ? SCHEDULE_RANGES[name] : undefined;
    if (!range) throw invalid(file, `the schedule cannot have ${JSON.stringify(name.slice(0, 100))}`);
    within(name, value, ...range);
  }
  const { baseSeqLen = 256, maxSeqLen = 4096 } = numbers as { baseSeqLen?: number; maxSeqLen?: number };
  if (baseSeqLen >= maxSeqLen) throw invalid(file, `the schedule's maxSeqLen must be above its baseSeqLen`);
  return schedule as ModelSchedule;
}

/** What a model says of its sigmas. */
export type ModelSchedule = Pick<ScheduleOptions, 'shift' | 'baseShift' | 'maxShift' | 'baseSeqLen' | 'maxSeqLen'>;

/** e to this power is finite and above zero in float32. */
const MAX_SHIFT = 87;
const SCHEDULE_RANGES: Readonly<Record<string, readonly [min: number, max: number]>> = {
  baseShift: [-MAX_SHIFT, MAX_SHIFT],
  maxShift: [-MAX_SHIFT, MAX_SHIFT],
  baseSeqLen: [1, 2 ** 24],
  maxSeqLen: [1, 2 ** 24],
};

/**
 * Checks the contents of a `kontext.json`, the model's own defaults.
 *
 * @param file named in errors
 * @throws KontextError `weights-invalid`
 */
export function checkDefaults(json: Readonly<Record<string, unknown>>, file: string): ModelDefaults {
  const { preferredSizes, maxSequenceLength, steps, ...rest } = json;
  const known = ['preferredSizes', 'maxSequenceLength', ...SETTING_NAMES];
  const unknown = Object.keys(rest).find((name) => !known.includes(name));
  if (unknown) throw invalid(file, `"${unknown}" is not known; there are ${known.join(', ')}`);
  const defaults: ModelDefaults = { ...checkSettings(rest, file) };
  for (const [name, value] of Object.entries({ maxSequenceLength, steps })) {
    if (value === undefined) continue;
    const { min, max } = REQUEST_OPTIONS[name as 'steps' | 'maxSequenceLength'];
    if (!Number.isInteger(value) || (value as number) < min || (value as number) > max) {
      throw invalid(file, `${name} must be a whole number from ${min} to ${max}`);
    }
    defaults[name as 'steps' | 'maxSequenceLength'] = value as number;
  }
  if (preferredSizes !== undefined) {
    if (!Array.isArray(preferredSizes) || preferredSizes.length === 0 || !preferredSizes.every(isSize)) {
      throw invalid(file, 'preferredSizes must be a list of [width, height], multiples of 16');
    }
    defaults.preferredSizes = preferredSizes;
  }
  return defaults;
}

const UNSUPPORTED = [
  'invert_sigmas',
  'shift_terminal',
  'use_karras_sigmas',
  'use_exponential_sigmas',
  'use_beta_sigmas',
  'stochastic_sampling',
] as const;

function isSize(value: unknown): value is [number, number] {
  const side = (n: unknown) => Number.isInteger(n) && (n as number) % 16 === 0 && (n as number) >= 16;
  return Array.isArray(value) && value.length === 2 && value.every((n) => side(n) && n <= MAX_OUTPUT_SIDE);
}

function invalid(file: string, problem: string): KontextError {
  return new KontextError('weights-invalid', `${file}: ${problem}.`, { file });
}
