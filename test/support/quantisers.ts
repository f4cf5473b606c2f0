// Block quantisers in float64, written from their definitions: the oracle of the transcode kernel's q4, and what it is compared with.
import { floatToHalf, halfToFloat } from '../../runtime/src/half.ts';

/** Values that a block's codes and scales stand for. */
export type Quantiser = (block: Float64Array) => Float64Array;

const half = (value: number): number => halfToFloat(floatToHalf(value));
const clamp = (value: number, low: number, high: number) => Math.max(low, Math.min(high, value));

function peakOf(block: Float64Array): number {
  let peak = 0;
  for (const value of block) if (Math.abs(value) > Math.abs(peak)) peak = value;
  return peak;
}

/** The nearest codes −8 … 7 for a scale. */
const onGrid = (block: Float64Array, scale: number): Float64Array =>
  block.map((value) => (scale === 0 ? 0 : clamp(Math.floor(value / scale + 0.5), -8, 7) * scale));

/** As ggml's Q4_0: the largest value is code −8; codes are those of the scale before it is rounded to f16. */
export const absmaxQ4: Quantiser = (block) => {
  const scale = peakOf(block) / -8;
  const stored = half(scale);
  return block.map((value) =>
    scale === 0 ? 0 : (Math.min(15, Math.floor(Math.fround(value / scale + 8.5))) - 8) * stored,
  );
};

/** Our q4: of seven widths the one that leaves the least error, its best scale in f16, the nearest codes. */
export const searchedQ4: Quantiser = (block) => {
  const peak = peakOf(block);
  if (Math.abs(peak) < 1e-30) return new Float64Array(block.length);
  let best = { left: Number.POSITIVE_INFINITY, scale: 0 };
  for (const width of [6.95, 7.3, 7.65, 8, 8.35, 8.7, 9.05]) {
    const codes = block.map((value) => clamp(Math.floor(0.5 - (value / peak) * width), -8, 7));
    let [xc, cc, left] = [0, 0, 0];
    for (const [k, code] of codes.entries()) {
      xc += block[k]! * code;
      cc += code * code;
    }
    const scale = xc / cc;
    for (const [k, code] of codes.entries()) left += (block[k]! - code * scale) ** 2;
    if (left < best.left) best = { left, scale };
  }
  return onGrid(block, half(best.scale));
};

/**
 * Our q8: ggml's Q8_0, 127 codes to the block's largest value, unless 126 or 120 leave a thousandth of its squared error. Halves go to the
 * even code; codes are those of the scale before it is rounded to f16.
 */
export const steppedQ8: Quantiser = (block) => {
  const peak = Math.abs(peakOf(block));
  if (peak === 0) return new Float64Array(block.length);
  const even = (value: number): number => {
    const floor = Math.floor(value);
    return value - floor === 0.5 ? floor + (Math.abs(floor) % 2) : Math.round(value);
  };
  const left = (width: number) =>
    block.reduce((sum, value) => sum + (value / peak - even((value / peak) * width) / width) ** 2, 0);
  const coarser = left(120) < left(126) ? 120 : 126;
  const width = left(coarser) * 1000 < left(127) ? coarser : 127;
  const scale = Math.fround(peak / width);
  return block.map((value) => even(value / scale) * half(scale));
};

/** As ggml's IQ4_NL is stored, its scale searched: the end levels at the largest value, and a range of scales around that. */
export const levelsQ4 =
  (levels: readonly number[]): Quantiser =>
  (block) => {
    const nearest = (value: number) => levels.reduce((a, b) => (Math.abs(b - value) < Math.abs(a - value) ? b : a));
    const peak = peakOf(block);
    let best = { left: Number.POSITIVE_INFINITY, values: new Float64Array(block.length) };
    for (let i = -7; i <= 7 && peak !== 0; i++) {
      const inverse = (i + levels[0]!) / peak;
      const codes = block.map((value) => nearest(value * inverse));
      let [xc, cc] = [0, 0];
      for (const [k, code] of codes.entries()) {
        xc += block[k]! * code;
        cc += code * code;
      }
      const scale = half(xc / cc);
      const values = block.map((value) => (scale === 0 ? 0 : nearest(value / scale) * scale));
      const left = values.reduce((sum, value, k) => sum + (value - block[k]!) ** 2, 0);
      if (left < best.left) best = { left, values };
    }
    return best.values;
  };

/**
 * Of Q4_K's kind, for 256 values: scale and minimum of each 32 fitted by weighted least squares over a range of steps, then both
 * rounded to six bits of the block's largest.
 */
export const minimumQ4K: Quantiser = (values) => {
  const groups = Array.from({ length: 8 }, (_, g) => values.subarray(32 * g, 32 * g + 32));
  const fits = groups.map(fitWithMinimum);
  const unit = half(Math.max(...fits.map(({ scale }) => scale)) / 63);
  const minimumUnit = half(Math.max(...fits.map(({ minimum }) => minimum)) / 63);
  const out = new Float64Array(256);
  for (const [g, group] of groups.entries()) {
    const { scale, minimum } = fits[g]!;
    const s = unit && unit * Math.min(63, Math.round(scale / unit));
    const m = minimumUnit && minimumUnit * Math.min(63, Math.round(minimum / minimumUnit));
    out.set(
      group.map((value) => (s ? clamp(Math.round((value + m) / s), 0, 15) * s : 0) - m),
      32 * g,
    );
  }
  return out;
};

function fitWithMinimum(group: Float64Array): { scale: number; minimum: number } {
  const low = Math.min(0, ...group);
  const high = Math.max(...group);
  const rms = Math.sqrt(group.reduce((sum, value) => sum + value * value, 0) / group.length);
  let best = { left: Number.POSITIVE_INFINITY, scale: 0, minimum: 0 };
  for (let i = -10; i <= 10 && high > low; i++) {
    const step = (high - low) / (15 + 0.1 * i);
    const codes = group.map((value) => clamp(Math.round((value - low) / step), 0, 15));
    let [w, wc, wcc, wx, wcx] = [0, 0, 0, 0, 0];
    for (const [k, code] of codes.entries()) {
      const weight = rms + Math.abs(group[k]!);
      w += weight;
      wc += weight * code;
      wcc += weight * code * code;
      wx += weight * group[k]!;
      wcx += weight * code * group[k]!;
    }
    const determinant = w * wcc - wc * wc;
    if (determinant <= 0) continue;
    let scale = (w * wcx - wc * wx) / determinant;
    let minimum = -(wcc * wx - wc * wcx) / determinant;
    if (minimum < 0) [scale, minimum] = [wcx / wcc, 0];
    const left = codes.reduce(
      (sum, code, k) => sum + (rms + Math.abs(group[k]!)) * (code * scale - minimum - group[k]!) ** 2,
      0,
    );
    if (left < best.left) best = { left, scale, minimum };
  }
  return best;
}

/** Root of the summed squared differences over that of the values, quantised `size` at a time. */
export function relativeError(values: Float64Array, size: number, quantise: Quantiser): number {
  let [left, all] = [0, 0];
  for (let at = 0; at + size <= values.length; at += size) {
    const block = values.subarray(at, at + size);
    for (const [k, value] of quantise(block).entries()) {
      left += (value - block[k]!) ** 2;
      all += block[k]! ** 2;
    }
  }
  return Math.sqrt(left / all);
}
