// What a matmul is: shapes, formats, and what every variant of it must refuse.
// Separate from the variants so that each of them, and the chooser, reads one definition.

import { KontextError } from '../../../../runtime/src/errors.ts';
import type { WeightFormat } from '../../../../runtime/src/program/types.ts';
import { hasTier, type TargetProfile } from '../../targets/types.ts';
import { formatProblem, weightBytes } from '../../wgsl/weights.ts';
import type { Epilogue, MatrixView } from '../kernel.ts';
import { headNormFlops, type NormedHeads, tableProblem } from '../normed-heads.ts';
import { epilogueBytes, viewBytes } from '../precision.ts';

/**
 * y[m, n] = epilogue(Σ_s Σ_k a_s[m, k] · b[n, kOffset_s + k]), a linear layer with its weight as `nn.Linear` stores it.
 *
 * The columns of `b` are split among the segments in order, so a concatenation along channels never exists in memory.
 */
export interface MatmulSpec {
  m: number;
  n: number;
  /** `a.rows` is `m`; the `a.cols` add up to `weight.cols`. */
  segments: { a: MatrixView }[];
  /** `b[n, k]`: `rows` is `n`. */
  weight: StoredMatrix;
  /** Adds `a · weightᵀ` of another pair, before the epilogue: an adapter's low-rank path. */
  beside?: { a: MatrixView; weight: StoredMatrix };
  /**
   * The segments are what a norm gave, scaled or modulated: values about one. Their products with weights may then be summed in f16, 16 at a time
   * (`packed.ts`): a product too small for f16 is one of a weight that is itself too small for it.
   */
  normalised?: true;
  epilogue: Epilogue;
  /** Behind the epilogue: the first two `heads · size` columns are q and k, whose heads are normalised, each with its scale. Only the matrix variant does it. */
  heads?: NormedHeads;
  /** `rows` is `m`, `cols` is `n`. */
  out: MatrixView;
}

/** A right operand `[rows, cols]`, as it is stored. */
export interface StoredMatrix {
  format: WeightFormat;
  rows: number;
  cols: number;
}

/** The left operands in the order of summation, each with the columns of the right operand it meets. */
export function segmentsOf(spec: MatmulSpec): { a: MatrixView; weight: StoredMatrix; first: number }[] {
  let first = 0;
  const segments = spec.segments.map(({ a }) => {
    first += a.cols;
    return { a, weight: spec.weight, first: first - a.cols };
  });
  return spec.beside ? [...segments, { ...spec.beside, first: 0 }] : segments;
}

/** Throws `program-invalid` for a specification that no variant could compute on `target`. */
export function checkMatmulSpec(spec: MatmulSpec, target: TargetProfile): void {
  const fail = (why: string): never => {
    throw new KontextError('program-invalid', `matmul ${describeMatmul(spec)}: ${why}`);
  };
  const { m, n, segments, weight, beside, out, epilogue, heads } = spec;
  if (![m, n, weight.cols].every((x) => Number.isInteger(x) && x > 0)) fail('sizes must be positive integers');
  if (segments.length === 0) fail('needs at least one segment');
  if (segments.some(({ a }) => a.rows !== m)) fail(`each segment must have ${m} rows`);
  const k = segments.reduce((sum, { a }) => sum + a.cols, 0);
  if (k !== weight.cols) fail(`the segments have ${k} columns together, the weight has ${weight.cols}`);
  if (beside && (beside.a.rows !== m || beside.weight.rows !== n || beside.a.cols !== beside.weight.cols)) {
    fail(`the path beside it is ${beside.a.rows}×${beside.weight.rows}×${beside.a.cols}`);
  }
  if (weight.rows !== n) fail(`the weight has ${weight.rows} rows, expected ${n}`);
  if (heads && (heads.size % 4 || n < 2 * heads.heads * heads.size)) {
    fail(`${heads.heads} heads of ${heads.size} for q and k do not fit, or are no multiples of four`);
  }
  const table = heads && tableProblem(heads, m);
  if (table) fail(table);
  if (out.rows !== m || out.cols !== n) fail(`the output is ${out.rows}×${out.cols}`);
  for (const { format, cols } of beside ? [weight, beside.weight] : [weight]) {
    const problem = formatProblem(format, cols);
    if (problem) fail(problem);
  }
  const types = [...segmentsOf(spec).map(({ a }) => a.type), ...epilogue.operands.map((o) => o.type), out.type];
  if (types.includes('f16') && !hasTier(target, 'f16')) fail(`f16 activations need tier f16, target is ${target.tier}`);
  const buffers = buffersOf(spec);
  if (buffers > target.limits.maxStorageBuffersPerShaderStage) {
    fail(`binds ${buffers} storage buffers, the target allows ${target.limits.maxStorageBuffersPerShaderStage}`);
  }
}

