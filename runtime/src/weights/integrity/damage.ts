// Says which tensors lie in a damaged piece of a file: users know names, not offsets.

/** Where a tensor is in its file. */
export interface Placed {
  name: string;
  offset: number;
  bytes: number;
}

/** Names in messages before they become a number. */
const NAMES_SHOWN = 3;

/** Names of the tensors with a byte in `[start, end)`. */
export function tensorsBetween(tensors: Iterable<Placed>, start: number, end: number): string[] {
  return [...tensors]
    .filter(({ offset, bytes }) => bytes > 0 && offset < end && offset + bytes > start)
    .map(({ name }) => name);
}

/** `, where "a" and "b" lie`; empty without names. */
export function whereTheyLie(names: readonly string[]): string {
  if (names.length === 0) return '';
  const shown = names.slice(0, NAMES_SHOWN).map((name) => `"${name}"`);
  const more = names.length - shown.length;
  const list = more > 0 ? `${shown.join(', ')} and ${more} more` : shown.join(' and ');
  return `, where ${list} lie${names.length === 1 ? 's' : ''}`;
}
