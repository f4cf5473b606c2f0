// A change of a matrix as two factors, ΔW = up · down, whatever the file stores: exactly, by algebra, never by approximation.
// LoHa is of rank r₁·r₂ by the Khatri-Rao product, LoKr of the product of its factors' ranks by the mixed-product rule.

import type { WeightSource } from '../source.ts';
import type { AdapterUpdate, KroneckerFactor } from './types.ts';
import { readValues } from './values.ts';

/** `up` is `[rows, rank]`, `down` `[rank, cols]`, row-major; the update's own factor is not in them. */
export interface Factors {
  up: Float32Array;
  down: Float32Array;
  rank: number;
}

/**
 * True when the product of an update's factors is cheaper than half of the matrix itself: such an update runs beside the
 * layer. What trainers give as low-rank factors always does; whole differences, and Kronecker products of whole matrices, do not.
 */
export function runsBeside({ stored, rank, rows, cols }: AdapterUpdate): boolean {
  if (stored.kind === 'low-rank') return true;
  if (stored.kind === 'difference') return false;
  const count = rows[1] - rows[0];
  return 2 * rank * (count + cols) <= count * cols;
}

/** @throws KontextError `weights-invalid` for a value that is no finite number */
export async function readFactors(source: WeightSource, update: AdapterUpdate, signal?: AbortSignal): Promise<Factors> {
  const read = (key: string) => readValues(source, key, signal);
  const { stored, cols } = update;
  const rows = update.rows[1] - update.rows[0];
  switch (stored.kind) {
    case 'low-rank':
      return { up: await read(stored.up), down: await read(stored.down), rank: update.rank };
    case 'loha': {
      const [a1, b1, a2, b2] = await Promise.all([stored.w1a, stored.w1b, stored.w2a, stored.w2b].map(read));
      const [r1, r2] = [a1!.length / rows, a2!.length / rows];
      const up = new Float32Array(rows * r1 * r2);
      for (let n = 0; n < rows; n++) {
        for (let i = 0; i < r1; i++) {
          for (let j = 0; j < r2; j++) up[n * r1 * r2 + i * r2 + j] = a1![n * r1 + i]! * a2![n * r2 + j]!;
        }
      }
      const down = new Float32Array(r1 * r2 * cols);
      for (let i = 0; i < r1; i++) {
        for (let j = 0; j < r2; j++) {
          for (let k = 0; k < cols; k++) down[(i * r2 + j) * cols + k] = b1![i * cols + k]! * b2![j * cols + k]!;
        }
      }
      return { up, down, rank: r1 * r2 };
    }
    case 'lokr': {
      const [one, two] = [await split(source, stored.w1, signal), await split(source, stored.w2, signal)];
      return {
        up: kronecker(one.up, one.rank, two.up, two.rank),
        down: kronecker(one.down, one.cols, two.down, two.cols),
        rank: one.rank * two.rank,
      };
    }
    case 'difference': {
      // ΔW · I.
      const down = new Float32Array(cols * cols);
      for (let k = 0; k < cols; k++) down[k * cols + k] = 1;
      return { up: await read(stored.tensor), down, rank: cols };
    }
    default:
      throw stored satisfies never;
  }
}

/** A Kronecker factor as `up · down` of the least rank that its shape shows. */
async function split(
  source: WeightSource,
  factor: KroneckerFactor,
  signal: AbortSignal | undefined,
): Promise<Factors & { cols: number }> {
  const sizes = (key: string): [number, number] => {
    const [n = 1, k = 1] = source.tensors.get(key)!.shape;
    return [n, k];
  };
  const eye = (n: number) => Float32Array.from({ length: n * n }, (_, i) => Number(i % (n + 1) === 0));
  let whole: Float32Array;
  let shape: [number, number];
  if ('whole' in factor) {
    whole = await readValues(source, factor.whole, signal);
    shape = sizes(factor.whole);
  } else {
    const [a, b] = [await readValues(source, factor.a, signal), await readValues(source, factor.b, signal)];
    const [rows, rank] = sizes(factor.a);
    const cols = sizes(factor.b)[1];
    if (rank <= Math.min(rows, cols)) return { up: a, down: b, rank, cols };
    shape = [rows, cols];
    whole = product(a, b, rows, rank, cols);
  }
  const [rows, cols] = shape;
  return rows <= cols
    ? { up: eye(rows), down: whole, rank: rows, cols }
    : { up: whole, down: eye(cols), rank: cols, cols };
}

/** `a[rows, rank] · b[rank, cols]`, sums in float64. */
export function product(
  a: ArrayLike<number>,
  b: ArrayLike<number>,
  rows: number,
  rank: number,
  cols: number,
): Float32Array<ArrayBuffer> {
  const out = new Float32Array(rows * cols);
  for (let n = 0; n < rows; n++) {
    for (let k = 0; k < cols; k++) {
      let sum = 0;
      for (let r = 0; r < rank; r++) sum += a[n * rank + r]! * b[r * cols + k]!;
      out[n * cols + k] = sum;
    }
  }
  return out;
}

/** `a ⊗ b` of row-major matrices with `aCols` and `bCols` columns. */
export function kronecker(a: Float32Array, aCols: number, b: Float32Array, bCols: number): Float32Array<ArrayBuffer> {
  const [aRows, bRows] = [a.length / aCols, b.length / bCols];
  const cols = aCols * bCols;
  const out = new Float32Array(aRows * bRows * cols);
  for (let i = 0; i < aRows; i++) {
    for (let j = 0; j < aCols; j++) {
      const scale = a[i * aCols + j]!;
      if (scale === 0) continue;
      for (let p = 0; p < bRows; p++) {
        const to = (i * bRows + p) * cols + j * bCols;
        for (let q = 0; q < bCols; q++) out[to + q] = scale * b[p * bCols + q]!;
      }
    }
  }
  return out;
}
