// The float64 norm and rotation of q's and k's heads behind a projection, on random scales and angles.

import type { NormedHeads } from '../../kernels-codegen/src/kernels/matmul/spec.ts';
import { encode } from './views.ts';

type At = (row: number, col: number) => number;

/** @returns the scales of q and of k and the table, as a kernel binds them; and what becomes of a projection's value */
export function randomHeads({ heads, size, eps, rope }: NormedHeads, next: () => number) {
  const scales = [0, 1].map(() => Float64Array.from({ length: size }, () => Math.fround(next())));
  // Angles, not free numbers, so that the norm of a pair is kept.
  const angles = Float64Array.from({ length: rope ? Math.ceil(rope.length / 2) : 0 }, next);
  const table = Float64Array.from({ length: rope?.length ?? 0 }, (_, i) =>
    Math.fround(((i - rope!.offset) % 2 === 0 ? Math.cos : Math.sin)(angles[i >> 1]!)),
  );
  const head = (projected: At, row: number, first: number): number[] => {
    const v = Array.from({ length: size }, (_, i) => projected(row, first + i));
    const norm = 1 / Math.sqrt(v.reduce((a, b) => a + b * b, 0) / size + eps);
    return v.map((value, i) => value * norm * scales[first < heads * size ? 0 : 1]![i]!);
  };
  const normed =
    (projected: At): At =>
    (row, col) => {
      if (col >= 2 * heads * size) return projected(row, col);
      const i = col % size;
      const v = head(projected, row, col - i);
      if (!rope) return v[i]!;
      const at = rope.offset + row * rope.rowStride + (i & ~1);
      const [a, b] = [v[i & ~1]!, v[i | 1]!];
      return i % 2 === 0 ? a * table[at]! - b * table[at + 1]! : a * table[at + 1]! + b * table[at]!;
    };
  return { buffers: [...scales, ...(rope ? [table] : [])].map((values) => encode('f32', values)), normed };
}
