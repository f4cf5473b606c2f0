// Which known name was meant by an unknown one: for refusals that say what to write.
// Used for options of requests and loads, for commands, flags and values of choices alike.

/**
 * @returns ` Did you mean steps?` when one of `known` is near enough to be meant, else an empty string
 */
export function didYouMean(given: string, known: readonly string[]): string {
  const near = nearestName(given, known);
  return near === undefined ? '' : ` Did you mean ${near}?`;
}

/** The name of `known` with the fewest edits to `given`, spelling of cases and dashes aside; undefined when none is near. */
export function nearestName(given: string, known: readonly string[]): string | undefined {
  const wanted = plain(given);
  let best: string | undefined;
  let least = Number.POSITIVE_INFINITY;
  for (const name of known) {
    const distance = editDistance(wanted, plain(name));
    // A third of the letters wrong is a typing mistake; more is another word.
    if (distance < least && distance <= Math.max(wanted.length, plain(name).length) / 3)
      [best, least] = [name, distance];
  }
  return best;
}

const plain = (name: string): string => name.toLowerCase().replaceAll(/[^a-z0-9]/g, '');

/** Insertions, deletions, replacements and swaps of neighbours between two words (optimal string alignment). */
function editDistance(a: string, b: string): number {
  let [before, previous] = [[] as number[], Array.from({ length: b.length + 1 }, (_, j) => j)];
  for (let i = 1; i <= a.length; i++) {
    const row = [i];
    for (let j = 1; j <= b.length; j++) {
      const same = a[i - 1] === b[j - 1];
      let cost = Math.min(previous[j]! + 1, row[j - 1]! + 1, previous[j - 1]! + (same ? 0 : 1));
      if (i > 1 && j > 1 && a[i - 1] === b[j - 2] && a[i - 2] === b[j - 1]) cost = Math.min(cost, before[j - 2]! + 1);
      row.push(cost);
    }
    [before, previous] = [previous, row];
  }
  return previous[b.length]!;
}