/** Storage buffers that a kernel for the spec binds. */
export function buffersOf({ segments, beside, heads, epilogue }: MatmulSpec): number {
  const output = epilogue.inPlace === undefined ? 1 : 0;
  const tables = heads ? (heads.rope ? 3 : 2) : 0;
  return segments.length + 1 + (beside ? 2 : 0) + tables + epilogue.operands.length + output;
}

/**
 * Type in which products are formed from tiles. f16 only when nothing is lost by it: f32 activations (embedders,
 * modulation vectors) may exceed f16's range, and f32 weights were stored so for their precision.
 */
export function tileElement(spec: MatmulSpec, target: TargetProfile): 'f32' | 'f16' {
  return hasTier(target, 'f16') && !target.wideTiles && halvesOf(spec) ? 'f16' : 'f32';
}

/** Both operands lose nothing in f16. */
export const halvesOf = (spec: MatmulSpec): boolean =>
  segmentsOf(spec).every((s) => s.a.type === 'f16' && s.weight.format !== 'f32');

/** True when the text needs `enable f16`. */
export function usesF16(spec: MatmulSpec, target: TargetProfile): boolean {
  const segments = segmentsOf(spec);
  const views = [...segments.map((s) => s.a), ...spec.epilogue.operands, spec.out];
  const stored = segments.some((s) => s.weight.format === 'f16');
  return hasTier(target, 'f16') && (stored || views.some((v) => v.type === 'f16'));
}

/** Multiply-adds count as two. */
export function matmulFlops({ m, n, weight, beside, heads }: MatmulSpec): number {
  const normed = heads ? headNormFlops(heads, 2 * m * heads.heads * heads.size) : 0;
  return 2 * m * n * (weight.cols + (beside?.weight.cols ?? 0)) + normed;
}

/** Bytes that must move at least once: inputs, weight, operands, output. */
export function matmulBytes(spec: MatmulSpec): number {
  const weights = spec.beside ? [spec.weight, spec.beside.weight] : [spec.weight];
  const inputs = segmentsOf(spec).reduce((sum, { a }) => sum + viewBytes(a), 0);
  const stored = weights.reduce((sum, { format, rows, cols }) => sum + weightBytes(format, rows, cols), 0);
  const tables = spec.heads ? 4 * spec.heads.size * (2 + (spec.heads.rope ? spec.m : 0)) : 0;
  return inputs + stored + tables + epilogueBytes(spec.epilogue, spec.out);
}

/** `m×n×k format`, with each segment's width when there are several. */
export function describeMatmul(spec: MatmulSpec): string {
  const k = spec.segments.map((s) => s.a.cols).join('+');
  const beside = spec.beside ? ` beside ${spec.beside.a.cols} ${spec.beside.weight.format}` : '';
  const heads = spec.heads ? ` heads of ${spec.heads.size}` : '';
  return `${spec.m}×${spec.n}×${k} ${spec.weight.format}${beside}${heads}`;
}
