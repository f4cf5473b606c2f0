// Pillow's resampling of 8-bit images: separable filters in 22-bit fixed point, 8 bits between the two passes.
// Rows stream through a ring of the filter's height, so memory depends on a row's length and not on the image's size.
import { Status, fail, reset, scratch } from './memory';

/** Errors of `resizeBegin`; errorDetail() is the position of the refused argument. */
const INVALID_ARGUMENT: i32 = -100;

const BOX: i32 = 0;
const BILINEAR: i32 = 1;
const LANCZOS: i32 = 2;

/** Fraction bits of a coefficient: 8 bits of pixel and 2 bits of overshoot leave 22 of 32. */
const PRECISION: i32 = 22;
/** A coefficient is high * 2^12 + low, so that both halves suit the 16-bit dot product, which is exact. */
const LOW_BITS: i32 = 12;
/** Rows are read up to 16 bytes past their end: the coefficients there are 0. */
const SLACK: u32 = 32;
/** Bytes moved between the host and the module at a time. */
const BAND: u32 = 1 << 16;

/** The filter taps of one axis: output i is the sum over t of source[first(i) + t] * coefficient(i, t). */
@unmanaged
class Axis {
  /** Address of (first, count) for each output, 32 bits each; 0 when source and result have the same size. */
  bounds: usize;
  /** Addresses of the low and the high halves, 16 bits each, `stride` of them for each output, zeros after `count`. */
  low: usize;
  high: usize;
  stride: u32;
}

/** One image on its way. */
@unmanaged
class Resizer {
  horizontal: Axis;
  vertical: Axis;
  verticalFirst: bool;
  /** Grey 1, RGB 3, RGBA 4: bytes of a pixel. RGBA is filtered with its colours multiplied by alpha. */
  channels: u32;
  width: u32;
  outWidth: u32;
  outHeight: u32;
  ring: usize;
  ringRows: u32;
  ringRowBytes: u32;
  /** Room for one row before or between the passes. */
  work: usize;
  /** Addresses of the source rows of the output row at hand. */
  rows: usize;
  band: usize;
  bandRows: u32;
  bandNext: u32;
  bandEnd: u32;
  out: usize;
  outRows: u32;
  rowsIn: u32;
  rowsOut: u32;
}

/**
 * Prepares to resize an image as Pillow 13's `Image.resize` does; everything lives in scratch memory, which this empties first.
 *
 * @param width pixels, 1 to 65,535, as are `height`, `outWidth` and `outHeight`
 * @param channels 1 grey, 3 RGB, 4 RGBA (not premultiplied)
 * @param filter 0 box, 1 bilinear, 2 Lanczos with three lobes
 * @returns address of the job; or INVALID_ARGUMENT, OUT_OF_MEMORY
 */
export function resizeBegin(
  width: u32,
  height: u32,
  channels: u32,
  outWidth: u32,
  outHeight: u32,
  filter: i32,
): i32 {
  if (width - 1 >= 0xffff) return fail(INVALID_ARGUMENT, 0);
  if (height - 1 >= 0xffff) return fail(INVALID_ARGUMENT, 1);
  if (channels != 1 && channels != 3 && channels != 4) return fail(INVALID_ARGUMENT, 2);
  if (outWidth - 1 >= 0xffff) return fail(INVALID_ARGUMENT, 3);
  if (outHeight - 1 >= 0xffff) return fail(INVALID_ARGUMENT, 4);
  if (<u32>filter > <u32>LANCZOS) return fail(INVALID_ARGUMENT, 5);
  reset();
  const job = scratch(offsetof<Resizer>());
  if (!job) return fail(Status.OUT_OF_MEMORY, 0);
  const r = changetype<Resizer>(job);
  const horizontal = makeAxis(width, outWidth, filter);
  const vertical = makeAxis(height, outHeight, filter);
  if (!horizontal || !vertical) return fail(Status.OUT_OF_MEMORY, 0);
  r.horizontal = changetype<Axis>(horizontal);
  r.vertical = changetype<Axis>(vertical);
  // Pillow 13 takes the vertical pass first when it removes far more than the horizontal one (its pull request 9549).
  r.verticalFirst = outHeight < height && <i32>(height - outHeight) > 2 * (<i32>width - <i32>outWidth);
  r.channels = channels;
  r.width = width;
  r.outWidth = outWidth;
  r.outHeight = outHeight;
  r.ringRows = r.vertical.bounds ? min(r.vertical.stride, height) : 1;
  r.ringRowBytes = ((r.verticalFirst ? width : outWidth) * channels + SLACK + 15) & ~15;
  r.bandRows = max<u32>(1, BAND / (width * channels));
  r.outRows = max<u32>(1, BAND / (outWidth * channels));
  const ringBytes = <u64>r.ringRows * r.ringRowBytes;
  r.ring = ringBytes < 0xffff0000 ? scratch(<u32>ringBytes) : 0;
  r.work = scratch(max(width, outWidth) * channels + SLACK);
  r.rows = scratch(4 * (r.ringRows + 2));
  r.band = scratch(r.bandRows * width * channels + SLACK);
  r.out = scratch(r.outRows * outWidth * channels + SLACK);
  if (!r.ring || !r.work || !r.rows || !r.band || !r.out) return fail(Status.OUT_OF_MEMORY, 0);
  r.bandNext = 0;
  r.bandEnd = 0;
  r.rowsIn = 0;
  r.rowsOut = 0;
  return <i32>job;
}

