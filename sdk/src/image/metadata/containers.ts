// Where the EXIF block lies in JPEG and WebP files: put in and found again without touching a pixel.
import { KontextError } from '../../../../runtime/src/errors.ts';

const EXIF = Uint8Array.of(0x45, 0x78, 0x69, 0x66, 0, 0);
/** What one JPEG segment holds behind its length and the word `Exif`. */
export const MAX_JPEG_EXIF = 65535 - 2 - EXIF.length;

export function isJpeg(bytes: Uint8Array): boolean {
  return bytes[0] === 0xff && bytes[1] === 0xd8;
}

export function isWebp(bytes: Uint8Array): boolean {
  return bytes.length >= 12 && fourOf(bytes, 0) === 'RIFF' && fourOf(bytes, 8) === 'WEBP';
}

/** Right behind the first marker, where EXIF belongs. @param block at most {@link MAX_JPEG_EXIF} bytes */
export function withJpegExif(jpeg: Uint8Array, block: Uint8Array): Uint8Array<ArrayBuffer> {
  const length = 2 + EXIF.length + block.length;
  return joined(
    jpeg.subarray(0, 2),
    Uint8Array.of(0xff, 0xe1, length >> 8, length & 255),
    EXIF,
    block,
    jpeg.subarray(2),
  );
}

export function jpegExif(jpeg: Uint8Array): Uint8Array | undefined {
  // Segments up to the first scan; each says its length.
  for (let at = 2; at + 4 <= jpeg.length && jpeg[at] === 0xff && jpeg[at + 1] !== 0xda; ) {
    const end = at + 2 + ((jpeg[at + 2]! << 8) | jpeg[at + 3]!);
    if (jpeg[at + 1] === 0xe1 && EXIF.every((byte, i) => jpeg[at + 4 + i] === byte)) {
      return jpeg.subarray(at + 4 + EXIF.length, end);
    }
    at = end;
  }
  return undefined;
}

const EXIF_FLAG = 0x08;
const ALPHA_FLAG = 0x10;

/**
 * Behind the picture, as the extended format has it; a simple file becomes an extended one.
 *
 * @see WebP Container Specification, sections "Extended File Format" and "Metadata"
 * @throws KontextError `image-invalid` when there is no picture in it
 */
export function withWebpExif(webp: Uint8Array, block: Uint8Array): Uint8Array<ArrayBuffer> {
  const [first] = webpChunks(webp);
  if (!first) throw new KontextError('image-invalid', 'This WebP file has no picture.');
  const body = Uint8Array.from(webp.subarray(12));
  if (first.type === 'VP8X') body[8] = body[8]! | EXIF_FLAG;
  const header = first.type === 'VP8X' ? new Uint8Array(0) : extendedHeader(first);
  const out = joined(webp.subarray(0, 12), header, body, chunk('EXIF', block));
  new DataView(out.buffer).setUint32(4, out.length - 8, true);
  return out;
}

export function webpExif(webp: Uint8Array): Uint8Array | undefined {
  const found = [...webpChunks(webp)].find(({ type }) => type === 'EXIF')?.data;
  // Some writers put JPEG's word before it.
  return found && EXIF.every((byte, i) => found[i] === byte) ? found.subarray(EXIF.length) : found;
}

interface WebpChunk {
  type: string;
  data: Uint8Array;
}

function* webpChunks(webp: Uint8Array): Generator<WebpChunk> {
  const view = new DataView(webp.buffer, webp.byteOffset, webp.byteLength);
  for (let at = 12; at + 8 <= webp.length; ) {
    const length = view.getUint32(at + 4, true);
    yield { type: fourOf(webp, at), data: webp.subarray(at + 8, at + 8 + length) };
    at += 8 + length + (length % 2);
  }
}

/** Flags and the canvas's size, which is the picture's: in 14 bits each, lossless ones less one. */
function extendedHeader({ type, data }: WebpChunk): Uint8Array {
  const view = new DataView(data.buffer, data.byteOffset, data.byteLength);
  const lossless = type === 'VP8L';
  if (data.length < 10) throw new KontextError('image-invalid', 'This WebP file has no picture.');
  const bits = lossless ? view.getUint32(1, true) : 0;
  const width = lossless ? bits & 0x3fff : (view.getUint16(6, true) & 0x3fff) - 1;
  const height = lossless ? (bits >>> 14) & 0x3fff : (view.getUint16(8, true) & 0x3fff) - 1;
  const header = new Uint8Array(10);
  header[0] = EXIF_FLAG | (lossless && (bits >>> 28) & 1 ? ALPHA_FLAG : 0);
  for (let i = 0; i < 3; i++) {
    header[4 + i] = width >>> (8 * i);
    header[7 + i] = height >>> (8 * i);
  }
  return chunk('VP8X', header);
}

function chunk(type: string, data: Uint8Array): Uint8Array {
  const out = new Uint8Array(8 + data.length + (data.length % 2));
  for (let i = 0; i < 4; i++) out[i] = type.charCodeAt(i);
  new DataView(out.buffer).setUint32(4, data.length, true);
  out.set(data, 8);
  return out;
}

const fourOf = (bytes: Uint8Array, at: number): string => String.fromCharCode(...bytes.subarray(at, at + 4));

function joined(...parts: readonly Uint8Array[]): Uint8Array<ArrayBuffer> {
  const out = new Uint8Array(parts.reduce((sum, { length }) => sum + length, 0));
  let at = 0;
  for (const part of parts) {
    out.set(part, at);
    at += part.length;
  }
  return out;
}
