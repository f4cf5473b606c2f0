// Typed facade of Pillow's resampling: the same bytes as PIL.Image.resize for 8-bit grey, RGB and RGBA.
// Feeds rows in and fetches rows out by the band, so that the WASM memory stays small for any photo.
import { KontextError } from '../../../runtime/src/errors.ts';
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
  const sourceRow = image.width * image.channels;
  const rows: RowSource = (to, first, count) =>
    to.set(image.data.subarray(first * sourceRow, (first + count) * sourceRow));
  const steps = resizeSteps(host, { ...image, rows }, width, height, filter);
  // By kind and not by constructor: a subclass such as Node's Buffer need not take a length.
  const kind = image.data instanceof Uint8ClampedArray ? Uint8ClampedArray : Uint8Array;
  for (;;) {
    const { done, value } = steps.next();
    if (done) return { data: new kind(value.buffer) as Resized<Data>, width, height, channels: image.channels };
  }
}

/** Writes the rows `first` to `first + count` of a picture, packed, into `to`. */
export type RowSource = (to: Uint8Array, first: number, count: number) => void;

/**
 * {@link resize} of rows that are asked for as they are needed, in steps of about a band. Between two steps no other task may use
 * `host`: it needs one of its own where they do.
 *
 * @returns steps to walk through; the last gives the result's bytes
 * @throws KontextError as {@link resize}
 */
export function* resizeSteps(
  host: Host,
  source: { width: number; height: number; channels: 1 | 3 | 4; rows: RowSource },
  width: number,
  height: number,
  filter: ResizeFilter = 'lanczos',
): Generator<undefined, Uint8Array<ArrayBuffer>> {
  checkTarget(width, height, source.channels);
  const filterNumber = FILTER_NUMBERS[filter];
  if (filterNumber === undefined) {
    throw invalid(`The filter is 'lanczos', 'bilinear' or 'box', not ${filter}.`, { filter });
  }
  const { exports } = host;
  const job = host.check(
    exports.resizeBegin(source.width, source.height, source.channels, width, height, filterNumber),
    errors,
  );
  const sourceRow = source.width * source.channels;
  const resultRow = width * source.channels;
  const data = new Uint8Array(resultRow * height);
  const bandRows = exports.resizeBandRows(job);
  const outRows = exports.resizeOutRows(job);
  let taken = 0;
  let made = 0;
  while (made < height) {
    let rows = Math.min(bandRows, source.height - taken);
    const band = exports.resizeBand(job) >>> 0;
    source.rows(host.bytes.subarray(band, band + rows * sourceRow), taken, rows);
    taken += rows;
    let finished: number;
    do {
      finished = exports.resizeStep(job, rows);
      const out = exports.resizeOut(job) >>> 0;
      data.set(host.bytes.subarray(out, out + finished * resultRow), made * resultRow);
      made += finished;
      rows = 0;
      yield;
    } while (finished === outRows);
  }
  return data;
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