/** Where the host writes the next source rows, packed, at most `resizeBandRows` of them. */
export function resizeBand(job: usize): usize {
  return changetype<Resizer>(job).band;
}

/** The most source rows that one `resizeStep` takes. */
export function resizeBandRows(job: usize): u32 {
  return changetype<Resizer>(job).bandRows;
}

/** Where `resizeStep` leaves finished rows, packed. */
export function resizeOut(job: usize): usize {
  return changetype<Resizer>(job).out;
}

/** The most finished rows that one `resizeStep` leaves. */
export function resizeOutRows(job: usize): u32 {
  return changetype<Resizer>(job).outRows;
}

/**
 * Takes `rows` new source rows from the band and works until the output area is full or the band is used up.
 *
 * @returns rows finished by this call. When they are `resizeOutRows`, fetch them and call again with 0
 */
export function resizeStep(job: usize, rows: u32): u32 {
  const r = changetype<Resizer>(job);
  const sourceBytes = r.width * r.channels;
  const outBytes = r.outWidth * r.channels;
  if (rows) {
    r.bandNext = 0;
    r.bandEnd = rows;
  }
  let made: u32 = 0;
  while (r.rowsOut < r.outHeight) {
    if (lastRow(r) < r.rowsIn) {
      if (made == r.outRows) break;
      finishRow(r, r.out + made * outBytes);
      made++;
    } else {
      if (r.bandNext == r.bandEnd) break;
      takeRow(r, r.band + r.bandNext * sourceBytes);
      r.bandNext++;
    }
  }
  return made;
}

/** The last source row that the next output row needs. */
function lastRow(r: Resizer): u32 {
  const bounds = r.vertical.bounds;
  if (!bounds) return r.rowsOut;
  const entry = bounds + (r.rowsOut << 3);
  return load<u32>(entry) + load<u32>(entry, 4) - 1;
}

/** Puts a source row into the ring, after the horizontal pass unless that comes second. */
function takeRow(r: Resizer, source: usize): void {
  const slot = r.ring + (r.rowsIn % r.ringRows) * r.ringRowBytes;
  if (r.channels == 4 && (r.horizontal.bounds || r.vertical.bounds)) premultiply(source, r.width);
  if (r.verticalFirst || !r.horizontal.bounds) memory.copy(slot, source, r.width * r.channels);
  else filterRow(r.horizontal, r.channels, source, slot, r.outWidth);
  r.rowsIn++;
}

/** Makes the next output row from the ring. */
function finishRow(r: Resizer, out: usize): void {
  const bounds = r.vertical.bounds;
  const secondPass = r.verticalFirst && r.horizontal.bounds != 0;
  const filtered = secondPass ? r.work : out;
  const bytes = (r.verticalFirst ? r.width : r.outWidth) * r.channels;
  if (!bounds) {
    memory.copy(out, r.ring, bytes);
  } else {
    const first = load<u32>(bounds + (r.rowsOut << 3));
    const count = load<u32>(bounds + (r.rowsOut << 3), 4);
    for (let t: u32 = 0; t < count; t++) {
      store<u32>(r.rows + (t << 2), <u32>(r.ring + ((first + t) % r.ringRows) * r.ringRowBytes));
    }
    store<u32>(r.rows + (count << 2), load<u32>(r.rows));
    filterColumns(r.vertical, r.rowsOut, r.rows, count, filtered, bytes);
  }
  if (secondPass) filterRow(r.horizontal, r.channels, filtered, out, r.outWidth);
  if (r.channels == 4 && (r.horizontal.bounds || bounds)) unpremultiply(out, r.outWidth);
  r.rowsOut++;
}

