// Tiled attention against a float64 oracle: tier × shape × mask, up to score ranges that break a fixed maximum.
// The baseline tier is held to WebGPU's default limits, so it proves what any conforming device can run.
import { beforeAll, describe, expect, it } from 'vitest';
import { type AttentionSpec, attention } from '../../kernels-codegen/src/kernels/attention/index.ts';
import { chooseTiled } from '../../kernels-codegen/src/kernels/attention/tiled.ts';
import { BASELINE_LIMITS, type TargetProfile } from '../../kernels-codegen/src/targets/types.ts';
import { openTestDevice, type TestDevice } from '../support/gpu.ts';
import { view } from '../support/views.ts';
import { type AttentionCase, checkAttention } from './attention-oracle.ts';

const baseline: TargetProfile = { name: 'baseline', tier: 'f32', limits: BASELINE_LIMITS };
const half: TargetProfile = { name: 'half', tier: 'f16', limits: BASELINE_LIMITS };
/** The tiled kernel as a GPU gets it, but with loops that a CPU's driver cannot unroll: it would compile for seconds. */
const tiled = (gpu: TestDevice, target: TargetProfile, c: AttentionCase): Promise<void> =>
  checkAttention(gpu, { ...target, software: true }, { ...c, schedule: chooseTiled(specOf(c), target) });
const roomy = { ...BASELINE_LIMITS, maxComputeWorkgroupStorageSize: 32768 };

const shapes: Record<string, Omit<AttentionCase, 'type'>> = {
  'aligned, head 128': { heads: 2, size: 128, queries: 64, keys: 64 },
  'ragged, head 64': { heads: 3, size: 64, queries: 77, keys: 77 },
  'several key tiles, head 32': { heads: 2, size: 32, queries: 160, keys: 160 },
  'one query, one key': { heads: 2, size: 16, queries: 1, keys: 1 },
  'fewer queries than keys, head 8': { heads: 4, size: 8, queries: 9, keys: 24 },
  'head 10, no multiple of four': { heads: 3, size: 10, queries: 27, keys: 27 },
  'head 20, columns that do not fill the threads': { heads: 2, size: 20, queries: 24, keys: 40 },
  'one fused buffer': { heads: 2, size: 32, queries: 40, keys: 40, fused: { offset: 8 } },
  'one fused buffer at an odd offset': { heads: 2, size: 32, queries: 24, keys: 24, fused: { offset: 3 } },
  causal: { heads: 2, size: 64, queries: 77, keys: 77, causal: true },
  'bias by distance': { heads: 4, size: 64, queries: 70, keys: 70, bias: true },
  'keys masked by length': { heads: 2, size: 32, queries: 48, keys: 96, validKeys: 41 },
  'causal and masked by length': { heads: 2, size: 32, queries: 48, keys: 48, causal: true, validKeys: 5 },
  'scores to ±200': { heads: 2, size: 32, queries: 40, keys: 130, spread: 50 },
  'one wide head of 512': { heads: 1, size: 512, queries: 40, keys: 70 },
  'one wide head of 256': { heads: 1, size: 256, queries: 33, keys: 33 },
};

