// Group-norm statistics against a float64 oracle, partial and final pass together, as the compiler launches them.
// Large means matter most: the VAE has channels whose mean is many deviations from zero.
import { beforeAll, describe, expect, it } from 'vitest';
import {
  type GroupNormSpec,
  groupNormFinish,
  groupNormParameters,
  groupNormPartial,
  groupNormPartialShape,
} from '../../kernels-codegen/src/kernels/group-norm.ts';
import type { MatrixView } from '../../kernels-codegen/src/kernels/kernel.ts';
import { BASELINE_LIMITS, type TargetProfile, type Tier } from '../../kernels-codegen/src/targets/types.ts';
import { openTestDevice, type TestDevice } from '../support/gpu.ts';
import { runSupported } from '../support/run-supported.ts';
import { decode, encode, expectView, filled, gaussian, valueAt, view } from '../support/views.ts';

const profile = (tier: Tier): TargetProfile => ({ name: 'test', tier, limits: BASELINE_LIMITS });

function specOf(x: MatrixView, groups: number, out = view('f32', 2, x.cols)): GroupNormSpec {
  const { rows, cols } = groupNormPartialShape({ x, groups });
  return { x, groups, eps: 1e-6, out, partial: view('f32', rows, cols) };
}

describe('groupNorm', () => {
  let gpu: TestDevice;
  beforeAll(async () => {
    gpu = await openTestDevice();
  });

  interface Case {
    name: string;
    tier?: Tier;
    x: MatrixView;
    groups: number;
    /** Added to every value of a channel. */
    mean?: (channel: number) => number;
    out?: MatrixView;
    /** Loosened only with a reason beside it. */
    limit?: { nmse: number; worst: number };
  }

  async function check(c: Case): Promise<void> {
    const spec = specOf(c.x, c.groups, c.out);
    const next = gaussian(9);
    const channelOf = (i: number): number => (((i - c.x.offset) % c.x.rowStride) + c.x.rowStride) % c.x.rowStride;
    let index = 0;
    const x = filled(c.x, () => next() + (c.mean?.(channelOf(index++)) ?? 0));
    const gamma = filled(view('f32', 1, c.x.cols), next);
    const beta = filled(view('f32', 1, c.x.cols), next);
    const target = profile(c.tier ?? 'f16');
    const partialKernel = groupNormPartial(spec, target);
    expect(partialKernel.needs.workgroupBytes).toBeLessThanOrEqual(BASELINE_LIMITS.maxComputeWorkgroupStorageSize);
    const partials = await runSupported(gpu, partialKernel, [
      encode(c.x.type, x),
      groupNormParameters(spec),
      new Float32Array(spec.partial.rows * spec.partial.cols).fill(Number.NaN),
    ]);
    const before = filled(spec.out, next);
    const result = await runSupported(gpu, groupNormFinish(spec, target), [
      new Float32Array(partials.get(2)!),
      groupNormParameters(spec),
      encode('f32', gamma),
      encode('f32', beta),
      encode('f32', before),
    ]);
    const perGroup = c.x.cols / c.groups;
    const statistics = Array.from({ length: c.groups }, (_, g) => {
      const values: number[] = [];
      for (let r = 0; r < c.x.rows; r++) {
        for (let i = 0; i < perGroup; i++) values.push(valueAt(c.x, x, r, g * perGroup + i));
      }
      const mean = values.reduce((a, b) => a + b) / values.length;
      const variance = values.reduce((a, b) => a + (b - mean) ** 2, 0) / values.length;
      return { mean, rstd: 1 / Math.sqrt(variance + spec.eps) };
    });
    const want = (row: number, channel: number): number => {
      const { mean, rstd } = statistics[Math.floor(channel / perGroup)]!;
      const scale = rstd * gamma[channel]!;
      return row === 0 ? scale : beta[channel]! - mean * scale;
    };
    const got = decode('f32', result.get(4)!);
    // Sums of n f32 terms around their mean: 1e-6 relative covers n up to a million. The two rows are compared apart
    // because with a large mean the shifts would hide errors of the scales.
    for (const row of [0, 1]) {
      const at = { ...spec.out, rows: 1, offset: spec.out.offset + row * spec.out.rowStride };
      expectView(at, got, (_, channel) => want(row, channel), c.limit ?? { nmse: 1e-12, worst: 5e-6 });
    }
    expectView(spec.out, got, want, { nmse: 1, worst: 1 }, before);
  }

  const cases: Case[] = [
    { name: 'f32, 32 groups', tier: 'f32', x: view('f32', 24 * 20, 128), groups: 32 },
    { name: 'f16 input', x: view('f16', 24 * 20, 128), groups: 32 },
    { name: 'one channel a group', x: view('f32', 35, 32), groups: 32 },
    { name: 'groups of three channels', x: view('f32', 50, 12), groups: 4 },
    { name: 'odd channels, scalar loads', x: view('f16', 50, 15), groups: 5 },
    { name: 'one pixel', x: view('f32', 1, 64), groups: 8 },
    { name: 'many chunks, the last one ragged', x: view('f32', 1025 * 17, 8), groups: 2 },
    { name: 'wider than one workgroup reads', x: view('f32', 40, 2048), groups: 32 },
    {
      name: 'a rectangle, scalar loads',
      x: view('f32', 40, 24, { rowStride: 49, offset: 5 }),
      groups: 6,
      out: view('f32', 2, 24, { rowStride: 40, offset: 8 }),
    },
    {
      name: 'means of a thousand deviations',
      x: view('f32', 3000, 32),
      groups: 4,
      mean: (channel) => (channel < 16 ? 1000 : -1000),
      // One ulp of 1000 is 6e-5 of a deviation: the mean carries some of them. E[x²] − mean² would be wrong by 6 %.
      limit: { nmse: 1e-10, worst: 3e-5 },
    },
    {
      name: 'channels of one group far apart',
      x: view('f32', 500, 16),
      groups: 2,
      mean: (channel) => channel * 100,
    },
  ];
  for (const c of cases) it(c.name, () => check(c));

  it('spreads 1024² × 128 over many workgroups within the default limits', () => {
    const spec = specOf(view('f32', 2 ** 20, 128), 32);
    const kernel = groupNormPartial(spec, profile('f32'));
    expect(kernel.workgroups).toEqual([1024, 1, 1]);
    expect(kernel.bytes).toBe(2 ** 29 + 1024 * 64 * 4);
    expect(groupNormFinish(spec, profile('f32')).workgroups).toEqual([32, 1, 1]);
  });

  it('gives images of equal channels one kernel', () => {
    const texts = [16, 1024, 2 ** 18].map((pixels) => {
      const spec = specOf(view('f32', pixels, 128), 32);
      return [groupNormPartial(spec, profile('f32')).wgsl, groupNormFinish(spec, profile('f32')).wgsl];
    });
    expect(texts).toEqual([texts[0], texts[0], texts[0]]);
  });

  it('refuses groups that do not divide, and f16 in the baseline tier', () => {
    expect(() => groupNormPartial(specOf(view('f32', 4, 30), 4), profile('f32'))).toThrow(/do not divide/);
    expect(() => groupNormPartial(specOf(view('f16', 4, 32), 4), profile('f32'))).toThrow(/make these tensors f32/);
  });
});