/** Horizontal pass over one row. Writes up to 3 bytes past the row's end. */
function filterRow(axis: Axis, channels: u32, source: usize, out: usize, outWidth: u32): void {
  const zero = i32x4.splat(0);
  for (let x: u32 = 0; x < outWidth; x++) {
    let p = source + load<u32>(axis.bounds + (x << 3)) * channels;
    let low = axis.low + x * axis.stride * 2;
    const end = low + (load<u32>(axis.bounds + (x << 3), 4) << 1);
    const toHigh = axis.high - axis.low;
    let sumLow = zero;
    let sumHigh = zero;
    if (channels == 1) {
      for (; low < end; low += 16, p += 8) {
        const pixels = v128.load_ext<u8>(p);
        sumLow = i32x4.add(sumLow, i32x4.dot_i16x8_s(pixels, v128.load(low)));
        sumHigh = i32x4.add(sumHigh, i32x4.dot_i16x8_s(pixels, v128.load(low + toHigh)));
      }
      store<u8>(out + x, <u8>i8x16.extract_lane_u(narrow(addLanes(sumLow), addLanes(sumHigh)), 0));
      continue;
    }
    for (; low < end; low += 8, p += 4 * channels) {
      const bytes = v128.load(p);
      let pair01: v128;
      let pair23: v128;
      if (channels == 4) {
        pair01 = i8x16.shuffle(bytes, zero, 0, 16, 4, 16, 1, 16, 5, 16, 2, 16, 6, 16, 3, 16, 7, 16);
        pair23 = i8x16.shuffle(bytes, zero, 8, 16, 12, 16, 9, 16, 13, 16, 10, 16, 14, 16, 11, 16, 15, 16);
      } else {
        pair01 = i8x16.shuffle(bytes, zero, 0, 16, 3, 16, 1, 16, 4, 16, 2, 16, 5, 16, 16, 16, 16, 16);
        pair23 = i8x16.shuffle(bytes, zero, 6, 16, 9, 16, 7, 16, 10, 16, 8, 16, 11, 16, 16, 16, 16, 16);
      }
      sumLow = i32x4.add(sumLow, i32x4.dot_i16x8_s(pair01, v128.load32_splat(low)));
      sumLow = i32x4.add(sumLow, i32x4.dot_i16x8_s(pair23, v128.load32_splat(low, 4)));
      sumHigh = i32x4.add(sumHigh, i32x4.dot_i16x8_s(pair01, v128.load32_splat(low + toHigh)));
      sumHigh = i32x4.add(sumHigh, i32x4.dot_i16x8_s(pair23, v128.load32_splat(low + toHigh, 4)));
    }
    v128.store32_lane(out + x * channels, narrow(sumLow, sumHigh), 0);
  }
}

