// Refuses options nobody knows, in one manner for requests, loads and what they hold: an ignored option is a lost evening.
import { KontextError } from '../../../runtime/src/errors.ts';
import { didYouMean } from './nearest.ts';

/**
 * @param where what takes the options, named in the refusal: `Kontext.load`, `device`
 * @throws KontextError `invalid-request` naming the first key of `given` that is not in `known`, and the nearest one that is
 */
export function refuseUnknown(given: object, known: readonly string[], where?: string): void {
  if (typeof given !== 'object' || given === null) {
    throw new KontextError('invalid-request', `${where ?? 'The request'} takes an object of options.`);
  }
  for (const key of Object.keys(given)) {
    if (known.includes(key)) continue;
    const hint = didYouMean(key, known) || ` Known options: ${known.join(', ')}.`;
    throw new KontextError('invalid-request', `Unknown option ${key}${where ? ` of ${where}` : ''}.${hint}`, {
      option: key,
    });
  }
}

/** Names of all options of a type, in the order written; the compiler holds that none is missing. */
export function namesOf<T>(names: Record<keyof T, true>): readonly string[] {
  return Object.keys(names);
}
