// Text in PNG files, and data of our own: what a picture was made with, for other programs and for ours.
// Written here because the image library has no way to set it, and a chunk is thirty lines.
import { KontextError } from '../../../../runtime/src/errors.ts';

/** Keyword of the chunk. */
export const PNG_KEYWORD = 'kontext-webgpu';

/**
 * Inserts `text` before the first pixel data: as tEXt where Latin-1 has all its letters, which every reader knows, else as iTXt.
 *
 * @see PNG specification, third edition, sections 11.3.3.2 and 11.3.3.4
 * @throws KontextError `image-invalid` when `png` is not a PNG
 */
export function writePngText(png: Uint8Array, text: string, keyword = PNG_KEYWORD): Uint8Array<ArrayBuffer> {
  if (/^[\n\x20-\x7e\xa0-\xff]*$/.test(text)) {
    return writePngChunk(
      png,
      'tEXt',
      Uint8Array.from(`${keyword}\0${text}`, (letter) => letter.charCodeAt(0)),
    );
  }
  // Keyword, NUL, no compression, method 0, empty language and translated keyword, text.
  return writePngChunk(png, 'iTXt', new TextEncoder().encode(`${keyword}\0\0\0\0\0${text}`));
}

/** Inserts a chunk behind the header. @throws KontextError `image-invalid` when `png` is not a PNG */
export function writePngChunk(png: Uint8Array, type: string, data: Uint8Array): Uint8Array<ArrayBuffer> {
  const header = [...chunks(png)][0];
  if (!header) throw notPng();
  const chunk = pngChunk(type, data);
  const out = new Uint8Array(png.length + chunk.length);
  out.set(png.subarray(0, header.end));
  out.set(chunk, header.end);
  out.set(png.subarray(header.end), header.end + chunk.length);
  return out;
}

/** A chunk with its length and checksum. */
export function pngChunk(type: string, data: Uint8Array): Uint8Array<ArrayBuffer> {
  const chunk = new Uint8Array(data.length + 12);
  const view = new DataView(chunk.buffer);
  view.setUint32(0, data.length);
  for (let i = 0; i < 4; i++) chunk[4 + i] = type.charCodeAt(i);
  chunk.set(data, 8);
  view.setUint32(data.length + 8, crc32(chunk.subarray(4, data.length + 8)));
  return chunk;
}

/**
 * The text that the command line's PNG files carry (prompt, seed and options as JSON), or undefined when there is none.
 *
 * @param png a whole PNG file
 * @param keyword of the chunk, tEXt or uncompressed iTXt
 * @throws KontextError `image-invalid` when it is none, or damaged
 */
export function readPngText(png: Uint8Array, keyword = PNG_KEYWORD): string | undefined {
  for (const { type, start, end } of chunks(png)) {
    const data = png.subarray(start + 8, end - 4);
    if (type === 'tEXt') {
      const text = new TextDecoder('latin1').decode(data);
      if (text.startsWith(`${keyword}\0`)) return text.slice(keyword.length + 1);
    }
    if (type !== 'iTXt') continue;
    const text = new TextDecoder().decode(data);
    if (text.startsWith(`${keyword}\0\0\0`)) return text.split('\0').slice(5).join('\0');
  }
  return undefined;
}

/** The data of the first chunk of a type. @throws KontextError `image-invalid` when it is no PNG, or damaged */
export function readPngChunk(png: Uint8Array, wanted: string): Uint8Array | undefined {
  for (const { type, start, end } of chunks(png)) if (type === wanted) return png.subarray(start + 8, end - 4);
  return undefined;
}

/** Whether bytes begin as a PNG file does. */
export function isPng(bytes: Uint8Array): boolean {
  return SIGNATURE.every((byte, i) => bytes[i] === byte);
}

/** Chunks with their first byte and the byte after their checksum. */
function* chunks(png: Uint8Array): Generator<{ type: string; start: number; end: number }> {
  if (!(png instanceof Uint8Array) || !isPng(png)) throw notPng();
  const view = new DataView(png.buffer, png.byteOffset, png.byteLength);
  for (let start = SIGNATURE.length; start + 12 <= png.length; ) {
    const end = start + 12 + view.getUint32(start);
    if (end > png.length) throw new KontextError('image-invalid', 'This PNG file ends in the middle of a chunk.');
    yield { type: String.fromCharCode(...png.subarray(start + 4, start + 8)), start, end };
    start = end;
  }
}

/** The first bytes of every PNG file. */
export const SIGNATURE = [0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a];

/** CRC-32 of ISO 3309, a byte at a time; `node:zlib` has it only from Node 20.15 on, pages not at all. */
function crc32(bytes: Uint8Array): number {
  let crc = 0xffffffff;
  for (const byte of bytes) crc = (crc >>> 8) ^ CRC_TABLE[(crc ^ byte) & 255]!;
  return ~crc >>> 0;
}

const CRC_TABLE = Uint32Array.from({ length: 256 }, (_, byte) => {
  let crc = byte;
  for (let bit = 0; bit < 8; bit++) crc = (crc >>> 1) ^ (crc & 1 ? 0xedb88320 : 0);
  return crc;
});

function notPng(): KontextError {
  return new KontextError('image-invalid', 'This is not a PNG file.');
}
