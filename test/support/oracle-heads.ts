// The float64 norm and rotation of heads: of one, and of q's and k's behind a projection, on random scales and angles.

import type { NormedHeads } from '../../kernels-codegen/src/kernels/normed-heads.ts';
import { encode } from './views.ts';

type At = (row: number, col: number) => number;

/** A random table of angles, not of free numbers, so that the norm of a pair is kept; empty without `rope`. */
export function rotaryTable(rope: NormedHeads['rope'], next: () => number): Float64Array {
  const angles = Float64Array.from({ length: rope ? Math.ceil(rope.length / 2) : 0 }, next);
  return Float64Array.from({ length: rope?.length ?? 0 }, (_, i) =>
    Math.fround(((i - rope!.offset) % 2 === 0 ? Math.cos : Math.sin)(angles[i >> 1]!)),
  );
}

/** Element `i` of a row's head `v`, normalised, scaled and turned. */
export function normedHead(
  { size, eps, rope }: NormedHeads,
  v: readonly number[],
  scale: Float64Array,
  table: Float64Array,
  row: number,
  i: number,
): number {
  const norm = 1 / Math.sqrt(v.reduce((a, b) => a + b * b, 0) / size + eps);
  const normed = (j: number): number => v[j]! * norm * scale[j]!;
  if (!rope) return normed(i);
  const at = rope.offset + row * rope.rowStride + (i & ~1);
  const [a, b] = [normed(i & ~1), normed(i | 1)];
  return i % 2 === 0 ? a * table[at]! - b * table[at + 1]! : a * table[at + 1]! + b * table[at]!;
}

/** @returns the scales of q and of k and the table, as a kernel binds them; and what becomes of a projection's value */
export function randomHeads(spec: NormedHeads, next: () => number) {
  const { heads, size, rope } = spec;
  const scales = [0, 1].map(() => Float64Array.from({ length: size }, () => Math.fround(next())));
  const table = rotaryTable(rope, next);
  const normed =
    (projected: At): At =>
    (row, col) => {
      if (col >= 2 * heads * size) return projected(row, col);
      const i = col % size;
      const head = Array.from({ length: size }, (_, j) => projected(row, col - i + j));
      return normedHead(spec, head, scales[col < heads * size ? 0 : 1]!, table, row, i);
    };
  return { buffers: [...scales, ...(rope ? [table] : [])].map((values) => encode('f32', values)), normed };
}
