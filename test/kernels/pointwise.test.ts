// Pointwise kernels against a float64 oracle: vector and scalar stores, broadcasts, in-place updates, folded grids.
// They carry the Euler update and the CFG mix, so both appear here as they are compiled.
import { beforeAll, describe, expect, it } from 'vitest';
import {
  acc,
  add,
  type Expr,
  evaluate,
  geluTanh,
  mul,
  operand,
  quickGelu,
  round,
  silu,
  sub,
} from '../../kernels-codegen/src/expr/expr.ts';
import type { Epilogue, MatrixView, OperandView } from '../../kernels-codegen/src/kernels/kernel.ts';
import { pointwise } from '../../kernels-codegen/src/kernels/pointwise.ts';
import { BASELINE_LIMITS, type TargetProfile } from '../../kernels-codegen/src/targets/types.ts';
import { openTestDevice, type TestDevice } from '../support/gpu.ts';
import { runSupported } from '../support/run-supported.ts';
import { decode, encode, expectView, filled, gaussian, view } from '../support/views.ts';

const target: TargetProfile = { name: 'test', tier: 'f16', limits: BASELINE_LIMITS };
// f32: a few roundings, and exp and tanh of a driver to about 1e-6. f16: one rounding of the result, 2^-11 of the value;
// the largest of some thousand values is below eight times the root mean square.
const limits = { f32: { nmse: 1e-12, worst: 1e-5 }, f16: { nmse: 2e-7, worst: 4e-3 } };

const full = (v: MatrixView): OperandView => ({
  type: v.type,
  offset: v.offset,
  strideRow: v.rowStride,
  strideCol: 1,
  length: v.offset + v.rows * v.rowStride,
});
const rowOf = (cols: number, type: 'f32' | 'f16' = 'f32'): OperandView => ({
  type,
  offset: 0,
  strideRow: 0,
  strideCol: 1,
  length: cols,
});
const columnOf = (rows: number): OperandView => ({ type: 'f32', offset: 0, strideRow: 1, strideCol: 0, length: rows });
const scalar: OperandView = { type: 'f32', offset: 2, strideRow: 0, strideCol: 0, length: 3 };

describe('pointwise', () => {
  let gpu: TestDevice;
  beforeAll(async () => {
    gpu = await openTestDevice();
  });

  interface Case {
    name: string;
    out: MatrixView;
    expr: Expr;
    operands: OperandView[];
    inPlace?: number;
    target?: TargetProfile;
  }

  async function check(c: Case): Promise<void> {
    const next = gaussian(11);
    const operands = c.operands.map((o, i) =>
      filled(view(o.type, 1, o.length), next, i === c.inPlace ? c.out.offset + c.out.rows * c.out.rowStride : o.length),
    );
    const before = c.inPlace === undefined ? filled(c.out, next) : operands[c.inPlace]!;
    const epilogue: Epilogue = { expr: c.expr, operands: c.operands, inPlace: c.inPlace };
    const kernel = pointwise({ epilogue, out: c.out }, c.target ?? target);
    const buffers = [
      ...c.operands.flatMap((o, i) => (i === c.inPlace ? [] : [encode(o.type, operands[i]!)])),
      encode(c.out.type, before),
    ];
    expect(kernel.bindings.length).toBe(buffers.length);
    const result = await runSupported(gpu, kernel, buffers);
    const want = (r: number, i: number): number =>
      evaluate(
        c.expr,
        Number.NaN,
        c.operands.map((o, n) => operands[n]![o.offset + r * o.strideRow + i * o.strideCol]!),
      );
    expectView(c.out, decode(c.out.type, result.get(buffers.length - 1)!), want, limits[c.out.type], before);
  }

  const square = view('f32', 24, 64);
  const euler = add(operand(0), mul(operand(1), operand(2)));
  const cases: Case[] = [
    { name: 'copy', out: square, expr: operand(0), operands: [full(square)] },
    { name: 'cast to f16', out: view('f16', 24, 64), expr: operand(0), operands: [full(square)] },
    { name: 'cast from f16', out: square, expr: operand(0), operands: [full(view('f16', 24, 64))] },
    {
      name: 'Euler update in place, step size in a buffer',
      out: square,
      expr: euler,
      operands: [full(square), full(view('f16', 24, 64)), scalar],
      inPlace: 0,
    },
    {
      name: 'CFG mix',
      out: square,
      expr: add(operand(0), mul(operand(2), sub(operand(1), operand(0)))),
      operands: [full(square), full(square), scalar],
    },
    {
      name: 'rows and columns broadcast',
      out: view('f16', 7, 36),
      expr: silu(add(mul(operand(0), operand(1)), operand(2))),
      operands: [full(view('f16', 7, 36)), rowOf(36), columnOf(7)],
    },
    { name: 'activations, one element', out: view('f32', 1, 1), expr: geluTanh(operand(0)), operands: [scalar] },
    {
      name: 'ragged columns',
      out: view('f32', 5, 37),
      expr: quickGelu(operand(0)),
      operands: [full(view('f32', 5, 37))],
    },
    {
      name: 'odd f16 row starts',
      out: view('f16', 5, 36, { rowStride: 37, offset: 3 }),
      expr: mul(operand(0), 3),
      operands: [full(view('f16', 5, 36))],
    },
    {
      name: 'a rectangle of a wider matrix',
      out: view('f32', 6, 16, { rowStride: 48, offset: 16 }),
      expr: round(mul(operand(0), 4)),
      operands: [full(view('f32', 6, 16, { rowStride: 32, offset: 8 }))],
    },
    {
      name: 'a grid folded over two dimensions, past its end',
      out: view('f32', 21, 244),
      expr: mul(operand(0), operand(0)),
      operands: [full(view('f32', 21, 244))],
      target: { ...target, limits: { ...BASELINE_LIMITS, maxComputeWorkgroupsPerDimension: 3 } },
    },
    {
      name: 'baseline tier',
      out: square,
      expr: euler,
      operands: [full(square), full(square), scalar],
      target: { ...target, tier: 'f32' },
    },
  ];
  for (const c of cases) it(c.name, () => check(c));

  it('saturates f16', async () => {
    const out = view('f16', 1, 4);
    const kernel = pointwise({ epilogue: { expr: operand(0), operands: [full(view('f32', 1, 4))] }, out }, target);
    const result = await runSupported(gpu, kernel, [Float32Array.of(1e6, -1e30, 65504, -7), new Uint16Array(4)]);
    expect([...decode('f16', result.get(1)!)]).toEqual([65504, -65504, 65504, -7]);
  });

  it('fits 1024² × 128 channels into the default grid and says what it moves', () => {
    const out = view('f32', 2 ** 20, 128);
    const kernel = pointwise({ epilogue: { expr: mul(operand(0), 2), operands: [full(out)] }, out }, target);
    expect(Math.max(...kernel.workgroups)).toBeLessThanOrEqual(65535);
    expect(kernel.workgroups.reduce((a, b) => a * b) * 256 * 4).toBeGreaterThanOrEqual(2 ** 27);
    expect(kernel.bytes).toBe(2 ** 30);
    expect(kernel.flops).toBe(2 ** 27);
  });

  it('refuses acc, and f16 in the baseline tier', () => {
    expect(() => pointwise({ epilogue: { expr: mul(acc, 2), operands: [] }, out: square }, target)).toThrow(/acc/);
    const out = view('f16', 2, 4);
    expect(() =>
      pointwise({ epilogue: { expr: operand(0), operands: [full(out)] }, out }, { ...target, tier: 'f32' }),
    ).toThrow(/make these tensors f32/);
  });
});
