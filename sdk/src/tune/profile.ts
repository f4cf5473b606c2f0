// The file that `kontext tune` writes: which schedules were measured best on one adapter.
// It comes from outside and may be anything: what is read is rebuilt field by field, and choosers only pick among schedules they know.
import type { TargetProfile } from '../../../kernels-codegen/src/targets/types.ts';
import { TUNED_FAMILIES, type TunedFamily, type TunedSchedules } from '../../../kernels-codegen/src/tune/tuned.ts';
import { KontextError } from '../../../runtime/src/errors.ts';
import type { AdapterReport } from '../../../runtime/src/gpu/report.ts';
import { jsonProblem } from '../../../runtime/src/json.ts';
import type { AccessPolicy } from '../../../runtime/src/net/access.ts';
import { fetchBytes } from '../../../runtime/src/net/fetch-bytes.ts';
import type { ProgramProvider } from '../kontext/programs.ts';
import { localPath } from '../model/files.ts';

/** Which adapter a profile was measured on, as WebGPU names it; the description has the driver's version where there is one. */
export type TunedAdapter = Pick<AdapterReport, 'vendor' | 'architecture' | 'device' | 'description'>;

/** What one shape gained. */
export interface TunedGain {
  /** Kind of product. */
  family: TunedFamily;
  /** The shape, as kernels' labels have it. */
  shape: string;
  /** Floating-point operations of one dispatch. */
  flops: number;
  /** Milliseconds of the estimate's choice, the median of a run in turns with the other. */
  estimateMs: number;
  /** Milliseconds of the fastest. */
  tunedMs: number;
}

/** What `kontext tune` measured. */
export interface TuningProfile {
  /** Of this form. */
  schema: typeof TUNING_SCHEMA;
  /** Measured on this one, and refused on others. */
  adapter: TunedAdapter;
  /** The fastest schedule of each shape, where that was not the estimate's. */
  tuned: TunedSchedules;
  /** For people; nothing reads it. */
  gains: TunedGain[];
}

export const TUNING_SCHEMA = 'kontext-tuning-1';

/** FLUX has about 60 shapes a size; more than a few dozen sizes at once is no profile. */
const MOST_SHAPES = 4096;
const MOST_FIELDS = 16;
const LONGEST_TEXT = 200;
/** Bytes of a profile file; a shape takes about 200. */
const LARGEST_FILE = 4 * 2 ** 20;

/**
 * A profile from a file's path, its URL, or its parsed content.
 *
 * @throws KontextError `invalid-request` when it is none; `download-failed`
 */
export async function openTuning(
  source: unknown,
  options: { access?: AccessPolicy | undefined; signal?: AbortSignal | undefined } = {},
): Promise<TuningProfile> {
  if (typeof source !== 'string' && !(source instanceof URL)) return checkTuning(source);
  const path = localPath(source);
  const bytes = path === undefined ? (await fetchBytes(source, LARGEST_FILE, options)).bytes : await fileBytes(path);
  let content: unknown;
  try {
    content = JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(bytes));
  } catch (cause) {
    const problem = cause instanceof SyntaxError ? jsonProblem(cause) : 'it is no UTF-8 text';
    throw invalid(`${String(source)} is not JSON: ${problem}`, cause);
  }
  return checkTuning(content);
}

async function fileBytes(path: string): Promise<Uint8Array> {
  const { open } = await import('node:fs/promises');
  const file = await open(path).catch((cause: Error) => {
    throw invalid(`${path} cannot be read: ${cause.message}`, cause);
  });
  try {
    const { size } = await file.stat();
    if (size > LARGEST_FILE) throw invalid(`${path} has ${size} bytes; a profile has at most ${LARGEST_FILE}`);
    return await file.readFile();
  } finally {
    await file.close();
  }
}

/** @throws KontextError `invalid-request` saying what is not as `kontext tune` writes it */
export function checkTuning(content: unknown): TuningProfile {
  const { schema, adapter, tuned, gains = [] } = record(content, 'it');
  if (schema !== TUNING_SCHEMA) {
    throw invalid(`its schema is ${JSON.stringify(schema)?.slice(0, 60)}, not ${JSON.stringify(TUNING_SCHEMA)}`);
  }
  const names = record(adapter, 'adapter');
  if (!Array.isArray(gains) || gains.length > 3 * MOST_SHAPES) throw invalid('gains is no list, or too long');
  return {
    schema,
    adapter: {
      vendor: text(names.vendor, 'adapter.vendor'),
      architecture: text(names.architecture, 'adapter.architecture'),
      device: text(names.device, 'adapter.device'),
      description: text(names.description, 'adapter.description'),
    },
    tuned: checkTuned(tuned),
    gains: gains.map((gain) => {
      const { family, shape, ...numbers } = record(gain, 'a gain');
      const [flops, estimateMs, tunedMs] = ['flops', 'estimateMs', 'tunedMs'].map((name) =>
        number(numbers[name], name),
      );
      return {
        family: family as TunedFamily,
        shape: text(shape, 'shape'),
        flops: flops!,
        estimateMs: estimateMs!,
        tunedMs: tunedMs!,
      };
    }),
  };
}

