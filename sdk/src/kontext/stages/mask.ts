// Masks: a picture that is white where the input may change, as the grey levels and latents that the pipeline works with.
import { KontextError } from '../../../../runtime/src/errors.ts';
import type { Host } from '../../host/module.ts';
import { resizeBytesInTurns } from '../../host/resize.ts';
import type { PixelImage } from '../../image/pixels.ts';
import { LATENT_CHANNELS, pack } from '../latents.ts';
import type { ImageSize, PixelBox } from '../types.ts';

/** A grey picture: 0 keeps, 255 changes, one byte a pixel. */
export interface GreyImage {
  width: number;
  height: number;
  data: Uint8Array;
}

/** From this level on a pixel counts as white where a mask must be either or. */
export const MASK_THRESHOLD = 128;

/**
 * The mask of a picture as grey levels, by Pillow's weights of red, green and blue (ITU-R 601-2).
 *
 * @throws KontextError `invalid-request` when it is not of the picture's size, or has nothing white
 */
export function openMask(mask: PixelImage, picture: ImageSize): GreyImage {
  checkMaskSize(mask, picture);
  const grey = { width: mask.width, height: mask.height, data: new Uint8Array(mask.width * mask.height) };
  const { data } = mask;
  for (let i = 0, at = 0; i < grey.data.length; i++, at += 4) {
    grey.data[i] = (19595 * data[at]! + 38470 * data[at + 1]! + 7471 * data[at + 2]! + 0x8000) >> 16;
  }
  return grey;
}

/** @throws KontextError `invalid-request` when a mask is not of the picture's size */
export function checkMaskSize(mask: ImageSize, picture: ImageSize): void {
  if (mask.width === picture.width && mask.height === picture.height) return;
  throw new KontextError(
    'invalid-request',
    `The mask is ${mask.width}×${mask.height}, the picture ${picture.width}×${picture.height}. Give a mask of the picture's size.`,
    { mask: [mask.width, mask.height], picture: [picture.width, picture.height] },
  );
}

/** The smallest box around everything above `level`. @throws KontextError `invalid-request` when there is nothing */
export function boxOf({ width, height, data }: GreyImage, level = 0): PixelBox {
  let [left, top, right, bottom] = [width, height, -1, -1];
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      if (data[y * width + x]! <= level) continue;
      if (x < left) left = x;
      if (x > right) right = x;
      if (y < top) top = y;
      bottom = y;
    }
  }
  if (right < 0) throw emptyMask();
  return { x: left, y: top, width: right - left + 1, height: bottom - top + 1 };
}

/** As Pillow's LANCZOS resizes a grey picture; in turns, as {@link fitted}. */
export async function resizeGrey(
  host: Host,
  grey: GreyImage,
  { width, height }: ImageSize,
  signal?: AbortSignal,
): Promise<GreyImage> {
  return { width, height, data: await resizeBytesInTurns(host, { ...grey, channels: 1 }, width, height, signal) };
}

/**
 * The mask of each latent value, packed `[tokens, 64]`, 1 where the picture may change: every eighth pixel of the mask, white from
 * {@link MASK_THRESHOLD} on, as diffusers brings masks to latents.
 *
 * @throws KontextError `invalid-request` when no latent pixel may change
 */
export function latentMask({ width, height, data }: GreyImage): Float32Array<ArrayBuffer> {
  return packMask({ width, height }, (x, y) => (data[8 * y * width + 8 * x]! >= MASK_THRESHOLD ? 1 : 0));
}

/** The same of a function of latent pixels. */
export function packMask(size: ImageSize, at: (x: number, y: number) => number): Float32Array<ArrayBuffer> {
  const [columns, rows] = [size.width / 8, size.height / 8];
  const plane = Float32Array.from({ length: columns * rows }, (_, i) => at(i % columns, Math.floor(i / columns)));
  if (!plane.some((value) => value > 0)) throw emptyMask();
  const all = new Float32Array(LATENT_CHANNELS * plane.length);
  for (let channel = 0; channel < LATENT_CHANNELS; channel++) all.set(plane, channel * plane.length);
  return pack(all, size);
}

function emptyMask(): KontextError {
  return new KontextError(
    'invalid-request',
    'The mask is empty: nothing in it is white, or only specks that vanish at the model’s size. Paint white what may change.',
    { option: 'mask' },
  );
}
