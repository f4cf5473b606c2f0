// Attention on subgroup matrices against the float64 oracle, and the choice of when to use them.
// Needs an adapter with the experimental feature: Mesa's lavapipe from 26.2 has it on any CPU.
import { beforeAll, describe, expect, it } from 'vitest';
import {
  type AttentionSchedule,
  type AttentionSpec,
  attention,
  chooseAttentionSchedule,
} from '../../kernels-codegen/src/kernels/attention/index.ts';
import type { MatrixAttention } from '../../kernels-codegen/src/kernels/attention/matrix-layout.ts';
import { BASELINE_LIMITS, type TargetProfile } from '../../kernels-codegen/src/targets/types.ts';
import { reportAdapter } from '../../runtime/src/gpu/report.ts';
import type { SubgroupMatrixConfig } from '../../runtime/src/program/types.ts';
import { openTestDevice, runKernel, type TestDevice } from '../support/gpu.ts';
import { decode, encode, gaussian, view } from '../support/views.ts';
import { type AttentionCase, checkAttention } from './attention-oracle.ts';

const FEATURE = 'chromium-experimental-subgroup-matrix';

const shapes: Record<string, Omit<AttentionCase, 'type'>> = {
  'aligned, head 32': { heads: 2, size: 32, queries: 64, keys: 64 },
  'ragged, head 48': { heads: 2, size: 48, queries: 77, keys: 77 },
  // Two tiles of keys: as many as the first turn looks at, which must not take the second for another first.
  'head 10, filled up to whole matrices': { heads: 3, size: 10, queries: 27, keys: 27 },
  'head 24, an odd number of matrices': { heads: 1, size: 24, queries: 16, keys: 40 },
  'one fused buffer at an odd offset': { heads: 2, size: 32, queries: 40, keys: 40, fused: { offset: 3 } },
  causal: { heads: 2, size: 32, queries: 77, keys: 77, causal: true },
  'bias by distance': { heads: 2, size: 32, queries: 70, keys: 70, bias: true },
  'bias, causal': { heads: 3, size: 32, queries: 45, keys: 45, bias: true, causal: true },
  'bias, keys masked by length': { heads: 2, size: 32, queries: 50, keys: 50, bias: true, validKeys: 23 },
  'bias, all keys once more': { heads: 2, size: 32, queries: 72, keys: 72, bias: true, spread: 50 },
  'keys masked by length': { heads: 1, size: 32, queries: 48, keys: 96, validKeys: 41 },
  // The tiles that set the reference see far smaller scores than there are: weights beyond f16, and all keys once more.
  'scores to ±200': { heads: 2, size: 32, queries: 40, keys: 200, spread: 50 },
  // Beyond f32 too: a weight of 2¹²⁸ is infinite until the reference is right.
  'scores to ±2000': { heads: 1, size: 32, queries: 40, keys: 200, spread: 500 },
};