/** The schedules alone. @throws KontextError `invalid-request` */
export function checkTuned(tuned: unknown): TunedSchedules {
  const families = Object.entries(record(tuned, 'tuned')).map(([family, shapes]) => {
    if (!TUNED_FAMILIES.includes(family as TunedFamily)) {
      throw invalid(`tuned has the family ${JSON.stringify(family.slice(0, 60))}, not of ${TUNED_FAMILIES.join(', ')}`);
    }
    const entries = Object.entries(record(shapes, `tuned.${family}`));
    if (entries.length > MOST_SHAPES) throw invalid(`tuned.${family} has more than ${MOST_SHAPES} shapes`);
    return [
      family,
      Object.fromEntries(entries.map(([key, value]) => [text(key, 'a shape'), schedule(value)])),
    ] as const;
  });
  return Object.fromEntries(families);
}

/** A schedule's fields: numbers, words, switches, or one record of them (a matrix shape). */
function schedule(value: unknown, nested = true): Record<string, unknown> {
  const entries = Object.entries(record(value, 'a schedule'));
  if (entries.length > MOST_FIELDS) throw invalid(`a schedule has more than ${MOST_FIELDS} fields`);
  return Object.fromEntries(
    entries.map(([name, field]) => {
      if (typeof field === 'object' && nested) return [text(name, 'a field'), schedule(field, false)];
      if (typeof field === 'boolean') return [name, field];
      return [text(name, 'a field'), typeof field === 'string' ? text(field, name) : number(field, name)];
    }),
  );
}

function record(value: unknown, what: string): Record<string, unknown> {
  if (typeof value === 'object' && value !== null && !Array.isArray(value)) return value as Record<string, unknown>;
  throw invalid(`${what} is no record`);
}

function text(value: unknown, what: string): string {
  if (typeof value === 'string' && value.length <= LONGEST_TEXT) return value;
  throw invalid(`${what} is no text of at most ${LONGEST_TEXT} letters`);
}

function number(value: unknown, what: string): number {
  if (typeof value === 'number' && Number.isFinite(value)) return value;
  throw invalid(`${what.slice(0, 60)} is no number`);
}

function invalid(problem: string, cause?: unknown): KontextError {
  return new KontextError(
    'invalid-request',
    `This is no profile of kontext tune: ${problem}. Run kontext tune again.`,
    { option: 'profile' },
    cause === undefined ? {} : { cause },
  );
}

/** `target` with what was measured. @throws KontextError `invalid-request` when it was measured on another adapter */
export function tunedTarget(target: TargetProfile, profile: TuningProfile, adapter: TunedAdapter): TargetProfile {
  const names = ['vendor', 'architecture', 'device', 'description'] as const;
  // Browsers leave out what would tell visitors apart.
  const other = names.find(
    (name) => profile.adapter[name] && adapter[name] && !alike(profile.adapter[name], adapter[name]),
  );
  if (other) {
    throw new KontextError(
      'invalid-request',
      `The profile was measured on ${nameOf(profile.adapter)}, and this is ${nameOf(adapter)}. Run kontext tune here, or leave profile out.`,
      { option: 'profile', measuredOn: profile.adapter },
    );
  }
  return { ...target, tuned: profile.tuned };
}

const alike = (a: string, b: string): boolean => a.toLowerCase() === b.toLowerCase();

const nameOf = ({ vendor, architecture, device, description }: TunedAdapter): string =>
  description || [vendor, architecture, device].filter(Boolean).join(' ') || 'an adapter without a name';

/** A provider that compiles for the adapter as it was measured. */
export function tunedPrograms(provider: ProgramProvider, profile: TuningProfile): ProgramProvider {
  return {
    specs: (model) => provider.specs(model),
    program: (request) => provider.program(request),
    async target(device, precision) {
      return tunedTarget(await provider.target(device, precision), profile, device);
    },
  };
}
