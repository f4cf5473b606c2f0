// Bytes of a picture file to opaque 8-bit sRGB pixels, in Node: what sharp does well by sharp, and the rest around it.
// Decoding runs in libvips' threads; the event loop is free meanwhile.
import type { Sharp, SharpOptions } from 'sharp';
import { abortedError } from '../../../runtime/src/errors.ts';
import { MAX_INPUT_PIXELS } from '../kontext/options.ts';
import { decodeBmp } from './bmp.ts';
import { type ColourConversion, conversionToSrgb } from './icc.ts';
import { checkImageSize, type PixelDepth, type PixelImage } from './pixels.ts';
import { isRaster } from './raster-formats.ts';
import { breather } from './slices.ts';

type SharpModule = (input: Uint8Array, options?: SharpOptions) => Sharp;

const OPTIONS: SharpOptions = { autoOrient: true, failOn: 'truncated', limitInputPixels: MAX_INPUT_PIXELS };

/**
 * @param sharp left out for a bitmap, which needs none
 * @param role what the picture is for, named in errors
 * @param depth whether transparency and bits beyond eight are kept
 * @throws Error saying what is wrong with the file; KontextError `image-invalid` for its size, `aborted` as soon as `signal` fires
 */
export async function pixelsOf(
  sharp: SharpModule | undefined,
  bytes: Uint8Array,
  role: string,
  depth: PixelDepth,
  signal: AbortSignal | undefined,
): Promise<PixelImage> {
  if (!sharp) return decodeBmp(bytes, role);
  const about = await orAborted(sharp(bytes, OPTIONS).metadata(), signal);
  const { format, width, height, depth: bits, icc, space } = about;
  if (!isRaster(format)) {
    throw new Error(`${format ?? 'this format'} is not supported; use PNG, JPEG or WebP`);
  }
  checkImageSize(width, height, role);
  const conversion = bits === 'ushort' && icc ? conversionToSrgb(icc) : undefined;
  try {
    if (conversion) return await profiledPixels(sharp, bytes, conversion, depth, signal);
    if (bits !== 'ushort') return await plainPixels(sharp, bytes, depth, signal);
    if (icc && space === 'rgb16') {
      return await plainPixels(sharp, await eightBits(sharp, bytes, signal), depth, signal);
    }
    return await (depth === 'own' ? deepPixels(sharp, bytes, signal) : plainPixels(sharp, bytes, depth, signal));
  } catch (cause) {
    if (format === 'heif' && isHevc(bytes)) throw new Error(HEIC_ADVICE, { cause });
    throw cause;
  }
}

async function plainPixels(
  sharp: SharpModule,
  bytes: Uint8Array,
  depth: PixelDepth,
  signal: AbortSignal | undefined,
): Promise<PixelImage> {
  const picture = sharp(bytes, OPTIONS);
  if (depth === 'opaque') picture.flatten({ background: '#ffffff' });
  const pipeline = picture.toColourspace('srgb').ensureAlpha().raw({ depth: 'uchar' });
  const { data, info } = await orAborted(pipeline.toBuffer({ resolveWithObject: true }), signal);
  if (info.channels !== 4) throw new Error(`it decodes to ${info.channels} channels`);
  return { width: info.width, height: info.height, data: ownBytes(data) };
}

/** A 16-bit file: all of its bits, and the upper eight as the pipeline sees them. */
async function deepPixels(sharp: SharpModule, bytes: Uint8Array, signal: AbortSignal | undefined): Promise<PixelImage> {
  const pipeline = sharp(bytes, OPTIONS).toColourspace('rgb16').ensureAlpha().raw({ depth: 'ushort' });
  const { data, info } = await orAborted(pipeline.toBuffer({ resolveWithObject: true }), signal);
  // A copy, because the library's memory need not lie at an even address.
  const data16 = new Uint16Array(new Uint8Array(data).buffer);
  return {
    width: info.width,
    height: info.height,
    data: Uint8ClampedArray.from(data16, (value) => value >> 8),
    data16,
  };
}

