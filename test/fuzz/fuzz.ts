// Runs changed inputs through the readers and counts what became of them; a thrown error of another kind is a loss.
import { KontextError } from '../../runtime/src/errors.ts';
import { type Fuzzed, inputs } from './inputs/index.ts';
import { randomOf } from './mutate.ts';

export interface Loss {
  target: string;
  /** Gives this input again: `npm run fuzz -- --only TARGET --input N`. */
  input: number;
  what: string;
}

export interface Tally {
  target: string;
  tried: number;
  /** Taken, although changed: the change did not matter, or made another sound input. */
  taken: number;
  refused: number;
  losses: Loss[];
}

/** Of processor time; an input that takes longer is a loss too: it would hold a server. */
const SLOW_MS = 1000;

/** Inputs `[first, first + count)` of a seed for every reader, or those whose names hold `only`. */
export async function fuzz(
  seed: number,
  count: number,
  { only = '', first = 0, onTally }: { only?: string; first?: number; onTally?: (tally: Tally) => void } = {},
): Promise<Tally[]> {
  const tallies: Tally[] = [];
  for (const target of (await inputs()).filter(({ name }) => name.includes(only))) {
    const tally: Tally = { target: target.name, tried: 0, taken: 0, refused: 0, losses: [] };
    for (let input = first; input < first + count; input++) await tryOne(target, seed, input, tally);
    tallies.push(tally);
    onTally?.(tally);
  }
  return tallies;
}

async function tryOne(target: Fuzzed, seed: number, input: number, tally: Tally): Promise<void> {
  const started = process.cpuUsage();
  let what: string | undefined;
  tally.tried++;
  try {
    const answer = target.run(randomOf(seed ^ Math.imul(input + 1, 0x9e3779b1)));
    // Most readers are synchronous; waiting for each of millions would take most of the time.
    if (answer instanceof Promise) await answer;
    tally.taken++;
  } catch (error) {
    if (error instanceof KontextError && error.code !== 'internal') tally.refused++;
    else what = error instanceof Error ? (error.stack ?? error.message) : String(error);
  }
  const { user, system } = process.cpuUsage(started);
  const took = (user + system) / 1000;
  if (took > SLOW_MS) what ??= `took ${took.toFixed(0)} ms`;
  if (what !== undefined) tally.losses.push({ target: target.name, input, what });
}
