// Pictures in a page or worker: everything a browser can show becomes pixels, and pixels become files, bitmaps, canvases.
// The platform decodes; what is decided here is only that no colour changes on the way.
import { abortedError, KontextError } from '../../../runtime/src/errors.ts';
import { type AccessPolicy, checkAccess } from '../../../runtime/src/net/access.ts';
import type { ImageInput } from '../kontext/types.ts';
import { pageUrl } from '../worker/page-url.ts';
import { checkImageSize, checkPixels, isOpaque, type PixelDepth, type PixelImage } from './pixels.ts';

/** File formats {@link toBlob} writes. */
export type ImageFormat = 'png' | 'jpeg' | 'webp';

/** Options of {@link toBlob}. */
export interface BlobOptions {
  /** Defaults to `png`. */
  format?: ImageFormat;
  /** 1 to 100, for JPEG and WebP; default 92. */
  quality?: number;
}

/**
 * Opens a picture as opaque 8-bit sRGB: a Blob or File, a URL, bytes of a file, an ImageBitmap, ImageData, canvas, `<img>`,
 * `<video>` or VideoFrame.
 *
 * EXIF orientation of files is applied. Transparency is laid over white. Embedded colour profiles and wide-gamut sources are
 * converted to sRGB; an opaque sRGB picture keeps every byte.
 *
 * @param role what the picture is for, named in errors; default `picture`
 * @param depth `own` keeps transparency
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
  if (isPixels(input)) return checkPixels(input, role, depth);
  if (isElement(input)) await elementReady(input, role);
  if (isDrawable(input)) return depth === 'own' ? ownPixels(input, role) : drawn(input, role);
  const blob = await fileOf(input, role, signal, access);
  let bitmap: ImageBitmap;
  try {
    // premultiplyAlpha none: the bitmap keeps the file's own bytes until it is laid over white.
    bitmap = await createImageBitmap(blob, { premultiplyAlpha: 'none' });
  } catch (cause) {
    const { unreadable } = await import('./unreadable.ts');
    throw new KontextError(
      'image-invalid',
      `The ${role}${describe(input)} ${await unreadable(blob)}`,
      { type: blob.type, bytes: blob.size },
      { cause },
    );
  }
  try {
    return depth === 'own' ? await ownPixels(bitmap, role) : drawn(bitmap, role);
  } finally {
    bitmap.close();
  }
}

/** A picture as the bytes of a file. @throws KontextError `invalid-request` when the browser cannot write the format */
export async function toBlob(image: PixelImage, options: BlobOptions = {}): Promise<Blob> {
  const { format = 'png', quality = 92 } = options;
  const type = `image/${format}`;
  const canvas = new OffscreenCanvas(image.width, image.height);
  put(image, canvas);
  const blob = await canvas.convertToBlob({ type, quality: quality / 100 });
  if (blob.type === type) return blob;
  throw new KontextError('invalid-request', `This browser cannot write ${format} files; use png or jpeg.`, { format });
}

/** A picture as an ImageBitmap; `close()` it when done. */
export function toImageBitmap(image: PixelImage): Promise<ImageBitmap> {
  return createImageBitmap(toImageData(image), { premultiplyAlpha: 'none', colorSpaceConversion: 'none' });
}

/** A picture as ImageData, sharing its memory. */
export function toImageData(image: PixelImage): ImageData {
  return new ImageData(image.data, image.width, image.height);
}

/** A new canvas with a picture on it. */
export function toCanvas(image: PixelImage): OffscreenCanvas;
/** Draws a picture into a canvas, which takes its size. @returns the canvas */
export function toCanvas<T extends HTMLCanvasElement | OffscreenCanvas>(image: PixelImage, canvas: T): T;
export function toCanvas(
  image: PixelImage,
  canvas: HTMLCanvasElement | OffscreenCanvas = new OffscreenCanvas(1, 1),
): HTMLCanvasElement | OffscreenCanvas {
  canvas.width = image.width;
  canvas.height = image.height;
  put(image, canvas);
  return canvas;
}

/**
 * What of a picture can cross to a worker without being copied there: bitmaps and frames that the worker may keep, blobs and
 * absolute URLs as they are. The caller's own bitmaps, frames and buffers stay usable.
 *
 * @param transfer receives what must be in the message's transfer list
 */
export async function toPortable(input: ImageInput, role: string, transfer: Transferable[]): Promise<ImageInput> {
  if (isElement(input)) await elementReady(input, role);
  if (isPixels(input)) {
    // An ImageData of another colour space is told by its own type only.
    return isWide(input) ? input : { width: input.width, height: input.height, data: input.data };
  }
  if (isDrawable(input)) {
    const copy = isFrame(input) ? input.clone() : await createImageBitmap(input);
    transfer.push(copy);
    return copy;
  }
  if (typeof input === 'string' || input instanceof URL) return pageUrl(input).href;
  return input;
}

type Drawable = Exclude<ImageInput, PixelImage | Uint8Array | ArrayBuffer | Blob | URL | string>;

/** Lays a source over white and reads it back. */
function drawn(source: Drawable, role: string): PixelImage {
  const { width, height } = sizeOf(source);
  checkImageSize(width, height, role);
  const context = context2d(new OffscreenCanvas(width, height));
  context.fillStyle = '#ffffff';
  context.fillRect(0, 0, width, height);
  try {
    context.drawImage(source, 0, 0, width, height);
    return { width, height, data: context.getImageData(0, 0, width, height, { colorSpace: 'srgb' }).data as Pixels };
  } catch (cause) {
    throw new KontextError(
      'image-invalid',
      `The ${role} cannot be read: ${(cause as Error).message}. A picture of another site needs crossorigin="anonymous".`,
      {},
      { cause },
    );
  }
}

