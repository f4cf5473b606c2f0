// Windows bitmaps, which browsers read and sharp does not: headers of 12 to 124 bytes, 1 to 32 bits a pixel, run lengths, masks.
// Microsoft, "Bitmap Storage", https://learn.microsoft.com/windows/win32/gdi/bitmap-storage. Everything read is bounded by the file.
import { checkImageSize, type PixelImage } from './pixels.ts';

/** Whether a file is a bitmap by its first bytes. */
export function isBmp(bytes: Uint8Array): boolean {
  return bytes.length > 26 && bytes[0] === 0x42 && bytes[1] === 0x4d;
}

/**
 * Opaque pixels of a bitmap; an alpha channel is laid over white only where the header declares one, as browsers do.
 *
 * @throws Error saying what is wrong, KontextError `image-invalid` for a size out of bounds
 */
export function decodeBmp(bytes: Uint8Array, role: string): PixelImage {
  const header = readHeader(bytes);
  const { width, height, topDown } = header;
  checkImageSize(width, height, role);
  // A file of a few bytes must not claim memory by the gigabyte: without run lengths every row is there.
  const stride = Math.ceil((width * header.bits) / 32) * 4;
  const packed = header.compression === RLE8 || header.compression === RLE4;
  if (!packed && header.pixels + stride * height > bytes.length + stride)
    throw new Error('it ends before its last row');
  if (packed && (width * height) / 255 > bytes.length) throw new Error('it ends before its last row');
  const image = new Uint8ClampedArray(width * height * 4).fill(255);
  const row = packed ? unpackRuns(bytes, header) : undefined;
  const read = reader(bytes, header);
  for (let y = 0; y < height; y++) {
    const to = (topDown ? y : height - 1 - y) * width * 4;
    const source = row ? row.subarray(y * width, (y + 1) * width) : undefined;
    const at = header.pixels + y * stride;
    for (let x = 0; x < width; x++) {
      if (source) putColour(image, to + 4 * x, header.palette[source[x]!] ?? 0);
      else read(at, x, image, to + 4 * x);
    }
  }
  return { width, height, data: image };
}

const RGB = 0;
const RLE8 = 1;
const RLE4 = 2;
const BITFIELDS = 3;
const ALPHABITFIELDS = 6;

interface Header {
  width: number;
  height: number;
  topDown: boolean;
  bits: number;
  compression: number;
  /** Where the pixels begin. */
  pixels: number;
  /** 0xRRGGBB. */
  palette: number[];
  /** Of red, green, blue and alpha. */
  masks: [number, number, number, number];
}

function readHeader(bytes: Uint8Array): Header {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const u16 = (at: number) => (at + 2 <= bytes.length ? view.getUint16(at, true) : fail('its header is cut off'));
  const u32 = (at: number) => (at + 4 <= bytes.length ? view.getUint32(at, true) : fail('its header is cut off'));
  const pixels = u32(10);
  const size = u32(14);
  const core = size === 12;
  if (!core && size < 40) fail(`its header of ${size} bytes is of an unknown kind`);
  const width = core ? u16(18) : u32(18) | 0;
  const signed = core ? u16(20) : u32(22) | 0;
  const bits = u16(core ? 24 : 28);
  const compression = core ? RGB : u32(30);
  if (![1, 4, 8, 16, 24, 32].includes(bits)) fail(`${bits} bits a pixel are not supported`);
  const fits =
    compression === RGB ||
    (compression === RLE8 && bits === 8) ||
    (compression === RLE4 && bits === 4) ||
    ((compression === BITFIELDS || compression === ALPHABITFIELDS) && (bits === 16 || bits === 32));
  if (!fits) fail(`compression ${compression} is not supported`);
  const masked = compression === BITFIELDS || compression === ALPHABITFIELDS;
  const masks: Header['masks'] = masked
    ? [u32(54), u32(58), u32(62), size >= 56 || compression === ALPHABITFIELDS ? u32(66) : 0]
    : bits === 16
      ? [0x7c00, 0x3e0, 0x1f, 0]
      : [0xff0000, 0xff00, 0xff, 0];
  const paletteAt = 14 + size + (masked && size === 40 ? (compression === BITFIELDS ? 12 : 16) : 0);
  const entry = core ? 3 : 4;
  const wanted = bits > 8 ? 0 : Math.min(2 ** bits, (core ? 0 : u32(46)) || 2 ** bits);
  const palette: number[] = [];
  for (let i = 0; i < wanted && paletteAt + entry * (i + 1) <= Math.min(pixels, bytes.length); i++) {
    const at = paletteAt + entry * i;
    palette.push((bytes[at + 2]! << 16) | (bytes[at + 1]! << 8) | bytes[at]!);
  }
  return { width, height: Math.abs(signed), topDown: signed < 0, bits, compression, pixels, palette, masks };
}

