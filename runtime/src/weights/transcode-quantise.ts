// WGSL that makes blocks of 32 codes with an f16 scale out of values: q8 by the largest value, or on the values' own grid; q4 by a search.
import { STORED_FORMATS, type WeightFormat } from '../program/formats.ts';

/**
 * Widths of the code grid that q4 tries, in codes from zero to the block's largest value: at 8 that value is code −8 and nothing
 * is cut, below it rounds into the end code, above it the grid is finer and the largest value is cut. Measured on normal,
 * heavy-tailed and real weights: more and other widths gain under 0.1 % (`npm run bench:quantisation`).
 */
export const Q4_WIDTHS = { first: 6.95, step: 0.35, count: 7 } as const;

/** Blocks below this are zero: their scale is no f16, and its reciprocal may be no f32. */
const SMALLEST = '1e-30';

/**
 * Of all widths the one whose codes leave the least squared error, with the scale that fits these codes best: for codes c of
 * values x that is Σxc / Σc², and what it leaves is Σx² − (Σxc)² / Σc². Relative to the peak, so that no square overflows.
 * The count of widths comes from a buffer: written out, the loop takes compilers ten seconds.
 */
const BEST_SCALE = `
fn bestScale(peak: f32) -> f32 {
  if (abs(peak) < ${SMALLEST}) { return 0.0; }
  let unit = 1.0 / peak;
  var best = 0.0;
  var scale = 0.0;
  for (var i = 0u; i < p.tries; i++) {
    let width = ${Q4_WIDTHS.first} + ${Q4_WIDTHS.step} * f32(i);
    var xc = 0.0;
    var cc = 0.0;
    for (var k = 0u; k < 32u; k++) {
      let v = x[k] * unit;
      let c = clamp(floor(0.5 - v * width), -8.0, 7.0);
      xc += v * c;
      cc += c * c;
    }
    let gain = xc * xc / cc;
    if (gain > best) { best = gain; scale = xc / cc; }
  }
  return scale * peak;
}`;

/**
 * Codes from zero to the block's largest value, as ggml's Q8_0 has them, and two widths that whole multiples of a coarser step fit:
 * 126 and 120 between them are divisible by 1 to 9, the steps from zero of any grid of four bits. Weights that were on one, as
 * those of a file written from 4-bit codes are, stay there; any other block is Q8_0's, bit for bit.
 */
export const Q8_WIDTHS = [127, 126, 120] as const;

/** A width other than Q8_0's must leave this much less squared error: that of values on its grid is rounding, of others a few per cent less at best. */
const Q8_GAIN = 1000;

const Q8_STEPS = `
fn stepsOf(peak: f32) -> f32 {
  if (abs(peak) < ${SMALLEST}) { return ${Q8_WIDTHS[0]}.0; }
  let widths = vec3<f32>(${Q8_WIDTHS.join(', ')});
  let unit = 1.0 / peak;
  var left = vec3<f32>();
  for (var k = 0u; k < 32u; k++) {
    let v = x[k] * unit * widths;
    let off = (v - round(v)) / widths;
    left += off * off;
  }
  let coarser = select(widths.y, widths.z, left.z < left.y);
  return select(widths.x, coarser, min(left.y, left.z) * ${Q8_GAIN}.0 < left.x);
}`;

/** The functions that {@link quantiseText} calls. */
export const quantiseFunctions = (format: WeightFormat): string =>
  format === 'q4' ? BEST_SCALE : format === 'q8' ? Q8_STEPS : '';

/**
 * Codes and scale of the block in `x: array<f32, 32>` from element `p.start + at` of the stored matrix on; the f16 of the scale goes
 * to `pair[b]`. The block's peak is its largest value with its sign. Codes are the nearest for the scale: q8's for the one that was
 * computed, as in ggml's Q8_0 (see {@link Q8_WIDTHS}); q4's for the one that is stored, which leaves less error.
 */
export function quantiseText(format: 'q8' | 'q4'): string {
  const perWord = format === 'q8' ? 4 : 8;
  const { zero } = STORED_FORMATS[format];
  const code =
    format === 'q8'
      ? '(u32(i32(clamp(round(v), -127.0, 127.0))) & 0xffu)'
      : `u32(clamp(floor(v + ${zero}.5), 0.0, 15.0))`;
  return `var peak = 0.0;
    for (var k = 0u; k < 32u; k++) { if (abs(x[k]) > abs(peak)) { peak = x[k]; } }
    ${format === 'q8' ? 'let scale = abs(peak) / stepsOf(peak);' : 'let scale = unpack2x16float(pack2x16float(vec2(half(bestScale(peak)), 0.0))).x;'}
    pair[b] = half(scale);
    let inverse = select(0.0, 1.0 / scale, scale != 0.0);
    for (var w = 0u; w < ${32 / perWord}u; w++) {
      var word = 0u;
      for (var k = 0u; k < ${perWord}u; k++) {
        let v = x[w * ${perWord}u + k] * inverse;
        word |= ${code} << (k * ${32 / perWord}u);
      }
      dst[p.at[0] + (p.start + at) / ${perWord}u + w] = word;
    }`;
}
