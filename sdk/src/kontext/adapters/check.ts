// Checks the adapters that a load or a request names, before any file is opened.
import { KontextError } from '../../../../runtime/src/errors.ts';
import type { FileInput } from '../../model/files.ts';
import { namesOf, refuseUnknown } from '../known-options.ts';
import type { AdapterOptions, AdapterScale } from '../types.ts';

/** One adapter with its defaults filled in; a name, a source, or both. */
export interface CheckedAdapter {
  name: string | undefined;
  source: FileInput | undefined;
  scale: AdapterScale;
  strict: boolean;
}

/** Strengths beyond this are typing errors: trainers speak of 0 to 2. */
export const MAX_SCALE = 10;

const KEYS = namesOf<AdapterOptions>({ name: true, source: true, scale: true, strict: true });

/**
 * @param where what takes the list, named in the refusal
 * @throws KontextError `invalid-request`
 */
export function checkAdapters(given: unknown, where: 'Kontext.load' | 'the request'): CheckedAdapter[] {
  if (given === undefined) return [];
  if (!Array.isArray(given))
    throw invalid(`adapters of ${where} must be a list, as [{ source: 'style.safetensors' }].`);
  return given.map((one: AdapterOptions, i) => {
    const at = `adapters[${i}]`;
    refuseUnknown(one, KEYS, at);
    const { name, source, scale = 1, strict = true } = one;
    if (name !== undefined && (typeof name !== 'string' || name === '')) throw invalid(`${at}.name must be a word.`);
    if (source === undefined || source === null || source === '') {
      if (where === 'Kontext.load') throw invalid(`${at} has no source: the adapter's file, its URL or its bytes.`);
      if (name === undefined) throw invalid(`${at} has neither name nor source.`);
    }
    if (typeof strict !== 'boolean') throw invalid(`${at}.strict must be true or false.`);
    return { name: name ?? nameOf(source, i), source: source ?? undefined, scale: checkScale(scale, at), strict };
  });
}

/** A number, or numbers by patterns. @param at named in the refusal */
export function checkScale(scale: unknown, at: string): AdapterScale {
  const fits = (value: unknown): boolean => typeof value === 'number' && Math.abs(value) <= MAX_SCALE;
  if (fits(scale)) return scale as number;
  if (typeof scale === 'object' && scale !== null && !Array.isArray(scale)) {
    const wrong = Object.entries(scale).find(([, value]) => !fits(value));
    if (!wrong) return { ...(scale as Record<string, number>) };
    throw invalid(
      `${at}.scale of "${wrong[0]}" is ${String(wrong[1])}; it must be a number from −${MAX_SCALE} to ${MAX_SCALE}.`,
    );
  }
  throw invalid(
    `${at}.scale is ${JSON.stringify(scale)}; it must be a number from −${MAX_SCALE} to ${MAX_SCALE}, or numbers by module as { "single_blocks.*": 0.5 }.`,
  );
}

/** A file's name without folder and ending; a number for what has none. */
function nameOf(source: FileInput | undefined, index: number): string {
  const place = typeof source === 'object' && 'name' in source ? String(source.name) : source;
  const isPlace = typeof place === 'string' || place instanceof URL;
  const file = isPlace
    ? String(place)
        .replace(/[?#].*$/, '')
        .split(/[\\/:]/)
        .at(-1)!
    : '';
  return file.replace(/\.safetensors$/, '') || `adapter ${index + 1}`;
}

const invalid = (message: string): KontextError => new KontextError('invalid-request', message, { option: 'adapters' });
