// Several adapters' factors of one layer side by side: one skinny product serves them all.
// The factors are scaled to a largest value of one, by powers of two, so that 16-bit storage loses no small ones.

import { readFactors } from './factors.ts';
import type { Adapter, AdapterUpdate } from './types.ts';

/** One adapter's update with the strength it is used at. */
export interface Share {
  adapter: Adapter;
  update: AdapterUpdate;
  scale: number;
}

/** ΔW = Σ_r up[:, r] · scale[r] · down[r, :]. */
export interface Stack {
  /** `[rows, rank]` */
  up: Float32Array<ArrayBuffer>;
  /** `[rank, cols]` */
  down: Float32Array<ArrayBuffer>;
  /** `[rank]`, without the shares' own scales. */
  unit: Float32Array<ArrayBuffer>;
}

/** Columns of `up` that the shares take together. */
export const stackedRank = (shares: readonly Pick<Share, 'update'>[]): number =>
  shares.reduce((sum, { update }) => sum + update.rank, 0);

/**
 * @param rows of the layer's matrix: an update of some of its rows leaves the others' columns of `up` zero
 * @param rank at least {@link stackedRank}; what is left over is zero
 */
export async function stackFactors(
  shares: readonly Share[],
  rows: number,
  cols: number,
  rank: number,
  signal?: AbortSignal,
): Promise<Stack> {
  const stack: Stack = {
    up: new Float32Array(rows * rank),
    down: new Float32Array(rank * cols),
    unit: new Float32Array(rank),
  };
  let at = 0;
  for (const { adapter, update } of shares) {
    const factors = await readFactors(adapter.source, update, signal);
    const count = update.rows[1] - update.rows[0];
    for (let r = 0; r < factors.rank; r++) {
      let [largestUp, largestDown] = [0, 0];
      for (let n = 0; n < count; n++) largestUp = Math.max(largestUp, Math.abs(factors.up[n * factors.rank + r]!));
      for (let k = 0; k < cols; k++) largestDown = Math.max(largestDown, Math.abs(factors.down[r * cols + k]!));
      const [unitUp, unitDown] = [powerOfTwo(largestUp), powerOfTwo(largestDown)];
      for (let n = 0; n < count; n++) {
        const from = update.swapHalves ? (n + count / 2) % count : n;
        stack.up[(update.rows[0] + n) * rank + at] = factors.up[from * factors.rank + r]! / unitUp;
      }
      for (let k = 0; k < cols; k++) stack.down[at * cols + k] = factors.down[r * cols + k]! / unitDown;
      stack.unit[at++] = update.factor * unitUp * unitDown;
    }
  }
  return stack;
}

/** The scales of a stack at the shares' strengths: `unit` times each share's scale, over its ranks. */
export function scalesOf(shares: readonly Share[], unit: ArrayLike<number>): Float32Array<ArrayBuffer> {
  const scales = new Float32Array(unit.length);
  let at = 0;
  for (const { update, scale } of shares) {
    for (const end = at + update.rank; at < end; at++) scales[at] = unit[at]! * scale;
  }
  return scales;
}

const powerOfTwo = (value: number): number => (value === 0 ? 1 : 2 ** Math.ceil(Math.log2(value)));
