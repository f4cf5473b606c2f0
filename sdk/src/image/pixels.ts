// Pictures as the pipeline sees them: 8-bit RGBA, row by row, and the few operations it needs on them.
// The type has the fields of the page's ImageData, so one can be handed to the other without a copy.
import { KontextError } from '../../../runtime/src/errors.ts';
import { MAX_INPUT_PIXELS, MAX_INPUT_SIDE } from '../kontext/options.ts';

/**
 * An sRGB picture: `data` holds `width · height` pixels of R, G, B, A bytes, top row first, alpha not multiplied in. A is 255, save in
 * results that keep the pixels of an input that was not opaque.
 */
export interface PixelImage {
  /** Pixels. */
  width: number;
  /** Pixels. */
  height: number;
  /** `4 · width · height` bytes. */
  data: Uint8ClampedArray<ArrayBuffer>;
  /** The same pixels at 16 bits a channel, where an edit kept those of an input that has them. */
  data16?: Uint16Array<ArrayBuffer>;
}

/** What becomes of an input's transparency and of its bits beyond eight: laid over white and rounded, or kept. */
export type PixelDepth = 'opaque' | 'own';

/**
 * Checks raw pixels from a caller and makes them opaque, flattened on white, or copies them as they are.
 *
 * @param image `data` with 4 bytes a pixel
 * @param role what the picture is for, named in the error
 * @throws KontextError `image-invalid`
 */
export function checkPixels(
  image: { width: number; height: number; data: Uint8Array | Uint8ClampedArray; data16?: Uint16Array },
  role: string,
  depth: PixelDepth = 'opaque',
): PixelImage {
  const { width, height, data, data16 } = image;
  checkPixelBytes(image, role);
  if (depth === 'opaque') return { width, height, data: flattenOnWhite(data) };
  const copy = { width, height, data: new Uint8ClampedArray(data) };
  return data16 ? { ...copy, data16: new Uint16Array(data16) } : copy;
}

/** @throws KontextError `image-invalid` unless it has a size that is allowed and four bytes for each of its pixels */
export function checkPixelBytes(
  image: { width: number; height: number; data: Uint8Array | Uint8ClampedArray; data16?: Uint16Array },
  role: string,
): void {
  const { width, height, data, data16 } = image ?? {};
  checkImageSize(width, height, role);
  if (data16 !== undefined && !(data16 instanceof Uint16Array && data16.length === width * height * 4)) {
    throw new KontextError('image-invalid', `The ${role} has a data16 that is not its pixels at 16 bits a channel.`);
  }
  const bytes = data instanceof Uint8Array || data instanceof Uint8ClampedArray ? data.length : undefined;
  if (bytes === width * height * 4) return;
  throw new KontextError(
    'image-invalid',
    `The ${role} has ${bytes ?? 'no'} bytes; ${width}×${height} RGBA pixels are ${width * height * 4}.`,
    { width, height, bytes },
  );
}

/** A picture laid over white; itself when it is opaque already. */
export function flattened(image: PixelImage): PixelImage {
  if (isOpaque(image)) return image;
  return { width: image.width, height: image.height, data: flattenOnWhite(image.data) };
}

/** Whether every pixel's alpha is 255. */
export function isOpaque({ data }: PixelImage): boolean {
  for (let i = 3; i < data.length; i += 4) if (data[i] !== 255) return false;
  return true;
}

/** @throws KontextError `image-invalid` unless both sides are whole numbers from 1 to {@link MAX_INPUT_SIDE}, with at most {@link MAX_INPUT_PIXELS} in all */
export function checkImageSize(width: number, height: number, role: string): void {
  const valid = (side: number) => Number.isInteger(side) && side >= 1 && side <= MAX_INPUT_SIDE;
  if (typeof width !== 'number' || typeof height !== 'number') {
    throw new KontextError('image-invalid', `The ${role} has no width and height in pixels.`);
  }
  if (valid(width) && valid(height) && width * height <= MAX_INPUT_PIXELS) return;
  throw new KontextError(
    'image-invalid',
    `The ${role} is ${width}×${height} pixels; each side must be 1 to ${MAX_INPUT_SIDE}, ${MAX_INPUT_PIXELS / 2 ** 20} million in all. Scale or crop it first.`,
    { width, height, max: MAX_INPUT_SIDE, maxPixels: MAX_INPUT_PIXELS },
  );
}

/** RGB bytes of a picture, three a pixel. */
export function toRgb({ width, height, data }: PixelImage): Uint8Array {
  const rgb = new Uint8Array(width * height * 3);
  for (let from = 0, to = 0; to < rgb.length; from += 4, to += 3) {
    rgb[to] = data[from]!;
    rgb[to + 1] = data[from + 1]!;
    rgb[to + 2] = data[from + 2]!;
  }
  return rgb;
}

/** The opposite of {@link toRgb}; alpha becomes 255. */
export function fromRgb(rgb: Uint8Array, width: number, height: number): PixelImage {
  const data = new Uint8ClampedArray(width * height * 4);
  for (let from = 0, to = 0; from < rgb.length; from += 3, to += 4) {
    data[to] = rgb[from]!;
    data[to + 1] = rgb[from + 1]!;
    data[to + 2] = rgb[from + 2]!;
    data[to + 3] = 255;
  }
  return { width, height, data };
}

/** A copy with transparent pixels laid over white, as paper would show them. */
function flattenOnWhite(rgba: Uint8Array | Uint8ClampedArray): Uint8ClampedArray<ArrayBuffer> {
  const out = new Uint8ClampedArray(rgba);
  for (let i = 3; i < out.length; i += 4) {
    const alpha = out[i]!;
    if (alpha === 255) continue;
    for (let c = i - 3; c < i; c++) out[c] = Math.round((out[c]! * alpha + 255 * (255 - alpha)) / 255);
    out[i] = 255;
  }
  return out;
}
