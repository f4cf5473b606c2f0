// The table of rotations for rotary positions: three axes (picture index, row, column) over text, target and references.
// Made in float64 once per shape and uploaded: the angles of far columns lose digits in float32.
import type { ImageSize } from './types.ts';

/**
 * Text tokens sit at (0, 0, 0), target patches at (0, row, column), patches of reference r at (1 + r, row, column).
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
  references: readonly ImageSize[],
): Float32Array<ArrayBuffer> {
  const headSize = axes.reduce((sum, axis) => sum + axis, 0);
  const images = [target, ...references];
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
  images.forEach(({ width, height }, index) => {
    for (let row = 0; row < height; row++) for (let column = 0; column < width; column++) put([index, row, column]);
  });
  return table;
}
