// What normalising and rotating heads means, in a pass of its own (`head-norm.ts`) and at the end of a projection (`matmul/heads.ts`).

/** RMS norm of heads with a scale, then the rotation of neighbouring pairs. */
export interface NormedHeads {
  heads: number;
  /** Head size; even, because rotary embedding turns pairs. */
  size: number;
  eps: number;
  /** f32 table `[rows, size]`: element `[row, 2i]` is the cosine and `[row, 2i + 1]` the sine of pair i. */
  rope?: { offset: number; rowStride: number /** elements of the binding */; length: number };
}

/** WGSL of the normalised values `n`, one pair or two, turned by those of the table, `t`. */
export const rotated = (unit: 2 | 4): string =>
  unit === 4
    ? 'vec4<f32>(n.x * t.x - n.y * t.y, n.x * t.y + n.y * t.x, n.z * t.z - n.w * t.w, n.z * t.w + n.w * t.z)'
    : 'vec2<f32>(n.x * t.x - n.y * t.y, n.x * t.y + n.y * t.x)';

/** Why the rotary table cannot serve so many rows; undefined when it can, or there is none. */
export function tableProblem({ size, rope }: NormedHeads, rows: number): string | undefined {
  if (!rope || rope.length >= rope.offset + (rows - 1) * rope.rowStride + size) return undefined;
  return `the rotary table has ${rope.length} elements, too few for ${rows} rows of ${size}`;
}

/** Operations on `elements` values. */
export const headNormFlops = ({ rope }: NormedHeads, elements: number): number => elements * (rope ? 7 : 4);
