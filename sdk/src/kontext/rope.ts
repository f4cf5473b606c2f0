// The table of rotations for rotary positions: three axes (picture index, row, column) over text, target and references.
// Made in float64 once per shape and uploaded: the angles of far columns lose digits in float32.
import type { ImageSize } from './types.ts';

/** A picture's size in patches and the position of its first one. */
export interface Place extends ImageSize {
  /** By itself 0 for the target, 1 and up for references. */
  index?: number;
  /** By itself 0, as `column`. */
  row?: number;
  column?: number;
}

/**
 * Text tokens sit at (0, 0, 0), patches of a picture at (index, row, column), counted from where the picture lies.
 * Pair i of an axis with d values turns by position · theta^(−2i/d).
 *
 * @param axes values of each axis; their sum is the head size
 * @param target in patches of 16×16 pixels
 * @param references in patches
 * @returns f32 `[textTokens + target + references, Σ axes]`: cosine and sine of each pair, alternating
 * @see RoFormer, https://arxiv.org/abs/2104.09864, extended to axes as FLUX does
 */
export function ropeTable(
  axes: readonly number[],
  theta: number,
  textTokens: number,
  target: ImageSize,
  references: readonly Place[],
): Float32Array<ArrayBuffer> {
  const images: Place[] = [target, ...references];
  const headSize = axes.reduce((sum, axis) => sum + axis, 0);
  const tokens = textTokens + images.reduce((sum, { width, height }) => sum + width * height, 0);
  const table = new Float32Array(tokens * headSize);
  let at = 0;
  const frequencies = axes.map((size) => Array.from({ length: size / 2 }, (_, i) => theta ** ((-2 * i) / size)));
  const put = (position: readonly number[]) => {
    frequencies.forEach((ofAxis, axis) => {
      for (const frequency of ofAxis) {
        table[at++] = Math.cos(position[axis]! * frequency);
        table[at++] = Math.sin(position[axis]! * frequency);
      }
    });
  };
  for (let token = 0; token < textTokens; token++) put([0, 0, 0]);
  for (const [i, { width, height, index = i, row: top = 0, column: left = 0 }] of images.entries()) {
    for (let row = 0; row < height; row++) {
      for (let column = 0; column < width; column++) put([index, top + row, left + column]);
    }
  }
  return table;
}
