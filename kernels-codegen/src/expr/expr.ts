// Scalar expressions: what fusion moves between kernels.
// An elementwise computation is data, so a matmul, a norm or a convolution can finish with any of them in registers.

/** `acc` is the value the surrounding kernel computed; `operand` is a tensor read at the same row and column. */
export type Expr =
  | { readonly op: 'acc' }
  | { readonly op: 'operand'; readonly index: number }
  | { readonly op: 'const'; readonly value: number }
  | { readonly op: BinaryOp; readonly a: Expr; readonly b: Expr }
  | { readonly op: UnaryOp; readonly a: Expr };

export type BinaryOp = 'add' | 'sub' | 'mul' | 'div' | 'min' | 'max';
export type UnaryOp = 'neg' | 'exp' | 'tanh' | 'sqrt' | 'rsqrt' | 'abs' | 'floor' | 'round';

export const acc: Expr = { op: 'acc' };
export const operand = (index: number): Expr => ({ op: 'operand', index });
export const constant = (value: number): Expr => ({ op: 'const', value });

const toExpr = (x: Expr | number): Expr => (typeof x === 'number' ? constant(x) : x);
const binary =
  (op: BinaryOp) =>
  (a: Expr | number, b: Expr | number): Expr => ({ op, a: toExpr(a), b: toExpr(b) });
const unary =
  (op: UnaryOp) =>
  (a: Expr): Expr => ({ op, a });

export const add = binary('add');
export const sub = binary('sub');
export const mul = binary('mul');
export const div = binary('div');
export const min = binary('min');
export const max = binary('max');
export const neg = unary('neg');
export const exp = unary('exp');
export const tanh = unary('tanh');
export const sqrt = unary('sqrt');
export const rsqrt = unary('rsqrt');
export const abs = unary('abs');
export const floor = unary('floor');
export const round = unary('round');

/** 1 / (1 + e^−x). The argument is clamped: WGSL leaves overflow to infinity undefined, and e^±80 is exact 0 or 1 in f32. */
export const sigmoid = (x: Expr): Expr => div(1, add(1, exp(min(neg(x), 80))));

/** x · sigmoid(x). */
export const silu = (x: Expr): Expr => mul(x, sigmoid(x));

/** GELU, tanh form: x/2 · (1 + tanh(√(2/π)(x + 0.044715 x³))), written as x · sigmoid(2u) to avoid tanh's overflow on some drivers. */
export const geluTanh = (x: Expr): Expr =>
  mul(x, sigmoid(mul(2 * Math.sqrt(2 / Math.PI), add(x, mul(0.044715, mul(x, mul(x, x)))))));

/** x · sigmoid(1.702 x), CLIP's activation. */
export const quickGelu = (x: Expr): Expr => mul(x, sigmoid(mul(1.702, x)));

/** Value of `e` in float64: the oracle for every fused kernel. */
export function evaluate(e: Expr, accValue: number, operands: readonly number[]): number {
  switch (e.op) {
    case 'acc':
      return accValue;
    case 'operand':
      return operands[e.index]!;
    case 'const':
      return e.value;
    case 'neg':
      return -evaluate(e.a, accValue, operands);
    case 'exp':
      return Math.exp(evaluate(e.a, accValue, operands));
    case 'tanh':
      return Math.tanh(evaluate(e.a, accValue, operands));
    case 'sqrt':
      return Math.sqrt(evaluate(e.a, accValue, operands));
    case 'rsqrt':
      return 1 / Math.sqrt(evaluate(e.a, accValue, operands));
    case 'abs':
      return Math.abs(evaluate(e.a, accValue, operands));
    case 'floor':
      return Math.floor(evaluate(e.a, accValue, operands));
    case 'round':
      return roundHalfEven(evaluate(e.a, accValue, operands));
    default: {
      const a = evaluate(e.a, accValue, operands);
      const b = evaluate(e.b, accValue, operands);
      switch (e.op) {
        case 'add':
          return a + b;
        case 'sub':
          return a - b;
        case 'mul':
          return a * b;
        case 'div':
          return a / b;
        case 'min':
          return Math.min(a, b);
        case 'max':
          return Math.max(a, b);
        default:
          throw e satisfies never;
      }
    }
  }
}

/** Replaces `acc` and operands; the composition that fusion needs. */
export function substitute(e: Expr, accTo: Expr, operandTo: (index: number) => Expr): Expr {
  switch (e.op) {
    case 'acc':
      return accTo;
    case 'operand':
      return operandTo(e.index);
    case 'const':
      return e;
    default:
      return 'b' in e
        ? { op: e.op, a: substitute(e.a, accTo, operandTo), b: substitute(e.b, accTo, operandTo) }
        : { op: e.op, a: substitute(e.a, accTo, operandTo) };
  }
}

/** Operand indices that occur, each once, ascending. */
export function operandsOf(e: Expr): number[] {
  const found = new Set<number>();
  const walk = (x: Expr): void => {
    if (x.op === 'operand') found.add(x.index);
    if ('a' in x) walk(x.a);
    if ('b' in x) walk(x.b);
  };
  walk(e);
  return [...found].sort((a, b) => a - b);
}

/** True when the expression is `acc` itself: nothing to compute. */
export const isIdentity = (e: Expr): boolean => e.op === 'acc';

/** Arithmetic operations per element, for cost estimates. */
export function opCount(e: Expr): number {
  return ('a' in e ? 1 + opCount(e.a) : 0) + ('b' in e ? opCount(e.b) : 0);
}

/**
 * WGSL for `e`. Every value is `f32` or `vec{2,4}<f32>` by `width`; `accText` and `operandText` must be of that type.
 * Repeated subexpressions are repeated in the text: pass names, not long expressions.
 */
export function emit(e: Expr, width: 1 | 2 | 4, accText: string, operandText: (index: number) => string): string {
  const go = (x: Expr): string => {
    switch (x.op) {
      case 'acc':
        return accText;
      case 'operand':
        return operandText(x.index);
      case 'const':
        return splat(x.value, width);
      case 'add':
        return `(${go(x.a)} + ${go(x.b)})`;
      case 'sub':
        return `(${go(x.a)} - ${go(x.b)})`;
      case 'mul':
        return `(${go(x.a)} * ${go(x.b)})`;
      case 'div':
        return `(${go(x.a)} / ${go(x.b)})`;
      case 'min':
      case 'max':
        return `${x.op}(${go(x.a)}, ${go(x.b)})`;
      case 'neg':
        return `(-${go(x.a)})`;
      case 'rsqrt':
        return `inverseSqrt(${go(x.a)})`;
      default:
        return `${x.op}(${go(x.a)})`;
    }
  };
  return go(e);
}

/** A float literal WGSL reads back to the same f32. */
export function floatLiteral(value: number): string {
  const text = String(Math.fround(value));
  return `${/[.e]/.test(text) ? text : `${text}.0`}f`.replace(/e\+/, 'e');
}

function splat(value: number, width: 1 | 2 | 4): string {
  return width === 1 ? floatLiteral(value) : `vec${width}<f32>(${floatLiteral(value)})`;
}

/** Nearest integer, ties to even, as WGSL's `round`. */
export function roundHalfEven(x: number): number {
  const r = Math.round(x);
  return Math.abs(x - Math.trunc(x)) === 0.5 && r % 2 !== 0 ? r - 1 : r;
}
