// The matmuls that tests compute: epilogues of the model, formats, alignments, ragged edges.
// One list, so that every variant, tier and adapter meets the same awkward shapes.

import { acc, add, geluTanh, mul, operand } from '../../kernels-codegen/src/expr/expr.ts';
import type { Epilogue, MatrixView } from '../../kernels-codegen/src/kernels/kernel.ts';
import type { MatmulSpec } from '../../kernels-codegen/src/kernels/matmul/index.ts';
import type { WeightFormat } from '../../runtime/src/program/types.ts';
import { view } from './views.ts';

/** A case in short; sizes, storage types (f32 unless said), where the views lie. */
export interface MatmulShape {
  m: number;
  n: number;
  k: number | number[];
  type?: 'f32' | 'f16';
  out?: 'f32' | 'f16';
  format?: WeightFormat;
  /** Rank of an adapter's path, its factors stored as `besideFormat`. */
  beside?: number;
  besideFormat?: 'f32' | 'f16';
  /** The left operand is what a norm gave. */
  normalised?: true | undefined;
  epilogue?: (n: number, out: MatrixView) => Epilogue;
  outAt?: { rowStride: number; offset: number };
  aAt?: { rowStride: number; offset: number };
}

export function matmulSpec(s: MatmulShape): MatmulSpec {
  const ks = [s.k].flat();
  const out = view(s.out ?? 'f32', s.m, s.n, s.outAt);
  const k = ks.reduce((a, b) => a + b);
  return {
    m: s.m,
    n: s.n,
    segments: ks.map((cols) => ({ a: view(s.type ?? 'f32', s.m, cols, s.aAt) })),
    weight: { format: s.format ?? 'f32', rows: s.n, cols: k },
    ...(s.beside
      ? {
          beside: {
            a: view(s.type ?? 'f32', s.m, s.beside),
            weight: { format: s.besideFormat ?? 'f32', rows: s.n, cols: s.beside },
          },
        }
      : {}),
    ...(s.normalised ? { normalised: true as const } : {}),
    epilogue: s.epilogue?.(s.n, out) ?? { expr: acc, operands: [] },
    out,
  };
}

/** acc + bias[n] */
export const bias = (n: number): Epilogue => ({
  expr: add(acc, operand(0)),
  operands: [{ type: 'f32', offset: 0, strideRow: 0, strideCol: 1, length: n }],
});
export const gelu = (n: number): Epilogue => ({ expr: geluTanh(add(acc, operand(0))), operands: bias(n).operands });
/** residual + gate · (acc + bias), the residual being the output's old value. */
export const gatedResidual = (n: number, out: MatrixView): Epilogue => ({
  expr: add(operand(0), mul(operand(1), add(acc, operand(2)))),
  operands: [
    {
      type: out.type,
      offset: out.offset,
      strideRow: out.rowStride,
      strideCol: 1,
      length: out.offset + (out.rows - 1) * out.rowStride + n,
    },
    { type: 'f32', offset: 4, strideRow: 0, strideCol: 1, length: n + 4 },
    { type: 'f32', offset: 0, strideRow: 0, strideCol: 1, length: n },
  ],
  inPlace: 0,
});
/** acc times one value a row: an operand with no column. */
export const rowScale = (_: number, out: MatrixView): Epilogue => ({
  expr: mul(acc, operand(0)),
  operands: [{ type: 'f32', offset: 0, strideRow: 1, strideCol: 0, length: out.rows }],
});

/** For test titles. */
export const describeShape = (s: MatmulShape): string =>
  [
    `${s.m}×${s.n}×${[s.k].flat().join('+')}`,
    s.type ?? 'f32',
    s.format ?? 'f32',
    `→ ${s.out ?? 'f32'}`,
    s.beside ? `beside ${s.beside} ${s.besideFormat ?? 'f32'}` : undefined,
    s.epilogue?.name,
    s.outAt || s.aAt ? 'strided' : undefined,
  ]
    .filter(Boolean)
    .join(' ');

