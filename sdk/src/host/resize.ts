// Typed facade of Pillow's resampling: the same bytes as PIL.Image.resize for 8-bit grey, RGB and RGBA.
// Feeds rows in and fetches rows out by the band, so that the WASM memory stays small for any photo.
import { KontextError } from '../../../runtime/src/errors.ts';
import { fromRgb } from '../image/pixels.ts';
import { breather } from '../image/slices.ts';
import type { ErrorTable, Host } from './module.ts';

/** An 8-bit image: rows from the top, pixels from the left, channels interleaved, no padding between rows. */
export interface ByteImage<Data extends Uint8Array | Uint8ClampedArray = Uint8Array | Uint8ClampedArray> {
  /** `width · height · channels` bytes. */
  data: Data;
  /** Pixels, 1 to 65,535. */
  width: number;
  /** Pixels, 1 to 65,535. */
  height: number;
  /** 1 grey, 3 RGB, 4 RGBA with alpha not multiplied in (a canvas' `ImageData`). */
  channels: 1 | 3 | 4;
}

/** The array that {@link resize} makes of a given one: subclasses such as Node's Buffer become plain. */
export type Resized<Data> = Data extends Uint8ClampedArray ? Uint8ClampedArray<ArrayBuffer> : Uint8Array<ArrayBuffer>;

/** Pillow's BOX, BILINEAR and LANCZOS; all of them widen with the reduction, so none skips pixels. */
export type ResizeFilter = 'box' | 'bilinear' | 'lanczos';

const FILTER_NUMBERS: Readonly<Record<ResizeFilter, number>> = { box: 0, bilinear: 1, lanczos: 2 };
const MAX_SIDE = 65535;
/** Keeps the byte count of a result an exact array length everywhere. */
const MAX_BYTES = 2 ** 31 - 1;

const errors: ErrorTable = {
  [-1]: () => ['out-of-memory', 'The WASM memory cannot grow far enough. Reduce the image in two steps.'],
};

/**
 * `PIL.Image.resize((width, height), filter)`, byte for byte: coefficients rounded to 22 bits, 8 bits between the
 * passes, and the order of the passes of Pillow 13 (vertical first when that removes far more rows than the horizontal
 * pass removes columns; earlier releases always went horizontally first, which differs by 1 or 2 in a photo).
 *
 * RGBA is filtered with its colours multiplied by alpha and divided again, as Pillow does. The reference pipelines drop
 * alpha first (`convert('RGB')`): give them three channels.
 *
 * @param width pixels, 1 to 65,535
 * @param height pixels, 1 to 65,535
 * @returns a new image with the same channels, clamped where the given one is; a copy when the size is the same
 * @throws KontextError `image-invalid` when the data does not fit the size; `invalid-request` for a size or filter out
 *   of range; `out-of-memory` when the filter's rows do not fit (a photo reduced to a few pixels of height)
 */
export function resize<Data extends Uint8Array | Uint8ClampedArray>(
  host: Host,
  image: ByteImage<Data>,
  width: number,
  height: number,
  filter: ResizeFilter = 'lanczos',
): ByteImage<Resized<Data>> {
  checkImage(image);
  // By kind and not by constructor: a subclass such as Node's Buffer need not take a length.
  const kind = image.data instanceof Uint8ClampedArray ? Uint8ClampedArray : Uint8Array;
  checkTarget(width, height, image.channels);
  const data = new kind(width * height * image.channels) as Resized<Data>;
  for (const _ of bands(host, rowsOf(image), { data, width, height }, filter));
  return { data, width, height, channels: image.channels };
}

/**
 * {@link resize} of a picture's colours with Pillow's LANCZOS, in turns with whatever else the thread has to do: a photo of 256
 * megapixels takes seconds. Alpha is dropped on the way in and 255 on the way out, so that beside the two pictures it takes a few rows of
 * memory. The module is not to be used for anything else meanwhile.
 *
 * @throws KontextError as {@link resize}; `aborted` within a turn
 */
export async function resizeInTurns(
  host: Host,
  image: { data: Uint8ClampedArray; width: number; height: number },
  width: number,
  height: number,
  signal?: AbortSignal,
): Promise<{ data: Uint8ClampedArray<ArrayBuffer>; width: number; height: number }> {
  checkImage({ ...image, channels: 4 });
  checkTarget(width, height, 4);
  const copy = (to: Uint8Array, first: number, rows: number) => {
    let from = first * image.width * 4;
    for (let at = 0; at < rows * image.width * 3; at += 3, from += 4) {
      to[at] = image.data[from]!;
      to[at + 1] = image.data[from + 1]!;
      to[at + 2] = image.data[from + 2]!;
    }
  };
  const data = new Uint8Array(width * height * 3);
  const source = { width: image.width, height: image.height, channels: 3 as const, copy };
  await inTurns(bands(host, source, { data, width, height }, 'lanczos'), signal);
  return fromRgb(data, width, height);
}

