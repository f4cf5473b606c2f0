// What a picture's header says, without decoding a pixel: for those who must bound the work before they begin it.
import { MAX_INPUT_SIDE } from '../kontext/options.ts';
import { isRaster } from './raster-formats.ts';

/** Width, height and alpha of a picture file. */
export interface ImageProbe {
  /** Pixels, after the turn that EXIF asks for. */
  width: number;
  /** Pixels, after the turn that EXIF asks for. */
  height: number;
  /** Whether the file has an alpha channel. */
  hasAlpha: boolean;
}

/** Undefined when the bytes are no raster picture that `decodeImage` takes, or a side exceeds the SDK's bound. */
export async function probeImage(bytes: Uint8Array): Promise<ImageProbe | undefined> {
  const sharp = (await import('sharp')).default;
  try {
    const { format, width, height, hasAlpha, orientation } = await sharp(bytes, {
      limitInputPixels: MAX_INPUT_SIDE ** 2,
    }).metadata();
    if (!isRaster(format) || width > MAX_INPUT_SIDE || height > MAX_INPUT_SIDE) return undefined;
    const turned = (orientation ?? 1) >= 5;
    return { width: turned ? height : width, height: turned ? width : height, hasAlpha };
  } catch {
    return undefined;
  }
}
