// Small pictures for lists of them.
import { flattened, type PixelImage } from './pixels.ts';
import { encodePng } from './png-write.ts';

/** Longer side of a thumbnail, in pixels. */
const SIDE = 128;

/** A PNG file of at most 128 pixels a side. */
export function thumbnailPng(image: PixelImage): Promise<Uint8Array<ArrayBuffer>> {
  return encodePng(reduced(flattened(image)));
}

/** Each pixel the mean of those it stands for; a picture that is small enough is left as it is. */
function reduced({ width, height, data }: PixelImage): PixelImage {
  const scale = Math.min(1, SIDE / Math.max(width, height));
  if (scale === 1) return { width, height, data };
  const small = { width: Math.max(1, Math.round(width * scale)), height: Math.max(1, Math.round(height * scale)) };
  const out = new Uint8ClampedArray(4 * small.width * small.height).fill(255);
  const span = (at: number, of: number, length: number) => [
    Math.floor((at * length) / of),
    Math.max(Math.floor((at * length) / of) + 1, Math.floor(((at + 1) * length) / of)),
  ];
  for (let y = 0; y < small.height; y++) {
    const [top, bottom] = span(y, small.height, height) as [number, number];
    for (let x = 0; x < small.width; x++) {
      const [left, right] = span(x, small.width, width) as [number, number];
      for (let c = 0; c < 3; c++) {
        let sum = 0;
        for (let row = top; row < bottom; row++) {
          for (let column = left; column < right; column++) sum += data[4 * (row * width + column) + c]!;
        }
        out[4 * (y * small.width + x) + c] = Math.round(sum / ((bottom - top) * (right - left)));
      }
    }
  }
  return { ...small, data: out };
}
