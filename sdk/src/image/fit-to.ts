// Brings a picture to another size as the reference pipelines do (Pillow's LANCZOS), without keeping anything else waiting.
import type { Host } from '../host/module.ts';
import { type RowSource, resizeSteps } from '../host/resize.ts';
import { copyRgb, fromRgb, type PixelImage } from './pixels.ts';
import { breather } from './slices.ts';

/**
 * In slices of some milliseconds and rows at a time: a photo of 256 megapixels needs no second copy.
 *
 * @param host used by nobody else until the promise settles
 * @returns the same picture when it has the size already
 * @throws KontextError `aborted` within a slice of `signal`
 */
export async function fitTo(
  host: Host,
  image: PixelImage,
  { width, height }: { width: number; height: number },
  signal?: AbortSignal,
): Promise<PixelImage> {
  if (image.width === width && image.height === height) return image;
  const rows: RowSource = (to, first, count) => copyRgb(image, first, count, to);
  const steps = resizeSteps(host, { width: image.width, height: image.height, channels: 3, rows }, width, height);
  const pause = breather(signal);
  for (;;) {
    const { done, value } = steps.next();
    if (done) return fromRgb(value, width, height);
    await pause();
  }
}
