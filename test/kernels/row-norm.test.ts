// Row norms against a float64 oracle: both kinds, both storage types, every way of reading and storing.
// Covers rows with a large mean, which a one-pass variance gets wrong.
import { beforeAll, describe, expect, it } from 'vitest';
import { acc, add, evaluate, mul, operand } from '../../kernels-codegen/src/expr/expr.ts';
import type { Epilogue, MatrixView } from '../../kernels-codegen/src/kernels/kernel.ts';
import { viewLength } from '../../kernels-codegen/src/kernels/kernel.ts';
import { rowNorm } from '../../kernels-codegen/src/kernels/row-norm.ts';
import { BASELINE_LIMITS, type TargetProfile } from '../../kernels-codegen/src/targets/types.ts';
import { openTestDevice, runKernel, type TestDevice } from '../support/gpu.ts';
import { decode, encode, expectView, filled, gaussian, valueAt, view } from '../support/views.ts';

const target: TargetProfile = { name: 'test', tier: 'f16', limits: BASELINE_LIMITS };
const plain: Epilogue = { expr: acc, operands: [] };
// f32: statistics of n terms are good to a few ulp, 1e-7 relative. f16: one rounding of the result, 2^-11 of a value
// that is at most about five times the root mean square.
const limits = { f32: { nmse: 1e-12, worst: 5e-6 }, f16: { nmse: 1e-7, worst: 2.6e-3 } };

