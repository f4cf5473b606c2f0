// The float64 matmul that judges the generated ones, and weights in every stored format.
// Starts from rounded inputs and from the stored weights' exact values, so it measures the kernel alone.

import { evaluate } from '../../kernels-codegen/src/expr/expr.ts';
import { type MatmulSchedule, type MatmulSpec, matmul } from '../../kernels-codegen/src/kernels/matmul/index.ts';
import type { TargetProfile } from '../../kernels-codegen/src/targets/types.ts';
import type { WeightFormat } from '../../runtime/src/program/types.ts';
import { runKernel, type TestDevice } from './gpu.ts';
import { randomHeads } from './oracle-heads.ts';
import { randomStored } from './stored.ts';
import { decode, encode, expectView, filled, gaussian, roundTo, valueAt } from './views.ts';

/** A random weight: its bytes as `WeightFormat` lays them out, and the exact values they stand for. */
export function randomWeight(
  format: WeightFormat,
  rows: number,
  cols: number,
  next: () => number,
): { bytes: Uint8Array; values: Float64Array } {
  const raw = Float64Array.from({ length: rows * cols }, () => next() / Math.sqrt(cols));
  if (format === 'f32' || format === 'f16') {
    const values = raw.map((v) => roundTo(format, v));
    return { bytes: bytesOfView(encode(format, values)), values };
  }
  return randomStored(format, rows, cols, next);
}

/**
 * Σ_s Σ_k a_s[m, k] · b[n, kOffset_s + k] in float64, `[m, n]` row-major, before the epilogue and without the path beside.
 * @param inputs whole buffers behind each segment's view
 */
export function matmulReference(
  spec: Pick<MatmulSpec, 'm' | 'n' | 'segments' | 'weight'>,
  inputs: readonly ArrayLike<number>[],
  weight: Float64Array,
): Float64Array {
  const { m, n } = spec;
  const k = spec.weight.cols;
  const y = new Float64Array(m * n);
  let kOffset = 0;
  spec.segments.forEach(({ a }, s) => {
    for (let row = 0; row < m; row++) {
      const x = Float64Array.from({ length: a.cols }, (_, i) => valueAt(a, inputs[s]!, row, i));
      for (let col = 0; col < n; col++) {
        let sum = 0;
        const from = col * k + kOffset;
        for (let i = 0; i < a.cols; i++) sum += x[i]! * weight[from + i]!;
        y[row * n + col]! += sum;
      }
    }
    kOffset += a.cols;
  });
  return y;
}

/** Largest error a case may show; see {@link matmulTolerance}. */
export interface Tolerance {
  nmse: number;
  worst: number;
}

/**
 * Bounds by what is rounded.
 *
 * Each f32 addition of K terms rounds by up to 2⁻²⁴ of a partial sum, which grows as √k; so the error of a sum is about
 * √K · 2⁻²⁵ of its standard deviation and the worst of some thousand elements five times that. Rounding to f16 adds
 * 2⁻¹¹ at most, uniformly: (2⁻¹¹)²/3 = 8e-8 in NMSE, and 2⁻¹¹ of the largest element, about five standard deviations.
 * @param halves values rounded to f16 on the way to an output: a quantised weight in an f16 tile, the output itself
 * @param packed sums of 16 are f16
 */
export function matmulTolerance(spec: MatmulSpec, halves: number, packed = false): Tolerance {
  const k = spec.weight.cols + (spec.beside?.weight.cols ?? 0);
  const sums = packed ? PACKED_TOLERANCE : { nmse: 0, worst: 0 };
  return {
    nmse: k * 2 ** -48 + halves * 9e-8 + sums.nmse,
    worst: 8 * Math.sqrt(k) * 2 ** -24 + 1e-6 + halves * 2.6e-3 + sums.worst,
  };
}

/**
 * What sums of 16 products in f16 may add. The i-th partial sum of products of unit deviation has √i, and rounding it adds 2e-4 of it (2⁻¹¹/√3, of what
 * lies between two powers of two); a driver may round the product before. So 16 of them add √136 · 2e-4 to a sum of deviation 4, an NMSE of 3.9e-7 with
 * the products'. Half as much again over few elements, and the worst of some thousand is five times the root.
 */
export const PACKED_TOLERANCE: Tolerance = { nmse: 6e-7, worst: 4.2e-3 };

/** Runs one matmul on random data, or with a given weight, and compares it with the oracle, also that nothing beside the output was written. */
export async function checkMatmul(
  gpu: TestDevice,
  spec: MatmulSpec,
  target: TargetProfile,
  tolerance: Tolerance,
  schedule?: MatmulSchedule,
  given?: { bytes: Uint8Array; values: Float64Array },
): Promise<void> {
  const kernel = schedule ? matmul(spec, target, schedule) : matmul(spec, target);
  const next = gaussian(spec.m * 7919 + spec.n * 104729 + spec.weight.cols);
  const inputs = spec.segments.map(({ a }) => filled(a, next));
  const weight = given ?? randomWeight(spec.weight.format, spec.n, spec.weight.cols, next);
  const { epilogue, out, beside } = spec;
  const low = beside && {
    a: filled(beside.a, next),
    b: randomWeight(beside.weight.format, spec.n, beside.a.cols, next),
  };
  const operands = epilogue.operands.map((o) =>
    filled({ type: o.type, rows: 1, cols: o.length, rowStride: o.length, offset: 0 }, next),
  );
  const heads = spec.heads && randomHeads(spec.heads, next);
  const before = epilogue.inPlace === undefined ? filled(out, next) : operands[epilogue.inPlace]!;
  const buffers = [
    ...inputs.map((data, s) => encode(spec.segments[s]!.a.type, data)),
    weight.bytes,
    ...(low ? [encode(beside.a.type, low.a), low.b.bytes] : []),
    ...(heads?.buffers ?? []),
    ...epilogue.operands.flatMap((o, i) => (i === epilogue.inPlace ? [] : [encode(o.type, operands[i]!)])),
    encode(out.type, before),
  ];
  if (buffers.length !== kernel.bindings.length) throw new Error(`${kernel.label}: ${kernel.bindings.length} bindings`);
  const results = await runKernel(gpu, kernel, buffers);
  const y = matmulReference(spec, inputs, weight.values);
  if (low) {
    const path = { m: spec.m, n: spec.n, segments: [{ a: beside.a }], weight: beside.weight };
    matmulReference(path, [low.a], low.b.values).forEach((value, i) => {
      y[i]! += value;
    });
  }
  const projected = (row: number, col: number): number =>
    evaluate(
      epilogue.expr,
      y[row * spec.n + col]!,
      epilogue.operands.map((o, i) => operands[i]![o.offset + row * o.strideRow + col * o.strideCol]!),
    );
  const want = heads ? heads.normed(projected) : projected;
  expectView(out, decode(out.type, results.get(buffers.length - 1)!), want, tolerance, before);
}

const bytesOfView = (data: ArrayBufferView): Uint8Array =>
  new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