/** 16 bits a sample with a profile: samples as they are, and their colours by {@link ColourConversion}. */
async function profiledPixels(
  sharp: SharpModule,
  bytes: Uint8Array,
  { colours, convert }: ColourConversion,
  depth: PixelDepth,
  signal: AbortSignal | undefined,
): Promise<PixelImage> {
  // Keeping the profile is how sharp is told to leave the samples alone.
  const pipeline = sharp(bytes, OPTIONS)
    .keepIccProfile()
    .toColourspace(colours === 1 ? 'grey16' : 'rgb16')
    .raw({ depth: 'ushort' });
  const { data, info } = await orAborted(pipeline.toBuffer({ resolveWithObject: true }), signal);
  const { width, height, channels } = info;
  if (channels < colours) throw new Error(`it decodes to ${channels} channels`);
  const aligned = data.byteOffset % 2 === 0 ? data : new Uint8Array(data);
  const samples = new Uint16Array(aligned.buffer, aligned.byteOffset, data.byteLength / 2);
  const keeps = depth === 'own';
  const image = new Uint8ClampedArray(width * height * 4);
  const data16 = keeps ? new Uint16Array(image.length) : undefined;
  const pixel = Uint16Array.of(0, 0, 0, 65535);
  const pause = breather(signal);
  for (let y = 0; y < height; y++) {
    for (let i = y * width; i < (y + 1) * width; i++) {
      convert(samples, i * channels, pixel);
      pixel[3] = channels > colours ? samples[i * channels + colours]! : 65535;
      data16?.set(pixel, 4 * i);
      const share = keeps ? 1 : pixel[3] / 65535;
      for (let c = 0; c < 3; c++) image[4 * i + c] = (pixel[c]! * share) / 257 + 255 * (1 - share);
      image[4 * i + 3] = keeps ? pixel[3] / 257 : 255;
    }
    await pause();
  }
  return { width, height, data: image, ...(data16 && { data16 }) };
}

/**
 * A 16-bit file in as many bits as sharp converts rightly, with its profile. For profiles of lookup tables: LittleCMS, behind sharp, does
 * those, and what is beyond eight bits is lost.
 */
function eightBits(sharp: SharpModule, bytes: Uint8Array, signal: AbortSignal | undefined): Promise<Uint8Array> {
  const pipeline = sharp(bytes, OPTIONS).keepIccProfile().toColourspace('srgb').png({ compressionLevel: 1 });
  return orAborted(pipeline.toBuffer(), signal);
}

/** sharp hands over memory of its own; only small results may lie in a shared pool. */
function ownBytes(data: Buffer): PixelImage['data'] {
  const whole = data.byteOffset === 0 && data.byteLength === data.buffer.byteLength;
  return whole ? new Uint8ClampedArray(data.buffer as ArrayBuffer) : new Uint8ClampedArray(data);
}

/** libvips cannot be stopped; its result is dropped when it comes. */
function orAborted<T>(work: Promise<T>, signal: AbortSignal | undefined): Promise<T> {
  if (!signal) return work;
  return new Promise((resolve, reject) => {
    const stop = () => reject(abortedError(signal));
    if (signal.aborted) stop();
    signal.addEventListener('abort', stop, { once: true });
    work.then(resolve, reject).finally(() => signal.removeEventListener('abort', stop));
  });
}

const HEIC_ADVICE =
  'it is a HEIC photo (HEVC), which sharp has no decoder for. Save it as JPEG: on an iPhone by Settings, Camera, Formats, Most ' +
  'Compatible; otherwise with `sips -s format jpeg IN --out OUT` on macOS or `heif-convert IN OUT` on Linux';

/** By the brands of the file type box (ISO/IEC 23008-12, annex B): AVIF's are others. */
function isHevc(bytes: Uint8Array): boolean {
  const head = String.fromCharCode(...bytes.subarray(4, 64));
  return head.startsWith('ftyp') && /hei[cxms]|hev[cxms]|mif1|msf1/.test(head) && !/avi[fs]/.test(head);
}
