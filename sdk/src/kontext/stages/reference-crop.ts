// The crop of diffusers' `padding_mask_crop`, to the pixel: box around the mask, widened to the picture's aspect, scaled back.
// Kept apart because it is odd (the box is found on the mask as given but cut out of the resized picture) and only for comparing.
import type { Host } from '../../host/module.ts';
import { resizeBytesInTurns } from '../../host/resize.ts';
import type { ImageSize, PixelBox } from '../types.ts';
import { boxOf, type GreyImage } from './mask.ts';

/** Interleaved bytes of a picture with 1 or 3 channels. */
export interface Bytes extends ImageSize {
  data: Uint8Array;
  channels: 1 | 3;
}

/** The box around the mask with `padding` pixels, widened to the aspect of `size` and moved inside the mask's picture. */
export function cropBox(mask: GreyImage, { width, height }: ImageSize, padding: number): PixelBox {
  const box = boxOf(mask);
  let [x1, y1] = [Math.max(box.x - padding, 0), Math.max(box.y - padding, 0)];
  let x2 = Math.min(box.x + box.width + padding, mask.width);
  let y2 = Math.min(box.y + box.height + padding, mask.height);
  if ((x2 - x1) / (y2 - y1) > width / height) {
    [y1, y2] = widen(y1, y2, Math.trunc((x2 - x1) / (width / height) - (y2 - y1)), mask.height);
  } else {
    [x1, x2] = widen(x1, x2, Math.trunc((y2 - y1) * (width / height) - (x2 - x1)), mask.width);
  }
  return { x: x1, y: y1, width: x2 - x1, height: y2 - y1 };
}

function widen(first: number, end: number, more: number, length: number): [number, number] {
  let from = first - Math.floor(more / 2);
  let to = end + more - Math.floor(more / 2);
  if (to >= length) [from, to] = [from - (to - length), length];
  if (from < 0) [from, to] = [0, Math.min(to - from, length)];
  return [from, to];
}

/**
 * Cuts `box` out (black where it lies outside), scales it to fit into its picture's own size with its aspect kept, centres it, and
 * continues its edge pixels outwards over what is left: 1.125 · edge − 0.125 · the one inside it, which is Pillow's bicubic there.
 */
export async function cropAndFill(host: Host, picture: Bytes, box: PixelBox, signal?: AbortSignal): Promise<Bytes> {
  const { width, height, channels } = picture;
  const cut = cutOut(picture, box);
  const wide = width / height < cut.width / cut.height;
  const inner = {
    width: wide ? width : Math.floor((cut.width * height) / cut.height),
    height: wide ? Math.floor((cut.height * width) / cut.width) : height,
  };
  const scaled = await resizeBytesInTurns(host, cut, inner.width, inner.height, signal);
  const left = Math.floor(width / 2) - Math.floor(inner.width / 2);
  const top = Math.floor(height / 2) - Math.floor(inner.height / 2);
  const out = new Uint8Array(width * height * channels);
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      const [nearX, nearY] = [clamp(x - left, inner.width), clamp(y - top, inner.height)];
      const [insideX, insideY] = [inward(x - left, inner.width), inward(y - top, inner.height)];
      for (let c = 0; c < channels; c++) {
        const edge = scaled[(nearY * inner.width + nearX) * channels + c]!;
        const inside = scaled[(insideY * inner.width + insideX) * channels + c]!;
        const value = nearX === insideX && nearY === insideY ? edge : 1.125 * edge - 0.125 * inside;
        out[(y * width + x) * channels + c] = Math.max(0, Math.min(255, Math.round(value)));
      }
    }
  }
  return { width, height, channels, data: out };
}

function cutOut({ width, height, data, channels }: Bytes, box: PixelBox): Bytes {
  const out = new Uint8Array(box.width * box.height * channels);
  for (let y = 0; y < box.height; y++) {
    const row = box.y + y;
    if (row < 0 || row >= height) continue;
    const end = Math.min(box.x + box.width, width);
    out.set(data.subarray((row * width + box.x) * channels, (row * width + end) * channels), y * box.width * channels);
  }
  return { width: box.width, height: box.height, data: out, channels };
}

const clamp = (at: number, length: number) => Math.max(0, Math.min(length - 1, at));

/** Where a pixel outside takes its second value from: one further inside than the edge; itself for one inside. */
function inward(at: number, length: number): number {
  if (at < 0) return Math.min(1, length - 1);
  return at >= length ? Math.max(0, length - 2) : at;
}