describe('rowNorm', () => {
  let gpu: TestDevice;
  beforeAll(async () => {
    gpu = await openTestDevice();
  });

  interface Case {
    name: string;
    kind: 'layer' | 'rms';
    x: MatrixView;
    out: MatrixView;
    epilogue?: Epilogue;
    mean?: number;
    target?: TargetProfile;
    /** Loosened only with a reason beside it. */
    limit?: { nmse: number; worst: number };
  }

  async function check(c: Case): Promise<void> {
    const eps = 1e-6;
    const epilogue = c.epilogue ?? plain;
    const next = gaussian(7);
    const x = filled(c.x, () => next() + (c.mean ?? 0));
    const operands = epilogue.operands.map((o) =>
      filled({ type: o.type, rows: 1, cols: o.length, rowStride: 0, offset: 0 }, next),
    );
    const inPlace = epilogue.inPlace;
    const before = inPlace === undefined ? filled(c.out, next) : operands[inPlace]!;
    const kernel = rowNorm({ kind: c.kind, eps, x: c.x, epilogue, out: c.out }, c.target ?? target);
    const buffers = [
      encode(c.x.type, x),
      ...epilogue.operands.flatMap((o, i) => (i === inPlace ? [] : [encode(o.type, operands[i]!)])),
      encode(c.out.type, before),
    ];
    expect(kernel.bindings.length).toBe(buffers.length);
    const result = await runKernel(gpu, kernel, buffers);
    const rows = Array.from({ length: c.x.rows }, (_, r) => {
      const values = Array.from({ length: c.x.cols }, (_, i) => valueAt(c.x, x, r, i));
      const mean = c.kind === 'layer' ? values.reduce((a, b) => a + b) / values.length : 0;
      const variance = values.reduce((a, b) => a + (b - mean) ** 2, 0) / values.length;
      return values.map((v) => (v - mean) / Math.sqrt(variance + eps));
    });
    const want = (r: number, i: number): number =>
      evaluate(
        epilogue.expr,
        rows[r]![i]!,
        epilogue.operands.map((o, n) => operands[n]![o.offset + r * o.strideRow + i * o.strideCol]!),
      );
    expectView(c.out, decode(c.out.type, result.get(buffers.length - 1)!), want, c.limit ?? limits[c.out.type], before);
  }

  const both = (name: string, shape: Omit<Case, 'kind' | 'name'>): Case[] => [
    { ...shape, name, kind: 'layer' },
    { ...shape, name, kind: 'rms' },
  ];
  const modulated = (cols: number): Epilogue => ({
    expr: add(mul(acc, add(operand(0), 1)), operand(1)),
    operands: [
      { type: 'f32', offset: 0, strideRow: 0, strideCol: 1, length: cols },
      { type: 'f32', offset: cols, strideRow: 0, strideCol: 1, length: 3 * cols },
    ],
  });

  const cases: Case[] = [
    ...both('aligned f32', { x: view('f32', 9, 256), out: view('f32', 9, 256) }),
    ...both('f32 to f16 with modulation', {
      x: view('f32', 5, 3072),
      out: view('f16', 5, 3072),
      epilogue: modulated(3072),
    }),
    ...both('f16 in and out', { x: view('f16', 3, 768), out: view('f16', 3, 768) }),
    ...both('one row of four', { x: view('f32', 1, 4), out: view('f32', 1, 4) }),
    ...both('ragged columns', { x: view('f32', 4, 101), out: view('f32', 4, 101) }),
    ...both('vectors that do not fill the threads', { x: view('f32', 4, 1100), out: view('f32', 4, 1100) }),
    ...both('rows too long for registers', { x: view('f32', 2, 10240), out: view('f32', 2, 10240) }),
    ...both('strided and offset', {
      x: view('f32', 6, 64, { rowStride: 192, offset: 64 }),
      out: view('f32', 6, 64, { rowStride: 80, offset: 8 }),
    }),
    ...both('offset that breaks vectors', {
      x: view('f32', 6, 64, { rowStride: 65, offset: 3 }),
      out: view('f32', 6, 64),
    }),
    ...both('added to the output in place', {
      x: view('f32', 6, 64),
      out: view('f32', 6, 64),
      epilogue: {
        expr: add(operand(0), acc),
        operands: [{ type: 'f32', offset: 0, strideRow: 64, strideCol: 1, length: 6 * 64 }],
        inPlace: 0,
      },
    }),
    ...both('more rows than one grid dimension', {
      x: view('f32', 21, 32),
      out: view('f32', 21, 32),
      target: { ...target, limits: { ...BASELINE_LIMITS, maxComputeWorkgroupsPerDimension: 8 } },
    }),
    {
      name: 'a mean of a thousand deviations',
      kind: 'layer',
      mean: 1000,
      x: view('f32', 4, 1024),
      out: view('f32', 4, 1024),
      // The mean itself carries a few ulp of 1000, 6e-5 each; E[x²] − E[x]² would be wrong by 6 %.
      limit: { nmse: 1e-7, worst: 3e-4 },
    },
  ];
  for (const c of cases) {
    it(`${c.kind}: ${c.name}`, () => check(c));
    it(`a thread a row, ${c.kind}: ${c.name}`, () =>
      check({ ...c, target: { ...(c.target ?? target), software: true } }));
  }

  it('declares no more than it reads', () => {
    const x = view('f32', 6, 64, { rowStride: 192, offset: 64 });
    // More rows than one line of workgroups has; in one line the text knows no rows.
    const limits = { ...target.limits, maxComputeWorkgroupsPerDimension: 4 };
    const spec = { kind: 'rms', eps: 0, x, epilogue: plain, out: view('f32', 6, 64) } as const;
    const kernel = rowNorm(spec, { ...target, limits });
    expect(kernel.wgsl).toContain(`array<vec4<f32>, ${viewLength(x) / 4}>`);
    expect(kernel.needs.features).toEqual([]);
  });

  it('has one text for any number of rows', () => {
    const { software: _, ...onGpu } = target;
    const of = (rows: number): string =>
      rowNorm({ kind: 'rms', eps: 0, x: view('f32', rows, 64), epilogue: plain, out: view('f32', rows, 64) }, onGpu)
        .wgsl;
    expect(of(512)).toBe(of(8704));
  });

  it('refuses shapes that differ', () => {
    const spec = { kind: 'rms', eps: 0, x: view('f32', 6, 64), epilogue: plain, out: view('f32', 6, 60) } as const;
    expect(() => rowNorm(spec, target)).toThrow(/same shape/);
  });
});
