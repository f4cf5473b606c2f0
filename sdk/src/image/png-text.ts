// Text in PNG files: an iTXt chunk with the prompt, seed and options a picture was made with.
// Written here because the image library has no way to set it, and a chunk is thirty lines.
import { KontextError } from '../../../runtime/src/errors.ts';

/** Keyword of the chunk. */
export const PNG_KEYWORD = 'kontext-webgpu';

/**
 * Inserts `text` (UTF-8) before the first pixel data.
 *
 * @see PNG specification, third edition, section 11.3.3.4
 * @throws KontextError `image-invalid` when `png` is not a PNG
 */
export function writePngText(png: Uint8Array, text: string, keyword = PNG_KEYWORD): Uint8Array<ArrayBuffer> {
  const header = [...chunks(png)][0];
  if (!header) throw notPng();
  // Keyword, NUL, no compression, method 0, empty language and translated keyword, text.
  const body = new TextEncoder().encode(`iTXt${keyword}\0\0\0\0\0${text}`);
  const chunk = new Uint8Array(body.length + 8);
  const view = new DataView(chunk.buffer);
  view.setUint32(0, body.length - 4);
  chunk.set(body, 4);
  view.setUint32(body.length + 4, crc32(body));
  const out = new Uint8Array(png.length + chunk.length);
  out.set(png.subarray(0, header.end));
  out.set(chunk, header.end);
  out.set(png.subarray(header.end), header.end + chunk.length);
  return out;
}

/**
 * The text that the command line's PNG files carry (prompt, seed and options as JSON), or undefined when there is none.
 *
 * @param png a whole PNG file
 * @param keyword of the iTXt chunk
 * @throws KontextError `image-invalid` when it is none, or damaged
 */
export function readPngText(png: Uint8Array, keyword = PNG_KEYWORD): string | undefined {
  for (const { type, start, end } of chunks(png)) {
    if (type !== 'iTXt') continue;
    const text = new TextDecoder().decode(png.subarray(start + 8, end - 4));
    if (text.startsWith(`${keyword}\0\0\0`)) return text.split('\0').slice(5).join('\0');
  }
  return undefined;
}

/** Chunks with their first byte and the byte after their checksum. */
function* chunks(png: Uint8Array): Generator<{ type: string; start: number; end: number }> {
  if (!(png instanceof Uint8Array) || SIGNATURE.some((byte, i) => png[i] !== byte)) throw notPng();
  const view = new DataView(png.buffer, png.byteOffset, png.byteLength);
  for (let start = SIGNATURE.length; start + 12 <= png.length; ) {
    const end = start + 12 + view.getUint32(start);
    if (end > png.length) throw new KontextError('image-invalid', 'This PNG file ends in the middle of a chunk.');
    yield { type: String.fromCharCode(...png.subarray(start + 4, start + 8)), start, end };
    start = end;
  }
}

const SIGNATURE = [0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a];

/** CRC-32 of ISO 3309; `node:zlib` has it only from Node 20.15 on, pages not at all. */
function crc32(bytes: Uint8Array): number {
  let crc = 0xffffffff;
  for (const byte of bytes) {
    crc ^= byte;
    for (let bit = 0; bit < 8; bit++) crc = (crc >>> 1) ^ (crc & 1 ? 0xedb88320 : 0);
  }
  return ~crc >>> 0;
}

function notPng(): KontextError {
  return new KontextError('image-invalid', 'This is not a PNG file.');
}
