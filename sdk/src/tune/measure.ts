// Measures one shape: which of its schedules is the fastest on this adapter, if any beats the estimate's.
// A candidate that gives another result than the plain kernel cannot win, however fast it is.
import type { TargetProfile } from '../../../kernels-codegen/src/targets/types.ts';
import {
  type Candidate,
  candidatesOf,
  plainKernel,
  type TunableShape,
  toleranceOf,
} from '../../../kernels-codegen/src/tune/shapes.ts';
import { KontextError } from '../../../runtime/src/errors.ts';
import type { KontextDevice } from '../../../runtime/src/gpu/device.ts';
import { type Bound, distance, ShapeBench } from './bench.ts';

/** One sample lasts at least this many milliseconds, unless a single run does. */
const SAMPLE_MS = 20;
/** Alternating rounds for a first look, and to confirm what looks faster. */
const [FIRST_ROUNDS, ROUNDS] = [3, 9];
/** A winner must take at most this share of the estimate's time, in the median of alternating rounds. */
const WORTH = 0.95;
/** Compiling a candidate may take this many milliseconds, or three times what the estimate's choice takes. */
const SLOW_COMPILE_MS = 1000;

export interface ShapeResult {
  shape: TunableShape;
  /** Milliseconds of the estimate's choice. */
  estimateMs: number;
  /** What beat it; absent when nothing did. */
  best?: { schedule: Candidate['schedule']; label: string; milliseconds: number };
  /** How many candidates were run, and how many of them gave a wrong result or were refused by the driver. */
  tried: number;
  refused: number;
}

export interface MeasureOptions {
  target: TargetProfile;
  /** Milliseconds for candidates, after the estimate's choice is ready; at least one is measured. */
  budgetMs: number;
  /** Awaited before each candidate: whoever measures in idle time waits there. May throw to stop. */
  pause?(): Promise<void>;
}

/**
 * @throws KontextError `out-of-memory`, `device-lost`; `gpu-validation` when the estimate's own kernel is wrong on this adapter
 */
export async function measureShape(
  gpu: KontextDevice,
  shape: TunableShape,
  { target, budgetMs, pause }: MeasureOptions,
): Promise<ShapeResult> {
  const bench = await ShapeBench.create(gpu, shape);
  try {
    const [estimate, ...others] = candidatesOf(shape, target);
    const plain = (await bench.result(await bench.bind(plainKernel(shape, target)))).first;
    const compiling = performance.now();
    const base = await bench.bind(estimate.kernel());
    const patience = Math.max(SLOW_COMPILE_MS, 3 * (performance.now() - compiling));
    const expected = await bench.result(base);
    const bound = toleranceOf(shape);
    if (distance(expected.first, plain) > bound) {
      throw new KontextError(
        'gpu-validation',
        `The kernel "${base.source.label}" gives a wrong result on this adapter, by ${distance(expected.first, plain).toExponential(1)} of its size. ` +
          'Update the driver, and report it with what kontext doctor prints.',
        { label: base.source.label },
      );
    }
    const single = await bench.time(base, 1);
    const times = Math.max(1, Math.min(64, Math.ceil(SAMPLE_MS / single)));
    const compare = (a: Bound, b: Bound, rounds: number) => ratio(bench, a, b, times, rounds);
    let [best, bestCandidate]: [Bound, Candidate] = [base, estimate];
    let [tried, refused, spentMs] = [0, 0, 0];
    for (const candidate of others) {
      if (tried > 0 && spentMs >= budgetMs) break;
      await pause?.();
      tried++;
      const started = performance.now();
      const next = await attempt(bench, candidate);
      // A driver may compile on the first run, not before it.
      const result = next && (await bench.result(next));
      const right = result && distance(result.first, plain) <= bound && distance(result.last, expected.last) <= bound;
      if (!right) refused++;
      const patient = performance.now() - started <= patience + 3 * single;
      if (right && patient && (await compare(next, best, FIRST_ROUNDS)).ratio < WORTH) {
        if ((await compare(next, best, ROUNDS)).ratio < WORTH) [best, bestCandidate] = [next, candidate];
      }
      spentMs += performance.now() - started;
    }
    if (best === base) return { shape, estimateMs: single, tried, refused };
    const last = await compare(best, base, ROUNDS);
    // On a busy machine the median of ratios and the ratio of medians may disagree: then nothing is known to be faster.
    return {
      shape,
      estimateMs: last.second,
      ...(last.ratio < WORTH &&
        last.first < last.second && {
          best: { schedule: bestCandidate.schedule, label: best.source.label, milliseconds: last.first },
        }),
      tried,
      refused,
    };
  } finally {
    bench.dispose();
  }
}

/** Undefined when the driver refuses the kernel, or it cannot be made. */
async function attempt(bench: ShapeBench, candidate: Candidate): Promise<Bound | undefined> {
  try {
    return await bench.bind(candidate.kernel());
  } catch (error) {
    const { code } = error as KontextError;
    if (code === 'gpu-validation' || code === 'limit-too-small' || code === 'program-invalid') return undefined;
    throw error;
  }
}

/** Both in turns, so that what else the machine does is in both: the median of their ratios, and each one's median. */
async function ratio(
  bench: ShapeBench,
  a: Bound,
  b: Bound,
  times: number,
  rounds: number,
): Promise<{ ratio: number; first: number; second: number }> {
  const [first, second]: [number[], number[]] = [[], []];
  for (let round = 0; round < rounds; round++) {
    // Whoever runs second finds the caches warm: they take turns in that too.
    for (const one of round % 2 ? [a, b] : [b, a]) (one === a ? first : second).push(await bench.time(one, times));
  }
  return { ratio: median(first.map((t, i) => t / second[i]!)), first: median(first), second: median(second) };
}

function median(list: readonly number[]): number {
  const sorted = [...list].sort((a, b) => a - b);
  return (sorted[(sorted.length - 1) >> 1]! + sorted[sorted.length >> 1]!) / 2;
}
