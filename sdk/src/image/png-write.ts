// A PNG encoder small enough for pages and workers, where the canvas would round what is transparent; platform streams do the compressing.
import { collect } from '../../../runtime/src/net/collect.ts';
import { pngChunk, SIGNATURE } from './metadata/png-text.ts';
import { isOpaque, type PixelImage } from './pixels.ts';

/** The picture as an 8-bit RGB or RGBA file, its bytes as they are. @see PNG specification, third edition, sections 9 and 11.2 */
export async function encodePng(image: PixelImage): Promise<Uint8Array<ArrayBuffer>> {
  const { width, height, data } = image;
  const channels = isOpaque(image) ? 3 : 4;
  const rows = new Uint8Array(height * (1 + width * channels));
  for (let y = 0, to = 0; y < height; y++) {
    // Filter 1, Sub: each byte less that of the pixel to its left.
    rows[to++] = 1;
    for (let x = 0; x < width; x++) {
      const from = 4 * (y * width + x);
      for (let c = 0; c < channels; c++) rows[to++] = data[from + c]! - (x === 0 ? 0 : data[from + c - 4]!);
    }
  }
  const header = new Uint8Array(13);
  const view = new DataView(header.buffer);
  view.setUint32(0, width);
  view.setUint32(4, height);
  header.set([8, channels === 3 ? 2 : 6, 0, 0, 0], 8);
  const parts = [
    Uint8Array.from(SIGNATURE),
    pngChunk('IHDR', header),
    pngChunk('IDAT', await deflate(rows)),
    pngChunk('IEND', new Uint8Array(0)),
  ];
  return new Uint8Array(await new Blob(parts).arrayBuffer());
}

/** With zlib's header, as PNG wants it. */
export async function deflate(bytes: Uint8Array | Uint8ClampedArray): Promise<Uint8Array<ArrayBuffer>> {
  const stream = new Blob([bytes as BlobPart]).stream().pipeThrough(new CompressionStream('deflate'));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

/** @throws Error when there is more than `limit`, before it is held: a few kilobytes can unpack to gigabytes */
export function inflate(bytes: Uint8Array<ArrayBuffer>, limit: number): Promise<Uint8Array<ArrayBuffer>> {
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream('deflate'));
  return collect(stream, limit, () => new Error('it unpacks to more than it says'));
}