/** Vertical pass for one output row, 16 bytes at a time. Writes up to 15 bytes past the row's end. */
function filterColumns(axis: Axis, y: u32, rows: usize, count: u32, out: usize, bytes: u32): void {
  const lows = axis.low + y * axis.stride * 2;
  const toHigh = axis.high - axis.low;
  const zero = i32x4.splat(0);
  for (let x: u32 = 0; x < bytes; x += 16) {
    let low0 = zero;
    let low1 = zero;
    let low2 = zero;
    let low3 = zero;
    let high0 = zero;
    let high1 = zero;
    let high2 = zero;
    let high3 = zero;
    for (let t: u32 = 0; t < count; t += 2) {
      const a = v128.load(<usize>load<u32>(rows + (t << 2)) + x);
      const b = v128.load(<usize>load<u32>(rows + (t << 2), 4) + x);
      const front = i8x16.shuffle(a, b, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
      const back = i8x16.shuffle(a, b, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
      const low = v128.load32_splat(lows + (t << 1));
      const high = v128.load32_splat(lows + toHigh + (t << 1));
      let pixels = i16x8.extend_low_i8x16_u(front);
      low0 = i32x4.add(low0, i32x4.dot_i16x8_s(pixels, low));
      high0 = i32x4.add(high0, i32x4.dot_i16x8_s(pixels, high));
      pixels = i16x8.extend_high_i8x16_u(front);
      low1 = i32x4.add(low1, i32x4.dot_i16x8_s(pixels, low));
      high1 = i32x4.add(high1, i32x4.dot_i16x8_s(pixels, high));
      pixels = i16x8.extend_low_i8x16_u(back);
      low2 = i32x4.add(low2, i32x4.dot_i16x8_s(pixels, low));
      high2 = i32x4.add(high2, i32x4.dot_i16x8_s(pixels, high));
      pixels = i16x8.extend_high_i8x16_u(back);
      low3 = i32x4.add(low3, i32x4.dot_i16x8_s(pixels, low));
      high3 = i32x4.add(high3, i32x4.dot_i16x8_s(pixels, high));
    }
    const front = i16x8.narrow_i32x4_s(fixedToInteger(low0, high0), fixedToInteger(low1, high1));
    const back = i16x8.narrow_i32x4_s(fixedToInteger(low2, high2), fixedToInteger(low3, high3));
    v128.store(out + x, i8x16.narrow_i16x8_u(front, back));
  }
}

/** Four sums to integers, ties up. */
// @ts-ignore: decorator
@inline
function fixedToInteger(low: v128, high: v128): v128 {
  const sum = i32x4.add(i32x4.shl(high, LOW_BITS), low);
  return i32x4.shr_s(i32x4.add(sum, i32x4.splat(1 << (PRECISION - 1))), PRECISION);
}

/** Four sums to bytes in the lowest lanes, clamped to 0...255. */
// @ts-ignore: decorator
@inline
function narrow(low: v128, high: v128): v128 {
  const words = i16x8.narrow_i32x4_s(fixedToInteger(low, high), i32x4.splat(0));
  return i8x16.narrow_i16x8_u(words, words);
}

// @ts-ignore: decorator
@inline
function addLanes(value: v128): v128 {
  const halves = i32x4.add(value, i32x4.shuffle(value, value, 2, 3, 0, 1));
  return i32x4.add(halves, i32x4.shuffle(halves, halves, 1, 0, 3, 2));
}

/** Colours times alpha / 255, rounded, as Pillow's RGBA to RGBa. Changes the row in place. */
function premultiply(row: usize, width: u32): void {
  for (const end = row + (width << 2); row < end; row += 4) {
    const alpha = <u32>load<u8>(row, 3);
    if (alpha == 255) continue;
    for (let c: usize = 0; c < 3; c++) {
      const product = <u32>load<u8>(row + c) * alpha + 128;
      store<u8>(row + c, ((product >> 8) + product) >> 8);
    }
  }
}

/** Colours divided by alpha / 255, truncated, as Pillow's RGBa to RGBA: transparent pixels keep what they have. */
function unpremultiply(row: usize, width: u32): void {
  for (const end = row + (width << 2); row < end; row += 4) {
    const alpha = <u32>load<u8>(row, 3);
    if (alpha == 255 || alpha == 0) continue;
    for (let c: usize = 0; c < 3; c++) store<u8>(row + c, min<u32>(255, (255 * <u32>load<u8>(row + c)) / alpha));
  }
}

/** Computes the taps of an axis in float64 and rounds them to fixed point; 0 when memory cannot grow. */
function makeAxis(size: u32, outSize: u32, filter: i32): usize {
  const address = scratch(offsetof<Axis>());
  if (!address) return 0;
  const axis = changetype<Axis>(address);
  axis.bounds = 0;
  if (size == outSize) return address;
  const scale = <f64>size / <f64>outSize;
  const stretch = Math.max(scale, 1);
  const support = filterSupport(filter) * stretch;
  axis.stride = (min(<u32>Math.ceil(support) * 2 + 1, size) + 7) & ~7;
  const tapBytes = outSize * axis.stride * 2;
  axis.bounds = scratch(outSize << 3);
  axis.low = scratch(tapBytes);
  axis.high = scratch(tapBytes);
  const weights = scratch(axis.stride << 3);
  if (!axis.bounds || !axis.low || !axis.high || !weights) return 0;
  memory.fill(axis.low, 0, tapBytes);
  memory.fill(axis.high, 0, tapBytes);
  for (let i: u32 = 0; i < outSize; i++) {
    const center = (<f64>i + 0.5) * scale;
    const first = max<i32>(0, <i32>(center - support + 0.5));
    const count = <u32>(min<i32>(<i32>size, <i32>(center + support + 0.5)) - first);
    let total: f64 = 0;
    for (let t: u32 = 0; t < count; t++) {
      const weight = filterValue(filter, (<f64>(<i32>t + first) - center + 0.5) * (1 / stretch));
      store<f64>(weights + (t << 3), weight);
      total += weight;
    }
    for (let t: u32 = 0; t < count; t++) {
      const weight = load<f64>(weights + (t << 3)) / (total != 0 ? total : 1);
      const fixed = <i32>(weight * <f64>(1 << PRECISION) + (weight < 0 ? -0.5 : 0.5));
      const offset = (i * axis.stride + t) << 1;
      store<i16>(axis.low + offset, fixed & ((1 << LOW_BITS) - 1));
      store<i16>(axis.high + offset, fixed >> LOW_BITS);
    }
    store<u32>(axis.bounds + (i << 3), first);
    store<u32>(axis.bounds + (i << 3), count, 4);
  }
  return address;
}

/** Half the filter's width in source pixels, before it is stretched for reduction. */
function filterSupport(filter: i32): f64 {
  return filter == LANCZOS ? 3 : filter == BILINEAR ? 1 : 0.5;
}

function filterValue(filter: i32, x: f64): f64 {
  if (filter == BOX) return x > -0.5 && x <= 0.5 ? 1 : 0;
  if (filter == BILINEAR) return Math.max(0, 1 - Math.abs(x));
  return x >= -3 && x < 3 ? sinc(x) * sinc(x / 3) : 0;
}

function sinc(x: f64): f64 {
  if (x == 0) return 1;
  return Math.sin(x * Math.PI) / (x * Math.PI);
}
