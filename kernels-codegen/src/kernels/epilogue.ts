// Emits what follows a kernel's arithmetic: load the epilogue's operands, evaluate its expression, store.
// Shared by every family, so that a fused expression means the same everywhere.

import type { BindingAccess } from '../../../runtime/src/program/types.ts';
import { emit, operandsOf } from '../expr/expr.ts';
import { LITERALS, type Sizes } from '../wgsl/sizes.ts';
import { type Epilogue, type MatrixView, type OperandView, viewLength } from './kernel.ts';

export interface EmittedEpilogue {
  /** Module-scope `var<storage>` declarations of the operands and the output. */
  declarations: string;
  bindings: BindingAccess[];
  /** Name of the output array, for families that must read it. */
  out: string;
  /**
   * Statements that store `expr(acc)` at `[row, col … col + width − 1]`.
   * @param row, col WGSL u32 expressions; `col` must be a multiple of `width`
   * @param value WGSL expression of type f32 or vec4<f32> by `width`
   */
  store(row: string, col: string, value: string): string;
  /** The two halves of `store`: statements before, and the expression of, `expr(acc)` in f32; and the statement that stores such a value. */
  evaluate(row: string, col: string, value: string): { before: string[]; text: string };
  write(row: string, col: string, text: string): string;
}

/** Widest vector the epilogue and the output allow: 4 when every row starts on a multiple of four elements. */
export function epilogueWidth(epilogue: Epilogue, out: MatrixView): 1 | 4 {
  const aligned = (...values: number[]): boolean => values.every((v) => v % 4 === 0);
  const operandOk = (o: OperandView): boolean => o.strideCol === 0 || aligned(o.offset, o.strideRow, o.length);
  const outOk = aligned(out.cols, out.rowStride, out.offset);
  return outOk && epilogue.operands.every(operandOk) ? 4 : 1;
}

/**
 * @param firstBinding binding number of the first operand; the output comes last
 * @param width elements stored at a time; at most {@link epilogueWidth}
 * @param sizes how the text gets offsets, strides and lengths
 */
export function emitEpilogue(
  epilogue: Epilogue,
  out: MatrixView,
  firstBinding: number,
  width: 1 | 4,
  sizes: Sizes = LITERALS,
): EmittedEpilogue {
  const used = operandsOf(epilogue.expr);
  const declarations: string[] = [];
  const bindings: BindingAccess[] = [];
  const vectorType = (type: string): string => (width === 1 ? type : `vec4<${type}>`);
  const declare = (
    name: string,
    access: 'read' | 'read_write',
    element: string,
    length: number,
    byRows: boolean,
  ): void => {
    const binding = firstBinding + bindings.length;
    declarations.push(
      `@group(0) @binding(${binding}) var<storage, ${access}> ${name}: array<${element}${sizes.length(length, byRows)}>;`,
    );
    bindings.push(access);
  };
  epilogue.operands.forEach((o, i) => {
    if (i === epilogue.inPlace) return;
    const vector = o.strideCol === 1;
    declare(
      `operand${i}`,
      'read',
      vector ? vectorType(o.type) : o.type,
      vector && width === 4 ? Math.ceil(o.length / 4) : o.length,
      o.strideRow > 0,
    );
  });
  const length = width === 4 ? Math.ceil(viewLength(out) / 4) : viewLength(out);
  declare('result', 'read_write', vectorType(out.type), length, true);

  /** @param name whose index it is, before what its sizes are */
  const index = (
    name: string,
    { offset, strideRow, strideCol }: Pick<OperandView, 'offset' | 'strideRow' | 'strideCol'>,
    row: string,
    col: string,
  ): string => {
    const step = strideCol === 1 ? width : 1;
    const terms = [
      offset ? sizes.of(`${name}_offset`, offset / step) : '',
      strideRow ? `(${row}) * ${sizes.of(`${name}_stride`, strideRow / step)}` : '',
      strideCol ? (step === 1 ? `(${col})` : `(${col}) / ${step}u`) : '',
    ].filter(Boolean);
    return terms.length ? terms.join(' + ') : '0u';
  };
  const wide = width === 1 ? 'f32' : 'vec4<f32>';
  const stored = { offset: out.offset, strideRow: out.rowStride, strideCol: 1 } as const;
  const evaluate: EmittedEpilogue['evaluate'] = (row, col, value) => {
    const before: string[] = [`let acc_: ${wide} = ${value};`];
    for (const i of used) {
      const o = epilogue.operands[i]!;
      const source =
        i === epilogue.inPlace
          ? `result[${index('result', stored, row, col)}]`
          : `operand${i}[${index(`operand${i}`, o, row, col)}]`;
      before.push(`let operand${i}_ = ${wide}(${source});`);
    }
    return { before, text: emit(epilogue.expr, width, 'acc_', (i) => `operand${i}_`) };
  };
  const write: EmittedEpilogue['write'] = (row, col, text) => {
    // Conversion to f16 outside its range is undefined in WGSL: saturate, as the reference's f16 runs do for T5.
    const rounded =
      out.type === 'f32' ? text : `${vectorType('f16')}(clamp(${text}, ${wide}(-65504.0), ${wide}(65504.0)))`;
    return `result[${index('result', stored, row, col)}] = ${rounded};`;
  };
  return {
    declarations: declarations.join('\n'),
    bindings,
    out: 'result',
    evaluate,
    write,
    store(row, col, value) {
      const { before, text } = evaluate(row, col, value);
      return `{\n${[...before, write(row, col, text)].join('\n')}\n}`;
    },
  };
}
