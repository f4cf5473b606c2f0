// The float64 convolution that judges the generated ones, and the awkward shapes every variant of them meets.
// The oracle is the textbook sum over taps, written apart from the kernels' index arithmetic.

import { expect } from 'vitest';
import { acc, add, evaluate, operand, silu } from '../../kernels-codegen/src/expr/expr.ts';
import { type Conv2dSchedule, type Conv2dSpec, conv2d } from '../../kernels-codegen/src/kernels/conv2d/index.ts';
import type { Epilogue } from '../../kernels-codegen/src/kernels/kernel.ts';
import { hasTier, type TargetProfile } from '../../kernels-codegen/src/targets/types.ts';
import type { WeightFormat } from '../../runtime/src/program/types.ts';
import type { TestDevice } from './gpu.ts';
import { PACKED_TOLERANCE, randomWeight, type Tolerance } from './oracle-matmul.ts';
import { runSupported } from './run-supported.ts';
import { decode, encode, expectView, filled, gaussian, valueAt, view } from './views.ts';

const plain: Epilogue = { expr: acc, operands: [] };

/** A case in short. */
export interface Conv2dShape {
  height: number;
  width: number;
  cin: number;
  cout: number;
  kernel?: 1 | 3;
  stride?: 1 | 2;
  upsample?: 1 | 2;
  /** Default: 1 on every side for 3×3 with stride 1, right and bottom only with stride 2, as the VAE has it. */
  pad?: [top: number, left: number];
  outSize?: [height: number, width: number];
  x?: 'f32' | 'f16';
  xAt?: { rowStride?: number; offset?: number };
  weight?: WeightFormat;
  normalised?: boolean;
  /** The image is what a norm gave. */
  normed?: true | undefined;
  epilogue?: (pixels: number) => Epilogue;
  out?: 'f32' | 'f16';
  outAt?: { rowStride?: number; offset?: number };
}

export function conv2dSpec(s: Conv2dShape): Conv2dSpec {
  const [kernel, stride, upsample] = [s.kernel ?? 3, s.stride ?? 1, s.upsample ?? 1];
  const [padTop, padLeft] = s.pad ?? (kernel === 3 && stride === 1 ? [1, 1] : [0, 0]);
  const size = (n: number): number => Math.ceil((n * upsample) / stride);
  const [outHeight, outWidth] = s.outSize ?? [size(s.height), size(s.width)];
  return {
    inHeight: s.height,
    inWidth: s.width,
    cin: s.cin,
    outHeight,
    outWidth,
    cout: s.cout,
    kernel,
    stride,
    padTop,
    padLeft,
    upsample,
    x: view(s.x ?? 'f32', s.height * s.width, s.cin, s.xAt),
    weight: { format: s.weight ?? 'f32', rows: s.cout, cols: kernel * kernel * s.cin },
    ...(s.normalised ? { prologue: { kind: 'scale-shift-silu', view: view('f32', 2, s.cin) } } : {}),
    ...(s.normed ? { normalised: true as const } : {}),
    epilogue: s.epilogue?.(outHeight * outWidth) ?? plain,
    out: view(s.out ?? 'f32', outHeight * outWidth, s.cout, s.outAt),
  };
}

/** Runs one convolution on random data and compares it with the oracle, also that nothing beside the output was written. */
export async function checkConv2d(
  gpu: TestDevice,
  shape: Conv2dShape,
  target: TargetProfile,
  schedule?: Conv2dSchedule,
): Promise<void> {
  const spec = conv2dSpec(shape);
  const kernel = schedule ? conv2d(spec, target, schedule) : conv2d(spec, target);
  const next = gaussian(spec.cin * 31 + spec.cout);
  const x = filled(spec.x, next);
  const weight = randomWeight(spec.weight.format, spec.cout, spec.weight.cols, next);
  const affine = spec.prologue ? filled(spec.prologue.view, next) : new Float64Array();
  const { epilogue, out } = spec;
  const operands = epilogue.operands.map((o) => filled(view(o.type, 1, o.length), next));
  const before = epilogue.inPlace === undefined ? filled(out, next) : operands[epilogue.inPlace]!;
  const buffers = [
    encode(spec.x.type, x),
    weight.bytes,
    ...(spec.prologue ? [encode('f32', affine)] : []),
    ...epilogue.operands.flatMap((o, i) => (i === epilogue.inPlace ? [] : [encode(o.type, operands[i]!)])),
    encode(out.type, before),
  ];
  expect(kernel.bindings.length).toBe(buffers.length);
  const results = await runSupported(gpu, kernel, buffers);
  const activate = (v: number, c: number): number => evaluate(silu(acc), v * affine[c]! + affine[spec.cin + c]!, []);
  const y = reference(
    spec,
    (iy, ix, c) => {
      const value = valueAt(spec.x, x, iy * spec.inWidth + ix, c);
      return spec.prologue ? activate(value, c) : value;
    },
    weight.values,
  );
  const want = (row: number, col: number): number =>
    evaluate(
      epilogue.expr,
      y[row * spec.cout + col]!,
      epilogue.operands.map((o, i) => operands[i]![o.offset + row * o.strideRow + col * o.strideCol]!),
    );
  const tolerance = conv2dTolerance(spec, target, schedule?.variant === 'tiled' && schedule.packed === true);
  expectView(out, decode(out.type, results.get(buffers.length - 1)!), want, tolerance, before);
}

