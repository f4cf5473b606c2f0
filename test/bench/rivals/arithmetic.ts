// What a work is written in: the few operations of FLUX-shaped networks on matrices, carried out by whoever implements them.
// One text of a work then gives the float64 result, the ONNX graph and what the array libraries run.

import type { Tensor, Work } from './works.ts';

/** All values are matrices `[rows, columns]`, but the images of {@link Arithmetic.convolve}. No operation changes its operands. */
export interface Arithmetic<T> {
  /** x · Wᵀ + b with `name.weight` `[out, in]` and, where the work has it, `name.bias`. */
  linear(x: T, name: string): T;
  /** Each row to mean 0 and variance 1, with 1e-6 added to the variance. */
  normalise(x: T): T;
  /** (1 + scale) · x + shift; scale and shift are rows. */
  modulate(x: T, scale: T, shift: T): T;
  /** x + gate · y; gate is a row. */
  gated(x: T, gate: T, y: T): T;
  /** GELU in its tanh form. */
  gelu(x: T): T;
  rows(x: T, first: number, count: number): T;
  columns(x: T, first: number, count: number): T;
  below(a: T, b: T): T;
  beside(a: T, b: T): T;
  /** Each head to root mean square 1, times the vector `scale`, neighbours turned by `rope` (cosine and sine alternating). */
  headNorm(x: T, scale: string, rope: T, heads: number): T;
  /** softmax(q · kᵀ / √size) · v in each head. */
  attend(q: T, k: T, v: T, heads: number): T;
  /** 3×3, stride 1, one pixel of zeros around; `name.weight` is `[out, 3 · 3 · in]`, channels last. */
  convolve(x: T, name: string): T;
}

/** A weight by name. */
export function weightOf(work: Work, name: string): Tensor {
  const found = work.weights[name];
  if (!found) throw new Error(`${work.name} has no weight ${name}`);
  return found;
}

/** `[rows, columns]` → `[columns, rows]`: also an image from channels last to channels first, and back with swapped counts. */
export function transposed(data: Float32Array, rows: number, columns: number): Float32Array<ArrayBuffer> {
  const out = new Float32Array(data.length);
  for (let r = 0; r < rows; r++) for (let c = 0; c < columns; c++) out[c * rows + r] = data[r * columns + c]!;
  return out;
}

/** A 3×3 filter `[out, 3, 3, in]` with its channels before the taps, `[out, in, 3, 3]`. */
export function channelsFirst({ rows, columns, data }: Tensor): Float32Array<ArrayBuffer> {
  const channels = columns / 9;
  const out = new Float32Array(data.length);
  for (let r = 0; r < rows; r++) {
    out.set(transposed(data.subarray(r * columns, (r + 1) * columns), 9, channels), r * columns);
  }
  return out;
}