/** The picture's own bytes; where all are opaque, they are what is drawn. Pages give 8 bits a channel. */
async function ownPixels(source: Drawable, role: string): Promise<PixelImage> {
  const { width, height } = sizeOf(source);
  checkImageSize(width, height, role);
  const canvas = new OffscreenCanvas(width, height);
  context2d(canvas).drawImage(source, 0, 0, width, height);
  if (isOpaque({ width, height, data: context2d(canvas).getImageData(0, 0, width, height).data as Pixels })) {
    return drawn(source, role);
  }
  const { unmultipliedPixels } = await import('./unmultiplied.ts');
  const bitmap = await createImageBitmap(source, { premultiplyAlpha: 'none' });
  try {
    return unmultipliedPixels(bitmap, role);
  } finally {
    bitmap.close();
  }
}

type Pixels = PixelImage['data'];

/** Read back once, so it stays in main memory: a round trip through the GPU costs time and on some drivers bits. */
function context2d(canvas: HTMLCanvasElement | OffscreenCanvas): CanvasRenderingContext2D {
  const context = canvas.getContext('2d', { colorSpace: 'srgb', willReadFrequently: true });
  if (context) return context as CanvasRenderingContext2D;
  throw new KontextError('image-invalid', 'This canvas already has another kind of context; use a fresh one.');
}

function put(image: PixelImage, canvas: HTMLCanvasElement | OffscreenCanvas): void {
  context2d(canvas).putImageData(toImageData(image), 0, 0);
}

function isPixels(input: ImageInput): input is PixelImage {
  return typeof input === 'object' && 'data' in input && 'width' in input && !isWide(input);
}

/** ImageData of a wide-gamut canvas; its bytes mean other colours. */
function isWide(input: object): boolean {
  return typeof ImageData === 'function' && input instanceof ImageData && input.colorSpace !== 'srgb';
}

function isDrawable(input: ImageInput): input is Drawable {
  return DRAWABLE.some((name) => isInstance(input, name));
}

function isElement(input: ImageInput): input is HTMLImageElement | HTMLVideoElement {
  return isInstance(input, 'HTMLImageElement') || isInstance(input, 'HTMLVideoElement');
}

function isFrame(input: object): input is VideoFrame {
  return isInstance(input, 'VideoFrame');
}

const DRAWABLE = [
  'ImageBitmap',
  'HTMLImageElement',
  'HTMLCanvasElement',
  'OffscreenCanvas',
  'HTMLVideoElement',
  'VideoFrame',
];

/** By name, because workers lack the classes of elements and some browsers lack VideoFrame. */
function isInstance(input: unknown, name: string): boolean {
  const type = (globalThis as Record<string, unknown>)[name];
  return typeof type === 'function' && input instanceof type;
}

async function elementReady(element: HTMLImageElement | HTMLVideoElement, role: string): Promise<void> {
  if (isInstance(element, 'HTMLVideoElement')) return;
  try {
    await (element as HTMLImageElement).decode();
  } catch (cause) {
    throw new KontextError('image-invalid', `The ${role} is an <img> that did not load.`, {}, { cause });
  }
}

function sizeOf(source: Drawable): { width: number; height: number } {
  if ('displayWidth' in source) return { width: source.displayWidth, height: source.displayHeight };
  if ('naturalWidth' in source) return { width: source.naturalWidth, height: source.naturalHeight };
  if ('videoWidth' in source) return { width: source.videoWidth, height: source.videoHeight };
  return { width: source.width, height: source.height };
}

async function fileOf(input: ImageInput, role: string, signal?: AbortSignal, access?: AccessPolicy): Promise<Blob> {
  if (input instanceof Blob) return input;
  if (input instanceof Uint8Array || input instanceof ArrayBuffer) return new Blob([input as BlobPart]);
  if (input instanceof ImageData) {
    // Wide gamut: a PNG with the profile inside takes the same way as any file.
    const canvas = new OffscreenCanvas(input.width, input.height);
    canvas.getContext('2d', { colorSpace: input.colorSpace })!.putImageData(input, 0, 0);
    return canvas.convertToBlob();
  }
  if (typeof input !== 'string' && !(input instanceof URL)) {
    throw new KontextError('image-invalid', `The ${role} is no picture: give a Blob, URL, canvas, <img> or pixels.`);
  }
  try {
    const url = pageUrl(input);
    if (access && /^https?:$/.test(url.protocol)) checkAccess(url, access);
    const response = await fetch(input, { signal: signal ?? null });
    if (!response.ok) throw new Error(`HTTP ${response.status}`);
    return await response.blob();
  } catch (cause) {
    if (signal?.aborted) throw abortedError(signal);
    throw new KontextError(
      'download-failed',
      `Could not fetch the ${role} ${String(input).slice(0, 200)}: ${(cause as Error).message}.`,
      { url: String(input).slice(0, 200) },
      { cause },
    );
  }
}

function describe(input: ImageInput): string {
  return typeof input === 'string' || input instanceof URL ? ` ${String(input).slice(0, 200)}` : '';
}