type Reader = (row: number, x: number, image: Uint8ClampedArray, to: number) => void;

function reader(bytes: Uint8Array, { bits, masks, palette, compression }: Header): Reader {
  if (bits <= 8) {
    const perByte = 8 / bits;
    const most = 2 ** bits - 1;
    return (row, x, image, to) => {
      const byte = bytes[row + Math.floor(x / perByte)] ?? 0;
      putColour(image, to, palette[(byte >> (8 - bits * ((x % perByte) + 1))) & most] ?? 0);
    };
  }
  if (compression === RGB && bits !== 16) {
    const step = bits / 8;
    return (row, x, image, to) => {
      const at = row + step * x;
      image[to] = bytes[at + 2] ?? 0;
      image[to + 1] = bytes[at + 1] ?? 0;
      image[to + 2] = bytes[at] ?? 0;
    };
  }
  const fields = masks.map((mask) => {
    const shift = mask === 0 ? 0 : Math.clz32(mask & -mask) ^ 31;
    return { mask, shift, most: mask >>> shift };
  });
  const step = bits / 8;
  return (row, x, image, to) => {
    const at = row + step * x;
    let word = 0;
    for (let i = step - 1; i >= 0; i--) word = ((word << 8) | (bytes[at + i] ?? 0)) >>> 0;
    const [r, g, b, alpha] = fields.map(({ mask, shift, most }) =>
      mask === 0 ? 0 : (((word & mask) >>> shift) / most) * 255,
    ) as [number, number, number, number];
    const share = masks[3] === 0 ? 1 : alpha / 255;
    image[to] = r * share + 255 * (1 - share);
    image[to + 1] = g * share + 255 * (1 - share);
    image[to + 2] = b * share + 255 * (1 - share);
  };
}

/** Palette indices of all rows, from the bottom; pixels that runs jump over are index 0. */
function unpackRuns(bytes: Uint8Array, { width, height, bits, pixels }: Header): Uint8Array {
  const indices = new Uint8Array(width * height);
  let [x, y, at] = [0, 0, pixels];
  const put = (index: number) => {
    if (x < width && y < height) indices[y * width + x] = index;
    x++;
  };
  while (y < height && at + 1 < bytes.length) {
    const [count, value] = [bytes[at]!, bytes[at + 1]!];
    at += 2;
    if (count > 0) {
      for (let i = 0; i < count; i++) put(bits === 8 ? value : i % 2 === 0 ? value >> 4 : value & 15);
    } else if (value === 0) [x, y] = [0, y + 1];
    else if (value === 1) break;
    else if (value === 2) {
      x += bytes[at] ?? 0;
      y += bytes[at + 1] ?? 0;
      at += 2;
    } else {
      for (let i = 0; i < value; i++) {
        const byte = bytes[at + (bits === 8 ? i : i >> 1)] ?? 0;
        put(bits === 8 ? byte : i % 2 === 0 ? byte >> 4 : byte & 15);
      }
      const length = bits === 8 ? value : (value + 1) >> 1;
      at += length + (length % 2);
    }
  }
  return indices;
}

function putColour(image: Uint8ClampedArray, to: number, colour: number): void {
  image[to] = colour >> 16;
  image[to + 1] = (colour >> 8) & 255;
  image[to + 2] = colour & 255;
}

function fail(message: string): never {
  throw new Error(message);
}