/** f32 activations, which every tier takes. */
export const FULL: MatmulShape[] = [
  { m: 32, n: 64, k: 64 },
  { m: 17, n: 68, k: 36, epilogue: bias },
  { m: 33, n: 52, k: 40, format: 'f16', epilogue: gelu },
  { m: 17, n: 7, k: 5 },
  { m: 25, n: 31, k: 13, format: 'f16', epilogue: gatedResidual },
  { m: 20, n: 64, k: 96, format: 'q8', epilogue: gatedResidual },
  { m: 20, n: 66, k: 64, format: 'q4', epilogue: rowScale },
  { m: 90, n: 3, k: 20, epilogue: bias },
  { m: 24, n: 36, k: [32, 20], epilogue: gatedResidual },
  { m: 24, n: 36, k: [10, 22], format: 'q8', epilogue: bias },
  { m: 20, n: 24, k: [7, 9, 3], format: 'f16' },
  { m: 20, n: 36, k: 64, format: 'q4', beside: 8, epilogue: gatedResidual },
  { m: 17, n: 28, k: [32, 20], format: 'f16', beside: 24, epilogue: gelu },
  {
    m: 20,
    n: 32,
    k: 32,
    outAt: { rowStride: 48, offset: 8 },
    aAt: { rowStride: 40, offset: 4 },
    epilogue: gatedResidual,
  },
  {
    m: 20,
    n: 32,
    k: 32,
    outAt: { rowStride: 37, offset: 3 },
    aAt: { rowStride: 35, offset: 1 },
    format: 'q8',
    epilogue: gatedResidual,
  },
];

/** f16 activations, as the model's matmuls have them. */
export const HALF: MatmulShape[] = [
  { m: 32, n: 64, k: 64, type: 'f16', format: 'f16' },
  { m: 17, n: 68, k: 36, type: 'f16', format: 'f16', out: 'f16', epilogue: gelu },
  { m: 33, n: 64, k: 96, type: 'f16', format: 'q8', epilogue: gatedResidual },
  { m: 25, n: 64, k: 64, type: 'f16', format: 'q4', out: 'f16', epilogue: bias },
  { m: 24, n: 21, k: 22, type: 'f16', format: 'f16', out: 'f16', epilogue: gatedResidual },
  { m: 24, n: 40, k: [32, 24], type: 'f16', format: 'f16', epilogue: gatedResidual },
  { m: 24, n: 40, k: 24, type: 'f16', format: 'f32', out: 'f16' },
  { m: 33, n: 40, k: 64, type: 'f16', format: 'q8', beside: 8, besideFormat: 'f16', epilogue: gatedResidual },
  {
    m: 24,
    n: 40,
    k: [32, 24],
    type: 'f16',
    format: 'f16',
    beside: 40,
    besideFormat: 'f16',
    out: 'f16',
    epilogue: gelu,
  },
  {
    m: 20,
    n: 32,
    k: 32,
    type: 'f16',
    format: 'f16',
    out: 'f16',
    outAt: { rowStride: 44, offset: 4 },
    aAt: { rowStride: 40, offset: 8 },
    epilogue: gatedResidual,
  },
];

export const FEW_ROWS: MatmulShape[] = [
  { m: 1, n: 64, k: 256, epilogue: gelu },
  { m: 1, n: 5, k: 3, format: 'f16' },
  { m: 1, n: 96, k: 512, format: 'q4', epilogue: gatedResidual },
  { m: 8, n: 30, k: 100, format: 'f16', epilogue: bias },
  { m: 16, n: 36, k: 288, format: 'q8', epilogue: gatedResidual },
  { m: 5, n: 24, k: 160, format: 'q8', beside: 16, epilogue: bias },
  { m: 4, n: 12, k: [64, 40], outAt: { rowStride: 21, offset: 2 }, epilogue: bias },
];

export const FEW_HALF_ROWS: MatmulShape[] = [
  { m: 2, n: 32, k: 128, type: 'f16', format: 'f16', out: 'f16', epilogue: gelu },
  { m: 9, n: 32, k: 64, type: 'f16', format: 'q4', epilogue: bias },
];
