// Says which tensors lie in a damaged piece of a file: users know names, not offsets.
import { KontextError } from '../../errors.ts';

/** Where a tensor is in its file. */
export interface Placed {
  name: string;
  offset: number;
  bytes: number;
}

/** Names in messages before they become a number. */
const NAMES_SHOWN = 3;

/** `error` itself, or when it tells of a damaged piece, one that names the tensors in it, the one being read first. */
export function nameDamage(error: unknown, tensors: Iterable<Placed>, reading: string): unknown {
  if (!(error instanceof KontextError) || error.details.damaged !== true || error.details.tensor) return error;
  const { offset, end, file } = error.details as { offset: number; end: number; file: string };
  const hit = tensorsBetween(tensors, offset, end);
  const names = [reading, ...hit.filter((name) => name !== reading)];
  return new KontextError(
    'weights-invalid',
    `${file} is damaged between byte ${offset} and ${end}, where ${listed(names)} lie${names.length === 1 ? 's' : ''}: ` +
      'its SHA-256 is not the lock’s. Get the file again.',
    { ...error.details, tensor: reading, tensors: names },
    { cause: error },
  );
}

/** Names of the tensors with a byte in `[start, end)`. */
export function tensorsBetween(tensors: Iterable<Placed>, start: number, end: number): string[] {
  return [...tensors]
    .filter(({ offset, bytes }) => bytes > 0 && offset < end && offset + bytes > start)
    .map(({ name }) => name);
}

/** "a", "a" and "b", or three of them and how many more. */
export function listed(names: readonly string[]): string {
  const shown = names.slice(0, NAMES_SHOWN).map((name) => `"${name}"`);
  const more = names.length - shown.length;
  return more > 0 ? `${shown.join(', ')} and ${more} more` : shown.join(' and ');
}
