// The values every kernel family takes and returns.
// A family is a pure function (spec, target) → KernelSource: it knows shapes and a target, never a model or a device.

import type { BindingAccess, SubgroupMatrixConfig } from '../../../runtime/src/program/types.ts';
import type { Expr } from '../expr/expr.ts';

/**
 * A row-major matrix, or a rectangle of one, inside one binding: element `[r, c]` is number
 * `offset + r · rowStride + c` of the bound array. Only what does not fit 256-byte binding offsets is left in `offset`.
 */
export interface MatrixView {
  type: 'f32' | 'f16';
  rows: number;
  cols: number;
  rowStride: number;
  offset: number;
}

/** An operand of an epilogue: element at output position `[r, c]` is number `offset + r · strideRow + c · strideCol`. */
export interface OperandView {
  type: 'f32' | 'f16';
  offset: number;
  /** 0 broadcasts one row to all rows (a bias, a gate). */
  strideRow: number;
  /** 0 broadcasts one column to all columns. */
  strideCol: 0 | 1;
  /** Elements of the bound array, for its declared length. */
  length: number;
}

/** What a kernel does with each value it computed before storing it: `out = expr(acc, operands)`. */
export interface Epilogue {
  expr: Expr;
  operands: OperandView[];
  /** This operand is the output's own old value: one `read_write` binding serves both. */
  inPlace?: number;
}

/** A generated shader with what is needed to launch it and to say what it needs. */
export interface KernelSource {
  /** Family, variant and tile, e.g. `matmul f16 128×128×32`. */
  label: string;
  wgsl: string;
  /** In `@binding` order: the family's own inputs, then `epilogue.operands` except the in-place one, then the output. */
  bindings: BindingAccess[];
  /** Words of one more binding, `uniform` and behind all others: sizes that the text takes from there. */
  sizes?: Uint32Array;
  workgroups: [number, number, number];
  flops: number;
  bytes: number;
  /** Beyond the WebGPU baseline. */
  needs: {
    features?: string[];
    /** Invocations in one workgroup. */
    invocations: number;
    /** Bytes of workgroup memory. */
    workgroupBytes: number;
    subgroupSize?: { min: number; max: number };
    subgroupMatrix?: SubgroupMatrixConfig;
  };
}

/** Access of every binding, that of the sizes among them. */
export const allBindings = ({ bindings, sizes }: Pick<KernelSource, 'bindings' | 'sizes'>): BindingAccess[] =>
  sizes ? [...bindings, 'uniform'] : bindings;

/** Elements from the start of the binding to the end of the view. */
export const viewLength = (v: MatrixView): number => v.offset + (v.rows - 1) * v.rowStride + v.cols;

export const bytesOf = (type: 'f32' | 'f16'): number => (type === 'f32' ? 4 : 2);
