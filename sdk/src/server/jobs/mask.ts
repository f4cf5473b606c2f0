// Masks as OpenAI's clients send them: the picture with a hole. Ours are grey, white where the picture changes.
import sharp from 'sharp';
import type { PixelImage } from '../../image/pixels.ts';

/**
 * @param bytes a picture file, its size bounded before
 * @param from `alpha`: transparent becomes white; `luminance`: taken as it is
 */
export async function maskFrom(bytes: unknown, from: 'alpha' | 'luminance'): Promise<PixelImage | Uint8Array> {
  const file = bytes as Uint8Array;
  if (from === 'luminance') return file;
  const { data, info } = await sharp(file, { autoOrient: true })
    .ensureAlpha()
    .extractChannel(3)
    .negate()
    .toColourspace('b-w')
    .raw({ depth: 'uchar' })
    .toBuffer({ resolveWithObject: true });
  const rgba = new Uint8ClampedArray(info.width * info.height * 4);
  for (let i = 0; i < info.width * info.height; i++)
    rgba.fill(data[i * info.channels]!, i * 4, i * 4 + 3).fill(255, i * 4 + 3, i * 4 + 4);
  return { width: info.width, height: info.height, data: rgba };
}
