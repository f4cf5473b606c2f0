// Changes that are no product of thin factors, added row by row: whole differences, Kronecker products, biases and norms.
// A row of a Kronecker product is one row of each factor, so the whole matrix never exists.

import type { WeightSource } from '../source.ts';
import { product } from './factors.ts';
import type { Share } from './stack.ts';
import type { KroneckerFactor } from './types.ts';
import { readValues } from './values.ts';

/** Adds scale · factor · ΔW to rows `[first, end)` of its tensor. @param values those rows, row-major */
export async function addDense(
  values: Float32Array,
  { adapter, update, scale }: Share,
  [first, end]: readonly [number, number],
  cols: number,
  signal?: AbortSignal,
): Promise<void> {
  const strength = scale * update.factor;
  const count = update.rows[1] - update.rows[0];
  const rowOf = await rowReader(adapter.source, update.stored, cols, signal);
  const [from, until] = [Math.max(first, update.rows[0]), Math.min(end, update.rows[1])];
  for (let row = from; row < until; row++) {
    const n = row - update.rows[0];
    rowOf(update.swapHalves ? (n + count / 2) % count : n, (col, value) => {
      values[(row - first) * cols + col]! += strength * value;
    });
  }
}

type RowReader = (row: number, add: (col: number, value: number) => void) => void;

async function rowReader(
  source: WeightSource,
  stored: Share['update']['stored'],
  cols: number,
  signal: AbortSignal | undefined,
): Promise<RowReader> {
  if (stored.kind === 'difference') {
    const delta = await readValues(source, stored.tensor, signal);
    return (row, add) => {
      for (let k = 0; k < cols; k++) add(k, delta[row * cols + k]!);
    };
  }
  if (stored.kind !== 'lokr') throw new Error(`a ${stored.kind} update is added by its factors`);
  const [w1, w2] = [await whole(source, stored.w1, signal), await whole(source, stored.w2, signal)];
  return (row, add) => {
    const [i, p] = [Math.floor(row / w2.rows), row % w2.rows];
    for (let j = 0; j < w1.cols; j++) {
      const left = w1.values[i * w1.cols + j]!;
      for (let q = 0; q < w2.cols; q++) add(j * w2.cols + q, left * w2.values[p * w2.cols + q]!);
    }
  };
}

async function whole(
  source: WeightSource,
  factor: KroneckerFactor,
  signal: AbortSignal | undefined,
): Promise<{ values: Float32Array; rows: number; cols: number }> {
  const shapeOf = (key: string): readonly number[] => source.tensors.get(key)!.shape;
  if ('whole' in factor) {
    const [rows = 1, cols = 1] = shapeOf(factor.whole);
    return { values: await readValues(source, factor.whole, signal), rows, cols };
  }
  const [rows = 1, rank = 1] = shapeOf(factor.a);
  const cols = shapeOf(factor.b)[1] ?? 1;
  const [a, b] = [await readValues(source, factor.a, signal), await readValues(source, factor.b, signal)];
  return { values: product(a, b, rows, rank, cols), rows, cols };
}
