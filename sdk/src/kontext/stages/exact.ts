// Masked edits that keep the rest bit for bit: the surroundings of the mask are cut out, edited at the model's size, put back.
// A small mask in a large photo so costs one edit of the model's size, and nothing outside goes through the autoencoder.
import type { Host } from '../../host/module.ts';
import type { PixelImage } from '../../image/pixels.ts';
import { breather } from '../../image/slices.ts';
import { fitted } from '../references.ts';
import type { ImageSize, PixelBox } from '../types.ts';
import { featherWeights } from './feather.ts';
import { boxOf, type GreyImage, packMask } from './mask.ts';

/** Least surroundings that are edited with a mask, in pixels. */
const LEAST_PADDING = 32;

/** The box around the mask with its surroundings, within the picture. */
export function paddedBox(mask: GreyImage, padding?: number): PixelBox {
  const box = boxOf(mask);
  const more = padding ?? Math.max(LEAST_PADDING, Math.ceil(Math.max(box.width, box.height) / 2));
  const [left, top] = [Math.max(0, box.x - more), Math.max(0, box.y - more)];
  const right = Math.min(mask.width, box.x + box.width + more);
  const bottom = Math.min(mask.height, box.y + box.height + more);
  return { x: left, y: top, width: right - left, height: bottom - top };
}

/**
 * The box widened to the target's aspect as far as the picture goes, and to half of the target's size: magnified more than twice, the
 * surroundings would tell the model nothing.
 */
export function widenedBox(box: PixelBox, picture: ImageSize, target: ImageSize): PixelBox {
  const aspect = target.width / target.height;
  const wanted = Math.max(box.width, box.height * aspect, target.width / 2);
  const width = Math.min(picture.width, Math.round(wanted));
  const height = Math.min(picture.height, Math.round(wanted / aspect));
  const centred = (start: number, size: number, wide: number, length: number) =>
    Math.max(0, Math.min(length - wide, Math.round(start + (size - wide) / 2)));
  return {
    x: centred(box.x, box.width, width, picture.width),
    y: centred(box.y, box.height, height, picture.height),
    width,
    height,
  };
}

/** A part of a picture. */
export function cutOut<T extends PixelImage | GreyImage>(picture: T, box: PixelBox): T {
  const channels = picture.data.length / (picture.width * picture.height);
  const length = box.width * box.height * channels;
  const data = picture.data instanceof Uint8ClampedArray ? new Uint8ClampedArray(length) : new Uint8Array(length);
  for (let y = 0; y < box.height; y++) {
    const from = ((box.y + y) * picture.width + box.x) * channels;
    data.set(picture.data.subarray(from, from + box.width * channels), y * box.width * channels);
  }
  return { width: box.width, height: box.height, data } as T;
}

/** Packed latents' mask: 1 where any pixel under a latent pixel may change, so that the seam lies in what is kept. */
export function coveringMask(mask: GreyImage, target: ImageSize): Float32Array<ArrayBuffer> {
  const [columns, rows] = [target.width / 8, target.height / 8];
  const plane = new Uint8Array(columns * rows);
  const firstOf = (at: number, length: number, cells: number) => Math.floor((at * cells) / length);
  const endOf = (at: number, length: number, cells: number) =>
    Math.max(firstOf(at, length, cells) + 1, Math.ceil(((at + 1) * cells) / length));
  const left = Uint32Array.from({ length: mask.width }, (_, x) => firstOf(x, mask.width, columns));
  const right = Uint32Array.from({ length: mask.width }, (_, x) => endOf(x, mask.width, columns));
  const covered = new Uint8Array(columns);
  for (let y = 0; y < mask.height; y++) {
    covered.fill(0);
    for (let x = 0, at = y * mask.width; x < mask.width; x++, at++) {
      if (mask.data[at] === 0) continue;
      for (let column = left[x]!; column < right[x]!; column++) covered[column] = 1;
    }
    for (let row = firstOf(y, mask.height, rows); row < endOf(y, mask.height, rows); row++) {
      for (let column = 0; column < columns; column++) plane[row * columns + column]! |= covered[column]!;
    }
  }
  return packMask(target, (x, y) => plane[y * columns + x]!);
}

/**
 * Puts an edited box back: `source` wherever the mask is black, faded into the edit inside it.
 *
 * @param source as it came, with its alpha and, where it has them, 16 bits a channel; not changed
 * @param mask of the box
 * @param edited of any size; brought to the box's
 */
export async function putBack(
  host: Host,
  source: PixelImage,
  box: PixelBox,
  mask: GreyImage,
  edited: PixelImage,
  feather?: number,
  signal?: AbortSignal,
): Promise<PixelImage> {
  const pause = breather(signal);
  const weights = featherWeights(mask, feather);
  await pause();
  const fresh = (await fitted(host, edited, box, signal)).data;
  const data = new Uint8ClampedArray(source.data);
  await pause();
  blend(data, source.data, source.width, box, weights, fresh, 255);
  if (!source.data16) return { width: source.width, height: source.height, data };
  await pause();
  const data16 = new Uint16Array(source.data16);
  blend(data16, source.data16, source.width, box, weights, fresh, 65535);
  return { width: source.width, height: source.height, data, data16 };
}

type Samples = Uint8ClampedArray | Uint16Array;

/** The edit over the source by weight, both unmultiplied; the edit is opaque. */
function blend(
  out: Samples,
  source: Samples,
  width: number,
  box: PixelBox,
  weights: Float32Array,
  fresh: Uint8ClampedArray,
  full: 255 | 65535,
): void {
  const scale = full / 255;
  for (let y = 0; y < box.height; y++) {
    for (let x = 0; x < box.width; x++) {
      const pixel = y * box.width + x;
      const weight = weights[pixel]!;
      if (weight === 0) continue;
      const at = ((box.y + y) * width + box.x + x) * 4;
      const kept = (1 - weight) * (source[at + 3]! / full);
      const alpha = weight + kept;
      for (let c = 0; c < 3; c++) {
        out[at + c] = Math.round((weight * scale * fresh[4 * pixel + c]! + kept * source[at + c]!) / alpha);
      }
      out[at + 3] = Math.round(alpha * full);
    }
  }
}
