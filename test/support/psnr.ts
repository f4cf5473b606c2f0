// How far two pictures are apart, in decibels.
// Over red, green and blue; alpha is 255 on both sides and would flatter the figure.
import type { PixelImage } from '../../sdk/src/image/pixels.ts';

/** Peak signal-to-noise ratio; Infinity for equal pictures. Throws when sizes differ. */
export function psnr(a: PixelImage, b: PixelImage): number {
  if (a.width !== b.width || a.height !== b.height)
    throw new Error(`${a.width}×${a.height} against ${b.width}×${b.height}`);
  let squares = 0;
  for (let i = 0; i < a.data.length; i++) if (i % 4 !== 3) squares += (a.data[i]! - b.data[i]!) ** 2;
  return 10 * Math.log10(255 ** 2 / (squares / (a.width * a.height * 3)));
}
