// Normalised attention guidance of rows against its formula in float64: bounded and unbounded rows, both types, every way of reading.
import { beforeAll, describe, expect, it } from 'vitest';
import { guideRows } from '../../kernels-codegen/src/kernels/guide-rows.ts';
import type { MatrixView } from '../../kernels-codegen/src/kernels/kernel.ts';
import { BASELINE_LIMITS, type TargetProfile } from '../../kernels-codegen/src/targets/types.ts';
import { openTestDevice, runKernel, type TestDevice } from '../support/gpu.ts';
import { decode, encode, expectView, filled, gaussian, valueAt, view } from '../support/views.ts';

const target: TargetProfile = { name: 'test', tier: 'f16', limits: BASELINE_LIMITS };
// Scale and bound of one rounding each; f16 as one rounding of the result, 2^-11 of a value at most some ten times the root mean square.
const limits = { f32: { nmse: 1e-12, worst: 5e-6 }, f16: { nmse: 2e-7, worst: 5e-3 } };

interface Case {
  name: string;
  positive: MatrixView;
  negative: MatrixView;
  out: MatrixView;
  settings?: [scale: number, tau: number, alpha: number];
  /** The first row of `positive` is 0. */
  zeros?: boolean;
  target?: TargetProfile;
}

const same = (type: 'f32' | 'f16', rows: number, cols: number) => ({
  positive: view(type, rows, cols),
  negative: view(type, rows, cols),
  out: view(type, rows, cols),
});
const cases: Case[] = [
  { name: 'the published settings, which bound every row of unlike texts', ...same('f32', 9, 256) },
  { name: 'a bound that nothing reaches', ...same('f32', 9, 256), settings: [5, 50, 0.25] },
  { name: 'scale 1: the negative text counts for nothing', ...same('f32', 5, 64), settings: [1, 2.5, 0.25] },
  { name: 'all of the guided value', ...same('f32', 5, 64), settings: [3, 1.5, 1] },
  { name: 'f16', ...same('f16', 6, 3072) },
  { name: 'ragged columns', ...same('f32', 4, 101) },
  { name: 'a row of zeros', ...same('f32', 4, 32), zeros: true },
  {
    name: 'parts of wider matrices',
    positive: view('f32', 6, 64, { rowStride: 192, offset: 64 }),
    negative: view('f32', 6, 64, { rowStride: 128 }),
    out: view('f32', 6, 64, { rowStride: 80, offset: 8 }),
  },
  {
    name: 'an offset that breaks vectors',
    ...same('f32', 6, 64),
    positive: view('f32', 6, 64, { rowStride: 65, offset: 3 }),
  },
  {
    name: 'more rows than one grid dimension',
    ...same('f32', 21, 32),
    target: { ...target, limits: { ...BASELINE_LIMITS, maxComputeWorkgroupsPerDimension: 2 } },
  },
];

describe('guideRows', () => {
  let gpu: TestDevice;
  beforeAll(async () => {
    gpu = await openTestDevice();
  });

  async function check({
    positive,
    negative,
    out,
    settings = [5, 2.5, 0.25],
    zeros,
    target: own,
  }: Case): Promise<void> {
    const next = gaussian(11);
    const p = filled(positive, next);
    if (zeros) p.fill(0, 0, positive.cols);
    const n = filled(negative, () => next() * 0.7 + 0.1);
    const before = filled(out, next);
    const kernel = guideRows({ positive, negative, settings: view('f32', 1, 4), out }, own ?? target);
    const buffers = [
      encode(positive.type, p),
      encode(negative.type, n),
      encode('f32', [...settings, 0]),
      encode(out.type, before),
    ];
    const result = await runKernel(gpu, kernel, buffers);
    const [scale, tau, alpha] = settings;
    const rows = Array.from({ length: out.rows }, (_, r) => {
      const z = Array.from({ length: out.cols }, (_, i) => valueAt(positive, p, r, i));
      const guided = z.map((v, i) => scale * v - (scale - 1) * valueAt(negative, n, r, i));
      const norm = (values: number[]): number => values.reduce((sum, v) => sum + Math.abs(v), 0);
      const bound = tau * norm(z);
      const share = norm(guided) > bound ? bound / norm(guided) : 1;
      return z.map((v, i) => alpha * share * guided[i]! + (1 - alpha) * v);
    });
    expectView(out, decode(out.type, result.get(3)!), (r, i) => rows[r]![i]!, limits[out.type], before);
  }

  for (const c of cases) {
    it(c.name, () => check(c));
    it(`a thread a row: ${c.name}`, () => check({ ...c, target: { ...(c.target ?? target), software: true } }));
  }

  it('refuses shapes that differ', () => {
    const spec = { ...same('f32', 4, 64), settings: view('f32', 1, 4), negative: view('f32', 4, 60) };
    expect(() => guideRows(spec, target)).toThrow(/give all three the same/);
  });
});