describe('attention on subgroup matrices', { timeout: 300_000 }, () => {
  let gpu: TestDevice;
  let target: TargetProfile;
  let why = '';
  beforeAll(async () => {
    gpu = await openTestDevice();
    const { subgroupSize, subgroupMatrixConfigs: subgroupMatrix, features } = reportAdapter(gpu.adapter);
    if (!features.includes(FEATURE)) {
      if (process.env.KONTEXT_REQUIRE_MATRIX) throw new Error(`this run requires ${FEATURE}`);
      why = `the adapter has no ${FEATURE}`;
      console.log(`attention-matrix: skipped, ${why}`);
      return;
    }
    target = { name: 'adapter', tier: 'subgroup-matrix', limits: BASELINE_LIMITS, subgroupSize, subgroupMatrix };
  });

  // Every product of a tile is spelled out in the text, and a CPU driver takes tens of seconds for the tiles of a GPU.
  const small = (blocks: number, subgroups = 2): AttentionSchedule => {
    const config = target.subgroupMatrix?.find((x) => x.componentType === 'f16' && x.resultType === 'f32');
    if (!config) throw new Error('the adapter has no f16 matrices with f32 results');
    return { variant: 'matrix', config, subgroups, blocks, tileK: 16 };
  };
  for (const [name, shape] of Object.entries(shapes)) {
    it(name, (test) => {
      if (why) return test.skip(why);
      return checkAttention(gpu, { ...target, software: true }, { ...shape, type: 'f16', schedule: small(1) });
    });
  }
  it('eight subgroups, whose threads take two keys of V each', (test) => {
    if (why) return test.skip(why);
    const c: AttentionCase = { ...shapes['ragged, head 48']!, type: 'f16', schedule: small(1, 8) };
    return checkAttention(gpu, { ...target, software: true }, c);
  });
  // As heads beyond 128 are computed, with narrow ones: matrices by the hundred take a CPU's driver minutes.
  it.each([
    ['head 48, filled up, in four slices', { size: 48, queries: 27, keys: 43 }, 4, 4, 16],
    ['two teams of four slices, threads without scores', { size: 32, queries: 40, keys: 40 }, 8, 4, 8],
    ['four slices with a bias', { size: 32, queries: 37, keys: 37, bias: true }, 8, 4, 16],
    ['two slices, causal, scores to ±200', { size: 32, queries: 40, keys: 40, causal: true, spread: 50 }, 4, 2, 16],
  ] as const)('%s', (_, shape, subgroups, slices, tileK) => {
    if (why) return;
    const schedule = { ...(small(1, subgroups) as MatrixAttention), slices, tileK };
    return checkAttention(gpu, { ...target, software: true }, { heads: 2, ...shape, type: 'f16', schedule });
  });
  // Scores as K·Qᵀ, as AMD gets them.
  it.each([
    ['ragged, head 48', 2, {}, true],
    ['bias by distance', 2, {}, true],
    ['causal', 8, {}, true],
    ['scores to ±200', 2, {}, true],
    ['ragged, head 48', 4, { slices: 4 }, true],
    ['aligned, head 32', 8, {}, undefined],
  ] as const)('turned: %s, %i subgroups %o', (name, subgroups, o, software) => {
    if (why) return;
    const schedule = { ...(small(1, subgroups) as MatrixAttention), ...o, turned: true as const };
    return checkAttention(
      gpu,
      { ...target, ...(software ? { software } : {}) },
      { ...shapes[name]!, type: 'f16', schedule },
    );
  });
  it('a bias without the loops of a CPU, in more threads than it has values', (test) => {
    if (why) return test.skip(why);
    const schedule = { ...(small(1, 4) as MatrixAttention), slices: 4 };
    return checkAttention(gpu, target, { ...shapes['bias, causal']!, type: 'f16', schedule });
  });
  // With V of ones every output is the sum of a row's weights over itself: 1, and no number at all in a row whose weights vanished.
  it.each([
    ['the last key above all', (j: number) => (j === 99 ? 60 : 1 / 16)],
    ['the first key above all', (j: number) => (j === 0 ? 60 : 1 / 16)],
    ['each key above those before it', (j: number) => 2 ** (j / 10 - 4)],
  ] as const)('no row underflows, whatever its norm: %s', async (_, norm) => {
    if (why) return;
    const [size, queries, keys] = [32, 48, 100];
    const spec: AttentionSpec = {
      heads: 1,
      size,
      q: view('f16', queries, size),
      k: view('f16', keys, size),
      v: view('f16', keys, size),
      out: view('f16', queries, size),
      scale: 1 / Math.sqrt(size),
      causal: false,
    };
    const next = gaussian(7);
    // Norms from a thousandth to ten thousand: scores from nothing to millions.
    const q = Float64Array.from({ length: queries * size }, (_, i) => next() * 2 ** (Math.floor(i / size) % 24) * 1e-3);
    const k = Float64Array.from({ length: keys * size }, (_, i) => next() * norm(Math.floor(i / size)));
    const kernel = attention(spec, { ...target, software: true }, small(1));
    const ones = new Float64Array(keys * size).fill(1);
    const buffers = [q, k, ones, new Float64Array(queries * size)].map((data) => encode('f16', data));
    const out = decode('f16', (await runKernel(gpu, kernel, buffers)).get(3)!);
    const underflowing = Array.from({ length: queries }, (_, row) => row).filter((row) =>
      out.subarray(row * size, (row + 1) * size).some((value) => !(Math.abs(value - 1) < 2 ** -9)),
    );
    expect(underflowing).toEqual([]);
  });
  it('slices without the loops of a CPU', (test) => {
    if (why) return test.skip(why);
    const schedule = { ...(small(1, 4) as MatrixAttention), slices: 4 };
    return checkAttention(gpu, target, { heads: 2, size: 64, queries: 40, keys: 40, type: 'f16', schedule });
  });
  it('the chosen schedule', (test) => {
    if (why) return test.skip(why);
    const c: AttentionCase = { heads: 1, size: 16, queries: 70, keys: 100, type: 'f16' };
    expect(chooseAttentionSchedule(specOf(c), target).variant).toBe('matrix');
    return checkAttention(gpu, target, c);
  });
  it('two blocks of queries a subgroup', (test) => {
    if (why) return test.skip(why);
    const c: AttentionCase = { ...shapes['ragged, head 48']!, type: 'f16' };
    const { config } = small(2) as MatrixAttention;
    if (target.subgroupSize!.max < 2 * config.m) {
      // Too few lanes for a second block: then the refusal is what there is to test.
      expect(() => attention(specOf(c), target, small(2))).toThrow(/share/);
      return;
    }
    return checkAttention(gpu, target, { ...c, schedule: small(2) });
  });

  describe('choice', () => {
    const matrix = (size: number, componentType: 'f16' | 'f32', resultType: 'f16' | 'f32') =>
      ({ m: size, n: size, k: size, componentType, resultType }) satisfies SubgroupMatrixConfig;
    const profile = (...subgroupMatrix: SubgroupMatrixConfig[]): TargetProfile => ({
      name: 'made up',
      tier: 'subgroup-matrix',
      limits: { ...BASELINE_LIMITS, maxComputeWorkgroupStorageSize: 32768 },
      subgroupSize: { min: 32, max: 32 },
      subgroupMatrix,
    });
    const spec = specOf({ heads: 2, size: 128, queries: 512, keys: 512, type: 'f16' });
    const variant = (s: AttentionSpec, t: TargetProfile) => chooseAttentionSchedule(s, t).variant;

    it('takes f16 operands only with f32 results', () => {
      expect(variant(spec, profile(matrix(16, 'f16', 'f32')))).toBe('matrix');
      expect(variant(spec, profile(matrix(8, 'f16', 'f16')))).toBe('tiled');
      expect(variant(spec, profile(matrix(8, 'f16', 'f16'), matrix(8, 'f32', 'f32')))).toBe('matrix');
    });
    it('leaves f32 inputs, very wide heads and single rows to the tiled kernel', () => {
      const t = profile(matrix(16, 'f16', 'f32'));
      expect(variant(specOf({ heads: 2, size: 128, queries: 512, keys: 512, type: 'f32' }), t)).toBe('tiled');
      expect(variant(specOf({ heads: 1, size: 640, queries: 512, keys: 512, type: 'f16' }), t)).toBe('tiled');
      expect(variant(specOf({ heads: 2, size: 128, queries: 1, keys: 512, type: 'f16' }), t)).toBe('tiled');
    });
    it('slices heads of 512 where the memory for their tiles is there', () => {
      const t = profile(matrix(16, 'f16', 'f32'));
      const wide = specOf({ heads: 1, size: 512, queries: 512, keys: 512, type: 'f16' });
      expect(variant(wide, t)).toBe('tiled');
      const roomy = { ...t, limits: { ...t.limits, maxComputeWorkgroupStorageSize: 49152 } };
      expect(chooseAttentionSchedule(wide, roomy)).toMatchObject({ variant: 'matrix', slices: 4 });
    });
    it('turns scores where a subgroup size is asked for and matrices are square', () => {
      const t = profile(matrix(16, 'f16', 'f32'));
      expect(chooseAttentionSchedule(spec, t)).not.toHaveProperty('turned');
      expect(chooseAttentionSchedule(spec, { ...t, fixedSubgroupSize: true })).toHaveProperty('turned', true);
      const oblong = { ...matrix(16, 'f16', 'f32'), m: 8 };
      const intel: TargetProfile = { ...profile(oblong), fixedSubgroupSize: true };
      const chosen = chooseAttentionSchedule(spec, intel) as MatrixAttention;
      expect(chosen).not.toHaveProperty('turned');
      expect(() => attention(spec, intel, { ...chosen, turned: true })).toThrow(/turned/);
    });
    it('states the matrix and the features it needs', () => {
      const kernel = attention(spec, profile(matrix(16, 'f16', 'f32')));
      expect(kernel.needs.subgroupMatrix).toEqual(matrix(16, 'f16', 'f32'));
      expect(kernel.needs.features).toContain(FEATURE);
      expect(kernel.needs.workgroupBytes).toBeLessThanOrEqual(32768);
    });
  });
});

function specOf(c: AttentionCase): AttentionSpec {
  const m = (rows: number) => view(c.type, rows, c.heads * c.size);
  const [q, kv] = [m(c.queries), m(c.keys)];
  return { heads: c.heads, size: c.size, q, k: kv, v: kv, out: q, scale: 1, causal: false };
}