/** acc + bias[n] */
const bias = (cout: number): Epilogue => ({
  expr: add(acc, operand(0)),
  operands: [{ type: 'f32', offset: 0, strideRow: 0, strideCol: 1, length: cout }],
});
/** old value + (acc + bias[n]) */
const biasAndResidual = (cout: number) => (pixels: number) => ({
  expr: add(operand(1), add(acc, operand(0))),
  operands: [
    { type: 'f32' as const, offset: 0, strideRow: 0 as const, strideCol: 1 as const, length: cout },
    { type: 'f32' as const, offset: 0, strideRow: cout, strideCol: 1 as const, length: cout * pixels },
  ],
  inPlace: 1,
});

export const CONV2D_SHAPES = {
  'non-square, aligned': { height: 8, width: 16, cin: 32, cout: 32, epilogue: () => bias(32) },
  'ragged pixels and channels': { height: 7, width: 11, cin: 20, cout: 22 },
  'one pixel': { height: 1, width: 1, cin: 16, cout: 8 },
  'one column': { height: 19, width: 1, cin: 8, cout: 4 },
  'RGB in': { height: 9, width: 8, cin: 4, cout: 36, epilogue: () => bias(36) },
  'RGB out': { height: 9, width: 12, cin: 32, cout: 3, epilogue: () => bias(3) },
  'eight channels out': { height: 6, width: 6, cin: 16, cout: 8 },
  'stride 2, padded right and bottom': { height: 8, width: 12, cin: 16, cout: 20, stride: 2 },
  'stride 2, odd sides': { height: 7, width: 9, cin: 16, cout: 16, stride: 2, pad: [1, 1] },
  'no padding': { height: 6, width: 9, cin: 16, cout: 16, pad: [0, 0], outSize: [4, 7] },
  upsampled: { height: 5, width: 6, cin: 16, cout: 12, upsample: 2 },
  'one by one': { height: 7, width: 6, cin: 24, cout: 40, kernel: 1 },
  'one by one, stride 2': { height: 6, width: 6, cin: 16, cout: 8, kernel: 1, stride: 2 },
  normalised: { height: 6, width: 10, cin: 32, cout: 16, normalised: true, epilogue: () => bias(16) },
  'normalised, RGB out': { height: 7, width: 9, cin: 20, cout: 3, normalised: true },
  'added to the output in place': { height: 6, width: 7, cin: 16, cout: 16, epilogue: biasAndResidual(16) },
  'rectangles of wider images': {
    height: 5,
    width: 6,
    cin: 16,
    cout: 8,
    xAt: { rowStride: 40, offset: 8 },
    outAt: { rowStride: 20, offset: 4 },
  },
  'output rows that break vectors': { height: 5, width: 6, cin: 8, cout: 8, outAt: { rowStride: 9, offset: 1 } },
} satisfies Record<string, Conv2dShape>;

/** The sum over taps, before the epilogue, `[outHeight·outWidth, cout]`. */
function reference(spec: Conv2dSpec, pixel: (y: number, x: number, c: number) => number, weight: Float64Array) {
  const { cin, cout, kernel } = spec;
  const y = new Float64Array(spec.outHeight * spec.outWidth * cout);
  for (let oy = 0; oy < spec.outHeight; oy++) {
    for (let ox = 0; ox < spec.outWidth; ox++) {
      for (let ky = 0; ky < kernel; ky++) {
        for (let kx = 0; kx < kernel; kx++) {
          const iy = Math.floor((oy * spec.stride + ky - spec.padTop) / spec.upsample);
          const ix = Math.floor((ox * spec.stride + kx - spec.padLeft) / spec.upsample);
          if (iy < 0 || ix < 0 || iy >= spec.inHeight || ix >= spec.inWidth) continue;
          for (let c = 0; c < cin; c++) {
            const value = pixel(iy, ix, c);
            const at = (ky * kernel + kx) * cin + c;
            for (let n = 0; n < cout; n++) {
              y[(oy * spec.outWidth + ox) * cout + n]! += value * weight[n * kernel * kernel * cin + at]!;
            }
          }
        }
      }
    }
  }
  return y;
}

/**
 * The bounds of the matmul tests: √K · 2⁻²⁵ of a standard deviation for sums of K products in f32; 8e-8 in NMSE and
 * 2⁻¹¹ of five standard deviations for each rounding to f16 (the output; a normalised input or a dequantised weight in an
 * f16 tile). Where the driver computes exp, its 3 ulp stay below the rounding of the sum.
 */
function conv2dTolerance(spec: Conv2dSpec, target: TargetProfile, packed: boolean): Tolerance {
  const k = spec.weight.cols;
  const narrow = hasTier(target, 'f16') && spec.weight.format !== 'f32';
  const quantised = narrow && spec.x.type === 'f16' && /^q/.test(spec.weight.format);
  const halves = [spec.out.type === 'f16', narrow && spec.prologue !== undefined, quantised].filter(Boolean).length;
  // Over a handful of elements the mean square does not average out; one rounding to nearest is bounded by (2⁻¹¹)².
  const rounding = spec.out.rows * spec.out.cols < 64 ? 2 ** -22 : 9e-8;
  const sums = packed ? PACKED_TOLERANCE : { nmse: 0, worst: 0 };
  return {
    nmse: (k + 16) * 2 ** -48 + halves * rounding + sums.nmse,
    worst: 8 * Math.sqrt(k) * 2 ** -24 + 1e-6 + halves * 2.6e-3 + sums.worst,
  };
}