/** {@link resizeInTurns} of bytes with one or three channels, such as a mask's. @throws KontextError as that */
export async function resizeBytesInTurns(
  host: Host,
  image: ByteImage<Uint8Array>,
  width: number,
  height: number,
  signal?: AbortSignal,
): Promise<Uint8Array<ArrayBuffer>> {
  checkImage(image);
  checkTarget(width, height, image.channels);
  const data = new Uint8Array(width * height * image.channels);
  await inTurns(bands(host, rowsOf(image), { data, width, height }, 'lanczos'), signal);
  return data;
}

async function inTurns(work: Iterable<void>, signal: AbortSignal | undefined): Promise<void> {
  const pause = breather(signal);
  for (const _ of work) await pause();
}

/** Where source rows come from: `copy` writes `rows` of them from `first` on, packed. */
interface RowSource extends Omit<ByteImage, 'data'> {
  copy(to: Uint8Array, first: number, rows: number): void;
}

function rowsOf({ data, width, height, channels }: ByteImage): RowSource {
  const rowBytes = width * channels;
  const copy = (to: Uint8Array, first: number, rows: number) => {
    to.set(data.subarray(first * rowBytes, (first + rows) * rowBytes));
  };
  return { width, height, channels, copy };
}

/** Resizes into `target`, a band of source rows at a time; pauses after each. */
function* bands(
  host: Host,
  source: RowSource,
  target: { data: Uint8Array | Uint8ClampedArray; width: number; height: number },
  filter: ResizeFilter,
): Generator<void> {
  const filterNumber = FILTER_NUMBERS[filter];
  if (filterNumber === undefined) {
    throw invalid(`The filter is 'lanczos', 'bilinear' or 'box', not ${filter}.`, { filter });
  }
  const { exports } = host;
  const { width, height, channels, copy } = source;
  const job = host.check(
    exports.resizeBegin(width, height, channels, target.width, target.height, filterNumber),
    errors,
  );
  const resultRow = target.width * channels;
  const bandRows = exports.resizeBandRows(job);
  const outRows = exports.resizeOutRows(job);
  let taken = 0;
  let made = 0;
  while (made < target.height) {
    let rows = Math.min(bandRows, height - taken);
    const band = exports.resizeBand(job) >>> 0;
    copy(host.bytes.subarray(band, band + rows * width * channels), taken, rows);
    taken += rows;
    let finished: number;
    do {
      finished = exports.resizeStep(job, rows);
      const out = exports.resizeOut(job) >>> 0;
      target.data.set(host.bytes.subarray(out, out + finished * resultRow), made * resultRow);
      made += finished;
      rows = 0;
    } while (finished === outRows);
    yield;
  }
}

function checkImage({ data, width, height, channels }: ByteImage): void {
  if (!isSide(width) || !isSide(height)) {
    throw new KontextError(
      'image-invalid',
      `An image has 1 to ${MAX_SIDE} pixels a side; this one claims ${width} × ${height}.`,
      { width, height },
    );
  }
  if (channels !== 1 && channels !== 3 && channels !== 4) {
    throw new KontextError('image-invalid', `An image has 1, 3 or 4 channels, not ${channels}.`, { channels });
  }
  if (data.length !== width * height * channels) {
    throw new KontextError(
      'image-invalid',
      `An image of ${width} × ${height} with ${channels} channels has ${width * height * channels} bytes; this one has ${data.length}.`,
      { width, height, channels, bytes: data.length },
    );
  }
}

function checkTarget(width: number, height: number, channels: number): void {
  if (!isSide(width) || !isSide(height)) {
    throw invalid(`An image can be resized to 1 to ${MAX_SIDE} pixels a side, not to ${width} × ${height}.`, {
      width,
      height,
    });
  }
  if (width * height * channels > MAX_BYTES) {
    throw invalid(`${width} × ${height} with ${channels} channels is above ${MAX_BYTES} bytes.`, { width, height });
  }
}

function isSide(pixels: number): boolean {
  return Number.isInteger(pixels) && pixels >= 1 && pixels <= MAX_SIDE;
}

function invalid(message: string, details: Record<string, unknown>): KontextError {
  return new KontextError('invalid-request', message, details);
}
