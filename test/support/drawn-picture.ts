// Pictures by formula.
import type { PixelImage } from '../../sdk/src/image/pixels.ts';

/** Grey and opaque. @param at the level of a pixel, called row by row */
export const drawnPicture = (width: number, height: number, at: (x: number, y: number) => number): PixelImage => ({
  width,
  height,
  data: Uint8ClampedArray.from({ length: 4 * width * height }, (_, i) =>
    i % 4 === 3 ? 255 : at((i >> 2) % width, Math.floor((i >> 2) / width)),
  ),
});
