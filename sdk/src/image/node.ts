// Pictures in Node: files, URLs and bytes to pixels and back, through sharp.
// sharp is an optional peer: apps that hand over raw pixels do not need it.
import { readFile } from 'node:fs/promises';
import { extname } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { Sharp } from 'sharp';
import { abortedError, asKontextError, KontextError, shown } from '../../../runtime/src/errors.ts';
import type { AccessPolicy } from '../../../runtime/src/net/access.ts';
import { fetchBytes } from '../../../runtime/src/net/fetch-bytes.ts';
import { shownUrl } from '../../../runtime/src/net/retry.ts';
import { refusedPermission } from '../../../runtime/src/permission.ts';
import { writeWhole } from '../files/whole.ts';
import type { ImageInput } from '../kontext/types.ts';
import { isBmp } from './bmp.ts';
import { writePngText } from './metadata/png-text.ts';
import { settingsIn } from './metadata/settings.ts';
import type { MadeWith, PictureSettings } from './metadata/types.ts';
import { withSettings } from './metadata/write.ts';
import { pixelsOf } from './node-pixels.ts';
import {
  checkPixelBytes,
  checkPixels,
  flattened,
  isOpaque,
  type PixelDepth,
  type PixelImage,
  toRgb,
} from './pixels.ts';

/** File formats {@link encodeImage} writes. */
export type ImageFormat = 'png' | 'jpeg' | 'webp';

/** Options of {@link encodeImage} and {@link saveImage}. */
export interface EncodeOptions {
  /** 1 to 100, for JPEG and WebP; default 92. WebP at 100 is lossless. */
  quality?: number;
  /** Text kept in the file under our own name, PNG only. */
  metadata?: string;
  /**
   * What the picture was made with, `{ ...result.options, seed }`: kept in the file as other programs write it (the text `parameters`)
   * and whole, so that {@link readSettings} gives it back.
   */
  settings?: MadeWith;
}

/**
 * Opens a picture as opaque 8-bit sRGB.
 *
 * EXIF orientation is applied. Transparency is laid over white. 16-bit, grey, palette and CMYK files become 8-bit RGB; an
 * embedded colour profile is converted to sRGB, files without one are taken as sRGB (CMYK without one by libvips' default).
 * Of an animation the first frame is taken. SVG and PDF are refused: they can pull in other files. Takes up to 8 bytes a pixel while it
 * runs and 4 afterwards: half a gigabyte for the largest picture allowed, 64 megapixels.
 *
 * @param role what the picture is for, named in errors; default `picture`
 * @param depth `own` keeps transparency, and in `data16` the bits of 16-bit files, but for those whose profile is a lookup table
 * @param access which hosts may be asked for it; default all
 * @throws KontextError `image-invalid`, `download-failed`, `aborted`
 */
export async function decodeImage(
  input: ImageInput,
  role = 'picture',
  signal?: AbortSignal,
  depth: PixelDepth = 'opaque',
  access?: AccessPolicy,
): Promise<PixelImage> {
  try {
    return await decode(input, role, signal, depth, access);
  } catch (error) {
    throw signal?.aborted ? abortedError(signal) : asKontextError(error, 'image-invalid', `The ${role} cannot be read`);
  }
}

async function decode(
  input: ImageInput,
  role: string,
  signal: AbortSignal | undefined,
  depth: PixelDepth,
  access: AccessPolicy | undefined,
): Promise<PixelImage> {
  if (typeof input === 'object' && input !== null && 'data' in input) return checkPixels(input, role, depth);
  const bytes = await readBytes(input, role, signal, access);
  const sharp = isBmp(bytes) ? undefined : await loadSharp();
  try {
    return await pixelsOf(sharp, bytes, role, depth, signal);
  } catch (cause) {
    if (cause instanceof KontextError) throw cause;
    const name = describe(input);
    throw new KontextError(
      'image-invalid',
      `The ${role}${name} cannot be read as a picture: ${firstLine(cause)}.`,
      {},
      { cause },
    );
  }
}

/**
 * A picture as the bytes of a file; sRGB, without a profile. PNG and WebP keep transparency, PNG 16 bits a channel too; JPEG is laid
 * over white.
 */
export async function encodeImage(
  image: PixelImage,
  format: ImageFormat,
  options: EncodeOptions = {},
): Promise<Uint8Array<ArrayBuffer>> {
  const encode = typeof format === 'string' && Object.hasOwn(encoders, format) ? encoders[format] : undefined;
  if (!encode) {
    throw new KontextError('invalid-request', `There is no format ${shown(format)}; there are png, jpeg and webp.`);
  }
  const { quality = 92, metadata, settings } = options ?? {};
  if (!(Number.isInteger(quality) && quality >= 1 && quality <= 100)) {
    throw new KontextError('invalid-request', `quality is ${shown(quality)}; it must be a whole number from 1 to 100.`);
  }
  if (metadata !== undefined && typeof metadata !== 'string') {
    throw new KontextError('invalid-request', 'metadata must be a text.');
  }
  if (settings !== undefined && !(typeof settings?.prompt === 'string' && settings.seed !== undefined)) {
    throw new KontextError('invalid-request', 'settings must be the options of a result with its seed.');
  }
  checkPixelBytes(image, 'picture');
  const sharp = await loadSharp();
  const file = new Uint8Array(await encode(rawOf(sharp, image, format), quality).toBuffer());
  const told = settings ? withSettings(file, format, settings, image) : file;
  return format === 'png' && metadata !== undefined ? writePngText(told, metadata) : told;
}

/**
 * What a picture's file says about how it was made: our own settings, or those of Stable Diffusion's web interfaces.
 *
 * @param picture path, URL, Blob or bytes of a PNG, JPEG or WebP file
 * @throws KontextError `image-invalid` when the file cannot be read or says nothing, `download-failed`, `aborted`
 */