// A software driver compiles each kernel for about a CPU second: minutes on a machine that is busy with other work.
describe('attention', { timeout: 300_000 }, () => {
  let gpu: TestDevice;
  beforeAll(async () => {
    gpu = await openTestDevice();
  });

  for (const [name, shape] of Object.entries(shapes)) {
    it(`direct f32: ${name}`, () => checkAttention(gpu, { ...baseline, software: true }, { ...shape, type: 'f32' }));
  }
  // One subgroup a workgroup, of the size that lavapipe has: keys and values are handed round.
  const lanes: TargetProfile = { ...baseline, software: true, subgroupSize: { min: 8, max: 8 } };
  for (const [name, shape] of Object.entries(shapes)) {
    it(`direct f32, handed round: ${name}`, () => checkAttention(gpu, lanes, { ...shape, type: 'f32' }));
  }
  it.each([
    [4, 8],
    [2, 16],
  ])('direct f32, handed round: %i queries a thread, %i keys', (queries, keys) => {
    const schedule = { variant: 'direct', threads: 8, queries, keys, broadcast: true } as const;
    return checkAttention(gpu, lanes, { ...shapes.causal!, type: 'f32', schedule });
  });
  // Little work gets two queries and keys a thread, as above; more of it four.
  it('direct f32: four queries a thread', () => {
    const schedule = { variant: 'direct', threads: 8, queries: 4, keys: 4 } as const;
    return checkAttention(gpu, { ...baseline, software: true }, { ...shapes.causal!, type: 'f32', schedule });
  });
  for (const [name, shape] of Object.entries(shapes)) {
    it(`f32: ${name}`, () => tiled(gpu, baseline, { ...shape, type: 'f32' }));
  }
  it('f32: loops of known length, as on a GPU', () =>
    checkAttention(gpu, baseline, { ...shapes['fewer queries than keys, head 8']!, type: 'f32' }));
  it('direct f16: one fused buffer', (test) => {
    if (!gpu.adapter.features.has('shader-f16')) return test.skip('the adapter has no shader-f16');
    return checkAttention(gpu, { ...half, software: true }, { ...shapes['one fused buffer']!, type: 'f16' });
  });
  it('direct f16, handed round: one fused buffer', (test) => {
    if (!gpu.adapter.features.has('shader-f16')) return test.skip('the adapter has no shader-f16');
    const target: TargetProfile = { ...lanes, tier: 'subgroups' };
    return checkAttention(gpu, target, { ...shapes['one fused buffer']!, type: 'f16' });
  });
  // Masks and ragged rows are the same text as in f32; loads, staging and stores of each alignment are not.
  for (const name of [
    'aligned, head 128',
    'head 10, no multiple of four',
    'one fused buffer',
    'one fused buffer at an odd offset',
    'bias by distance',
    'scores to ±200',
    'one wide head of 512',
  ]) {
    const shape = shapes[name]!;
    it(`f16: ${name}`, (test) => {
      if (!gpu.adapter.features.has('shader-f16')) return test.skip('the adapter has no shader-f16');
      return tiled(gpu, half, { ...shape, type: 'f16' });
    });
  }
  it('f16 widened when it is staged', (test) => {
    if (!gpu.adapter.features.has('shader-f16')) return test.skip('the adapter has no shader-f16');
    return tiled(gpu, { ...half, wideTiles: true }, { ...shapes['one fused buffer']!, type: 'f16' });
  });
  it('f32 activations on an f16 target', () => tiled(gpu, half, { ...shapes['ragged, head 64']!, type: 'f32' }));
  it('queries kept in a large workgroup memory', () => {
    const target: TargetProfile = { ...baseline, limits: roomy };
    const shape = { ...shapes['several key tiles, head 32']!, type: 'f32' } as const;
    expect(chooseTiled(specOf(shape), target).keepQueries).toBe(true);
    return tiled(gpu, target, shape);
  });

  describe('subgroups', () => {
    for (const name of ['aligned, head 128', 'ragged, head 64', 'head 10, no multiple of four', 'scores to ±200']) {
      it(name, (test) => {
        const { subgroupMinSize: min = 0, subgroupMaxSize: max = 0 } = gpu.adapter.info;
        if (!gpu.adapter.features.has('subgroups') || !gpu.adapter.features.has('shader-f16')) {
          return test.skip('the adapter lacks subgroups or shader-f16');
        }
        const target: TargetProfile = { name: 'sg', tier: 'subgroups', limits: roomy, subgroupSize: { min, max } };
        const shape = { ...shapes[name]!, type: 'f16' } as const;
        expect(chooseTiled(specOf(shape), target).exchange).toBe('subgroup');
        return tiled(gpu, target, shape);
      });
    }
  });

  it('fits the baseline for every head size', () => {
    for (let size = 2; size <= 512; size += 2) {
      const spec = specOf({ heads: 1, size, queries: 300, keys: 300, type: 'f32' });
      const kernel = attention(spec, baseline);
      expect(kernel.needs.workgroupBytes).toBeLessThanOrEqual(16384);
      expect(kernel.needs.invocations).toBeLessThanOrEqual(256);
    }
  });

  it('counts masked work as not done', () => {
    const full = specOf({ heads: 2, size: 32, queries: 100, keys: 100, type: 'f32' });
    expect(attention(full, baseline).flops).toBe(4 * 100 * 100 * 64);
    expect(attention({ ...full, causal: true }, baseline).flops).toBe(4 * 5050 * 64);
    expect(attention({ ...full, validKeys: 10 }, baseline).flops).toBe(4 * 1000 * 64);
  });

  it('refuses shapes and schedules that do not fit', () => {
    const spec = specOf({ heads: 2, size: 32, queries: 8, keys: 8, type: 'f32' });
    expect(() => attention({ ...spec, size: 16 }, baseline)).toThrow(/not 2 heads × 16/);
    expect(() => attention({ ...spec, validKeys: 9 }, baseline)).toThrow(/validKeys/);
    const schedule = chooseTiled(spec, baseline);
    expect(() => attention(spec, baseline, { ...schedule, keys: 64 })).toThrow(/workgroup memory/);
    expect(() => attention({ ...spec, q: view('f16', 8, 64) }, baseline)).toThrow(/f16/);
  });
});

function specOf(c: AttentionCase): AttentionSpec {
  const m = (rows: number) => view(c.type, rows, c.heads * c.size);
  return {
    heads: c.heads,
    size: c.size,
    q: m(c.queries),
    k: m(c.keys),
    v: m(c.keys),
    out: m(c.queries),
    scale: 1,
    causal: false,
  };
}
