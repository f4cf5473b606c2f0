// Outpainting: a larger canvas around the picture, new parts to be made, the old pixels to be kept bit for bit.
// The new parts begin as the picture's own edge continued, which tells the model where lines and colours go on.
import { KontextError } from '../../../../runtime/src/errors.ts';
import type { PixelImage } from '../../image/pixels.ts';
import { MAX_INPUT_SIDE } from '../options.ts';
import type { Sides } from '../types.ts';
import { checkMaskSize } from './mask.ts';

/**
 * @param picture with its alpha and 16 bits, which are kept
 * @param mask of the picture's size; what it allows to change may change too
 * @returns the canvas, and a mask of its size that is white on the new parts
 * @throws KontextError `invalid-request` for a mask of another size, and when the canvas would be too large
 */
export function expanded(
  picture: PixelImage,
  mask: PixelImage | undefined,
  sides: Required<Sides>,
): { canvas: PixelImage; mask: PixelImage } {
  if (mask) checkMaskSize(mask, picture);
  const width = sides.left + picture.width + sides.right;
  const height = sides.top + picture.height + sides.bottom;
  if (Math.max(width, height) > MAX_INPUT_SIDE) {
    throw new KontextError(
      'invalid-request',
      `The expanded picture would be ${width}×${height}; sides go up to ${MAX_INPUT_SIDE}. Expand by less.`,
      { width, height },
    );
  }
  const data = new Uint8ClampedArray(4 * width * height);
  const data16 = picture.data16 && new Uint16Array(4 * width * height);
  const white = new Uint8ClampedArray(4 * width * height).fill(255);
  for (let y = 0; y < height; y++) {
    const row = Math.max(0, Math.min(picture.height - 1, y - sides.top));
    for (let x = 0; x < width; x++) {
      const column = Math.max(0, Math.min(picture.width - 1, x - sides.left));
      const [to, from] = [4 * (y * width + x), 4 * (row * picture.width + column)];
      for (let c = 0; c < 4; c++) {
        data[to + c] = picture.data[from + c]!;
        if (data16) data16[to + c] = picture.data16![from + c]!;
      }
      if (row !== y - sides.top || column !== x - sides.left) continue;
      for (let c = 0; c < 3; c++) white[to + c] = mask?.data[from + c] ?? 0;
    }
  }
  return { canvas: { width, height, data, ...(data16 && { data16 }) }, mask: { width, height, data: white } };
}
