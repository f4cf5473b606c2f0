// Several pictures as one reference: laid side by side at one height (or above each other at one width), none squeezed.
import type { Host } from '../../host/module.ts';
import type { PixelImage } from '../../image/pixels.ts';
import type { StitchDirection } from '../options.ts';
import { fitted } from '../references.ts';
import type { ImageSize } from '../types.ts';

/** Stitching asked for. */
export interface Stitch {
  /** On which side of the first picture the others lie. */
  direction: StitchDirection;
  /** White pixels between two. */
  spacing: number;
}

/**
 * @param first size the first picture is brought to; the others take its height (or width) and keep their aspect
 * @returns a strip whose sides are multiples of 16, white where nothing lies
 */
export async function stitched(
  host: Host,
  pictures: readonly PixelImage[],
  first: ImageSize,
  { direction, spacing }: Stitch,
  signal?: AbortSignal,
): Promise<PixelImage> {
  const across = direction === 'left' || direction === 'right';
  const sizeOf = (picture: PixelImage, i: number): ImageSize => {
    if (i === 0) return first;
    const scale = across ? first.height / picture.height : first.width / picture.width;
    const other = Math.max(1, Math.round((across ? picture.width : picture.height) * scale));
    return across ? { width: other, height: first.height } : { width: first.width, height: other };
  };
  const tiles: PixelImage[] = [];
  for (const [i, picture] of pictures.entries()) tiles.push(await fitted(host, picture, sizeOf(picture, i), signal));
  if (direction === 'left' || direction === 'up') tiles.reverse();
  const along = tiles.reduce((sum, { width, height }) => sum + (across ? width : height), spacing * (tiles.length - 1));
  const length = Math.ceil(along / 16) * 16;
  const strip = across ? { width: length, height: first.height } : { width: first.width, height: length };
  const data = new Uint8ClampedArray(4 * strip.width * strip.height).fill(255);
  let at = 0;
  for (const { width, height, data: pixels } of tiles) {
    const [left, top] = across ? [at, 0] : [0, at];
    for (let y = 0; y < height; y++) {
      data.set(pixels.subarray(4 * y * width, 4 * (y + 1) * width), 4 * ((top + y) * strip.width + left));
    }
    at += (across ? width : height) + spacing;
  }
  return { ...strip, data };
}
