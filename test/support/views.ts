// Test matrices as a kernel sees them: rounded to the stored type, placed in a view, and compared with a float64 oracle.
// Oracles must start from the rounded inputs, or they would measure the rounding of the data and not the kernel.

import { expect } from 'vitest';
import { type MatrixView, viewLength } from '../../kernels-codegen/src/kernels/kernel.ts';

type Stored = 'f32' | 'f16';

/** A tightly packed view unless `rowStride` or `offset` say otherwise. */
export function view(type: Stored, rows: number, cols: number, at: { rowStride?: number; offset?: number } = {}) {
  return { type, rows, cols, rowStride: at.rowStride ?? cols, offset: at.offset ?? 0 } satisfies MatrixView;
}

/** Repeatable standard normal values (Box–Muller over a 32-bit mix). */
export function gaussian(seed: number): () => number {
  let state = seed >>> 0;
  const uniform = (): number => {
    state = (state + 0x9e3779b9) >>> 0;
    let z = state;
    z = Math.imul(z ^ (z >>> 16), 0x21f0aaad);
    z = Math.imul(z ^ (z >>> 15), 0x735a2d97);
    return ((z ^ (z >>> 15)) >>> 0) / 2 ** 32;
  };
  return () => Math.sqrt(-2 * Math.log(1 - uniform())) * Math.cos(2 * Math.PI * uniform());
}

/** Rounds to the nearest value of `type`, ties to even. */
export function roundTo(type: Stored, value: number): number {
  if (type === 'f32') return Math.fround(value);
  return halfValue(halfBits(value));
}

/** Bytes of `values` stored as `type`. */
export function encode(type: Stored, values: ArrayLike<number>): Float32Array | Uint16Array {
  return type === 'f32' ? Float32Array.from(values) : Uint16Array.from(values, halfBits);
}

/** Numbers back from bytes of `type`. */
export function decode(type: Stored, bytes: ArrayBuffer): Float64Array {
  return type === 'f32'
    ? Float64Array.from(new Float32Array(bytes))
    : Float64Array.from(new Uint16Array(bytes, 0, bytes.byteLength >> 1), halfValue);
}

/** Whole buffer behind a view, filled with rounded values of `next`; also where the view does not reach. */
export function filled(v: MatrixView, next: () => number, length = viewLength(v)): Float64Array {
  return Float64Array.from({ length }, () => roundTo(v.type, next()));
}

/** Value at row and column of a view over `data`. */
export const valueAt = (v: MatrixView, data: ArrayLike<number>, row: number, col: number): number =>
  data[v.offset + row * v.rowStride + col]!;

/**
 * Fails unless `got` equals `want` within a normalised mean square error and, element by element, within
 * `worst` × the root mean square of `want`. Elements outside the view must still hold `before`.
 */
export function expectView(
  v: MatrixView,
  got: Float64Array,
  want: (row: number, col: number) => number,
  limit: { nmse: number; worst: number },
  before?: Float64Array,
): void {
  let error = 0;
  let power = 0;
  let worst = 0;
  let where = '';
  const covered = new Uint8Array(got.length);
  for (let row = 0; row < v.rows; row++) {
    for (let col = 0; col < v.cols; col++) {
      const index = v.offset + row * v.rowStride + col;
      covered[index] = 1;
      const expected = want(row, col);
      const difference = Math.abs(got[index]! - expected);
      error += difference ** 2;
      power += expected ** 2;
      // Written so that NaN counts as the worst.
      if (!(difference <= worst)) {
        worst = difference;
        where = `[${row}, ${col}]: got ${got[index]}, expected ${expected}`;
      }
    }
  }
  const scale = Math.sqrt(power / (v.rows * v.cols));
  expect(error / power, `NMSE; worst at ${where}`).toBeLessThanOrEqual(limit.nmse);
  expect(worst / scale, `worst element ${where}`).toBeLessThanOrEqual(limit.worst);
  if (before) {
    const touched = got.findIndex((value, i) => !covered[i] && value !== before[i]);
    expect(touched, 'first element outside the view that was overwritten').toBe(-1);
  }
}

function halfBits(value: number): number {
  const sign = value < 0 || Object.is(value, -0) ? 0x8000 : 0;
  const magnitude = Math.abs(value);
  if (Number.isNaN(value)) return 0x7e00;
  if (magnitude >= 65520) return sign | 0x7c00;
  if (magnitude < 2 ** -14) return sign | halfEven(magnitude * 2 ** 24);
  const exponent = Math.floor(Math.log2(Math.fround(magnitude)));
  // log2 may round up just below a power of two.
  const e = magnitude < 2 ** exponent ? exponent - 1 : magnitude >= 2 ** (exponent + 1) ? exponent + 1 : exponent;
  return sign | (((e + 15) << 10) + halfEven((magnitude / 2 ** e - 1) * 1024));
}

function halfEven(x: number): number {
  const r = Math.round(x);
  return x - Math.floor(x) === 0.5 && r % 2 === 1 ? r - 1 : r;
}

function halfValue(bits: number): number {
  const sign = bits & 0x8000 ? -1 : 1;
  const exponent = (bits >> 10) & 31;
  const fraction = bits & 1023;
  if (exponent === 31) return fraction ? Number.NaN : sign * Number.POSITIVE_INFINITY;
  return sign * (exponent === 0 ? fraction * 2 ** -24 : (1 + fraction / 1024) * 2 ** (exponent - 15));
}