export async function readSettings(
  picture: string | URL | Uint8Array | ArrayBuffer | Blob,
  signal?: AbortSignal,
): Promise<PictureSettings> {
  try {
    return settingsIn(await readBytes(picture, 'picture', signal));
  } catch (error) {
    throw signal?.aborted
      ? abortedError(signal)
      : asKontextError(error, 'image-invalid', 'The settings of the picture cannot be read');
  }
}

type SharpFactory = Awaited<ReturnType<typeof loadSharp>>;

/** The samples that a format can hold. */
function rawOf(sharp: SharpFactory, image: PixelImage, format: ImageFormat): Sharp {
  const { width, height, data, data16 } = image;
  if (data16 && format === 'png') {
    return sharp(data16, { raw: { width, height, channels: 4 } }).toColourspace('rgb16');
  }
  if (isOpaque(image) || format === 'jpeg') {
    return sharp(toRgb(flattened(image)), { raw: { width, height, channels: 3 } });
  }
  return sharp(data, { raw: { width, height, channels: 4 } });
}

/**
 * Writes a picture; the ending of `path` picks the format. The file appears whole or not at all.
 *
 * @throws KontextError `invalid-request` when the ending is none of .png, .jpg, .jpeg, .webp
 */
export async function saveImage(path: string, image: PixelImage, options: EncodeOptions = {}): Promise<void> {
  await writeWhole(path, await encodeImage(image, formatOf(path), options));
}

/** @throws KontextError `image-invalid` where files cannot be written, because sharp is not installed: to know it before the work */
export async function assertCanEncode(): Promise<void> {
  await loadSharp();
}

/** The format a file name asks for. */
export function formatOf(path: string): ImageFormat {
  const format = typeof path === 'string' ? FORMATS[extname(path).toLowerCase()] : undefined;
  if (format) return format;
  throw new KontextError('invalid-request', `${shown(path)} must end in ${Object.keys(FORMATS).join(', ')}.`);
}

const FORMATS: Record<string, ImageFormat> = { '.png': 'png', '.jpg': 'jpeg', '.jpeg': 'jpeg', '.webp': 'webp' };

const encoders: Record<ImageFormat, (raw: Sharp, quality: number) => Sharp> = {
  png: (raw) => raw.png(),
  // 4:4:4, because halved colour resolution shows at the edges of edited objects.
  jpeg: (raw, quality) => raw.jpeg({ quality, chromaSubsampling: '4:4:4' }),
  webp: (raw, quality) => raw.webp({ quality, lossless: quality === 100, exact: true }),
};

async function readBytes(
  input: Exclude<ImageInput, PixelImage>,
  role: string,
  signal?: AbortSignal,
  access?: AccessPolicy,
): Promise<Uint8Array> {
  if (input instanceof Uint8Array) return input;
  if (input instanceof ArrayBuffer) return new Uint8Array(input);
  if (input instanceof Blob) return new Uint8Array(await input.arrayBuffer());
  if (typeof input !== 'string' && !(input instanceof URL)) {
    throw new KontextError(
      'image-invalid',
      `The ${role} is no picture: give a path, a URL, the bytes of a file, or pixels.`,
    );
  }
  const url = toUrl(input);
  if (url && url.protocol !== 'file:') return download(url, role, signal, access);
  const path = url ? fileURLToPath(url) : String(input);
  try {
    return await readFile(path, { signal });
  } catch (cause) {
    if (signal?.aborted) throw abortedError(signal);
    const missing = (cause as NodeJS.ErrnoException).code === 'ENOENT';
    const why = missing ? 'there is no such file' : firstLine(cause);
    throw new KontextError('image-invalid', `The ${role} ${path} cannot be opened: ${why}.`, { path }, { cause });
  }
}

async function download(url: URL, role: string, signal?: AbortSignal, access?: AccessPolicy): Promise<Uint8Array> {
  try {
    // Inline, nothing is asked of anybody.
    if (url.protocol === 'data:') return new Uint8Array(await (await fetch(url)).arrayBuffer());
    return (await fetchBytes(url, MAX_PICTURE_BYTES, { signal, access, attempts: 3 })).bytes;
  } catch (cause) {
    if (signal?.aborted) throw abortedError(signal);
    const details = cause instanceof KontextError ? cause.details : { url: shownUrl(url.href) };
    throw new KontextError(
      'download-failed',
      `Could not fetch the ${role} ${shownUrl(url.href)}: ${firstLine(cause)}.`,
      details,
      { cause },
    );
  }
}

/** Of one picture file on a server; more is not read. */
const MAX_PICTURE_BYTES = 256 * 2 ** 20;

/** A URL when `input` is one; single letters before a colon are Windows drives. */
function toUrl(input: string | URL): URL | undefined {
  if (input instanceof URL) return input;
  return /^(https?|file|data):/i.test(input) ? new URL(input) : undefined;
}

async function loadSharp() {
  try {
    return (await import('sharp')).default;
  } catch (cause) {
    const refused = refusedPermission(cause);
    throw new KontextError(
      'image-invalid',
      refused
        ? `Reading and writing image files needs sharp, which cannot be loaded. ${refused}`
        : 'Reading and writing image files in Node needs sharp: run `npm install sharp`, or hand over raw RGBA pixels.',
      {},
      { cause },
    );
  }
}

function describe(input: ImageInput): string {
  return typeof input === 'string' || input instanceof URL ? ` ${String(input).slice(0, 200)}` : '';
}

function firstLine(error: unknown): string {
  return String((error as Error).message ?? error)
    .split('\n')[0]!
    .replace(/\.$/, '');
}
