// Sigmas and logit-normal timesteps against the tables of both reference implementations.
import { readFileSync } from 'node:fs';
import { beforeAll, describe, expect, it } from 'vitest';
import type { Host } from '../../../sdk/src/host/module.ts';
import { loadHost } from '../../../sdk/src/host/module.ts';
import { TorchGenerator } from '../../../sdk/src/host/random.ts';
import {
  logitNormalDensity,
  logitNormalQuantile,
  logitNormalSample,
  type ScheduleOptions,
  sigmas,
} from '../../../sdk/src/host/schedule.ts';
import { floatTensor, readSafetensors } from '../../support/safetensors.ts';

const fixtures = new URL('../../fixtures/', import.meta.url);

interface BflCase {
  image_seq_len: number;
  num_steps: number;
  shift: boolean;
  base_shift: number;
  max_shift: number;
  timesteps: number[];
}

interface DiffusersCase {
  scheduler: 'dev' | 'schnell';
  image_seq_len: number;
  num_steps: number;
  mu: number;
  sigmas: number[];
}

function json<T>(name: string): T {
  return JSON.parse(readFileSync(new URL(name, fixtures), 'utf8')) as T;
}

let host: Host;
beforeAll(async () => {
  host = await loadHost();
});

describe('sigmas', () => {
  it('equals FlowMatchEulerDiscreteScheduler to the last bit', () => {
    const cases = json<DiffusersCase[]>('schedules/diffusers.json');
    expect(cases.length).toBeGreaterThan(100);
    for (const c of cases) {
      const shift = c.scheduler === 'dev' ? 'dynamic' : 'none';
      const result = sigmas(host, { steps: c.num_steps, imageTokens: c.image_seq_len, shift });
      expect([...result]).toEqual(c.sigmas);
      if (shift === 'dynamic') expect(sigmas(host, { steps: c.num_steps, shift: { mu: c.mu } })).toEqual(result);
    }
  });

  it('agrees with get_schedule within 1e-6', () => {
    const cases = json<BflCase[]>('schedules/bfl.json');
    expect(cases.length).toBeGreaterThan(100);
    for (const c of cases) {
      const result = sigmas(host, {
        steps: c.num_steps,
        imageTokens: c.image_seq_len,
        shift: c.shift ? 'dynamic' : 'none',
        baseShift: c.base_shift,
        maxShift: c.max_shift,
      });
      expect(result.length).toBe(c.timesteps.length);
      result.forEach((sigma, i) => void expect(Math.abs(sigma - c.timesteps[i]!)).toBeLessThanOrEqual(1e-6));
    }
  });

  it('shifts statically as it does dynamically with mu = ln shift', () => {
    const byFactor = sigmas(host, { steps: 30, shift: { static: 3 } });
    const byMu = sigmas(host, { steps: 30, shift: { mu: Math.log(3) } });
    byFactor.forEach((sigma, i) => void expect(sigma).toBeCloseTo(byMu[i]!, 6));
  });

  it('shifts as equation 23 says, for every factor and step count', () => {
    for (const factor of [0.1, 1, 1.15, 3, 12]) {
      for (const steps of [1, 2, 4, 28, 50, 1000]) {
        const result = sigmas(host, { steps, shift: { static: factor } });
        for (let i = 0; i < steps; i++) {
          const sigma = steps === 1 ? 1 : 1 + (i * (1 / steps - 1)) / (steps - 1);
          const exact = (factor * sigma) / (1 + (factor - 1) * sigma);
          // Four float32 operations, each half a unit in the last place: 2.4e-7 was measured.
          expect(Math.abs(result[i]! - exact)).toBeLessThanOrEqual(1e-6);
        }
      }
    }
  });

  it('takes a caller’s own sigmas, shifted or as they are', () => {
    const own = [1, 0.8, 0.3];
    expect([...sigmas(host, { sigmas: own, shift: 'none' })]).toEqual([...own.map(Math.fround), 0]);
    const shifted = sigmas(host, { sigmas: own, shift: { static: 2 } });
    own.forEach((sigma, i) => void expect(shifted[i]).toBeCloseTo((2 * sigma) / (1 + sigma), 6));
    // 4096 tokens have mu = 1.15.
    const dynamic = sigmas(host, { steps: 3, sigmas: own, imageTokens: 4096 });
    own.forEach((sigma, i) => {
      expect(dynamic[i]).toBeCloseTo(Math.exp(1.15) / (Math.exp(1.15) + 1 / sigma - 1), 6);
    });
  });

  it.each<[string, ScheduleOptions]>([
    ['no steps', { imageTokens: 4096 }],
    ['0 steps', { steps: 0, imageTokens: 4096 }],
    ['half a step', { steps: 2.5, imageTokens: 4096 }],
    ['NaN steps', { steps: NaN, imageTokens: 4096 }],
    ['a million steps', { steps: 1e6, imageTokens: 4096 }],
    ['no tokens', { steps: 4 }],
    ['NaN tokens', { steps: 4, imageTokens: NaN }],
    ['0 tokens', { steps: 4, imageTokens: 0 }],
    ['an image so large that e^mu overflows', { steps: 4, imageTokens: 2 ** 30 }],
    ['NaN mu', { steps: 4, shift: { mu: NaN } }],
    ['infinite shift', { steps: 4, shift: { static: Infinity } }],
    ['negative shift', { steps: 4, shift: { static: -1 } }],
    ['a line through one point', { steps: 4, imageTokens: 4096, baseSeqLen: 10, maxSeqLen: 10 }],
    ['NaN base shift', { steps: 4, imageTokens: 4096, baseShift: NaN }],
    ['rising sigmas', { sigmas: [0.5, 0.6], shift: 'none' }],
    ['equal sigmas', { sigmas: [0.5, 0.5], shift: 'none' }],
    ['sigmas that are equal in float32', { sigmas: [0.5, 0.5 - 1e-12], shift: 'none' }],
    ['sigmas with the final 0', { sigmas: [1, 0.5, 0], shift: 'none' }],
    ['a sigma above 1', { sigmas: [1.5], shift: 'none' }],
    ['a sigma that is 0 in float32', { sigmas: [0.5, 1e-46], shift: 'none' }],
    ['a NaN sigma', { sigmas: [NaN], shift: 'none' }],
    ['empty sigmas', { sigmas: [], shift: 'none' }],
    ['steps that disagree with sigmas', { steps: 3, sigmas: [1, 0.5], shift: 'none' }],
  ])('refuses %s', (_, options) => {
    expect(() => sigmas(host, options)).toThrow(expect.objectContaining({ code: 'invalid-request' }));
    expect([...sigmas(host, { steps: 1, shift: 'none' })]).toEqual([1, 0]);
  });
});

describe('logit-normal distribution', () => {
  // The pairs of the fixture's meta data: (mean, std).
  const pairs = [
    [0, 1],
    [0.5, 1],
    [-0.5, 0.7],
    [1.15, 1],
    [0, 1.5],
  ] as const;
  const tables = readSafetensors(new URL('training-math/logit_normal.safetensors', fixtures));
  const table = (name: string) => tables.get(name)!.data as Float64Array;
  const relative = (a: number, b: number) => (a === b ? 0 : Math.abs(a - b) / Math.max(Math.abs(b), 1e-300));

  it.each(pairs.map((pair, i) => [i, ...pair] as const))('tables of pair %i (mean %f, std %f)', (i, mean, std) => {
    table('t').forEach((t, k) => {
      expect(relative(logitNormalDensity(host, t, { mean, std }), table(`${i}.density`)[k]!)).toBeLessThan(1e-12);
    });
    table('q').forEach((q, k) => {
      expect(relative(logitNormalQuantile(host, q, { mean, std }), table(`${i}.quantile`)[k]!)).toBeLessThan(1e-12);
      // A shift by s moves the logit by ln s (Esser et al. 2024, equation 23).
      const shifted = logitNormalQuantile(host, q, { mean: mean + Math.log(2 + i), std });
      expect(relative(shifted, table(`${i}.quantile_time_shifted`)[k]!)).toBeLessThan(1e-12);
    });
    table(`${i}.cdf`).forEach((q, k) => {
      // The share is rounded to 2^-53, which the quantile magnifies by 1 / density.
      const tolerance = 1e-13 + 2 ** -53 / table(`${i}.density`)[k]!;
      expect(Math.abs(logitNormalQuantile(host, q, { mean, std }) - table('t')[k]!)).toBeLessThanOrEqual(tolerance);
    });
    const generator = TorchGenerator.create(host, 1234 + i);
    const samples = logitNormalSample(host, generator, 40, { mean, std });
    generator.dispose();
    const expected = floatTensor(tables, `${i}.samples_seeded`);
    samples.forEach((sample, k) => void expect(Math.abs(sample - expected[k]!)).toBeLessThanOrEqual(1e-6));
  });

  it('reaches into the far tails', () => {
    expect(logitNormalQuantile(host, 0)).toBe(0);
    expect(logitNormalQuantile(host, 1)).toBe(1);
    // Normal quantiles of 1e-20 and 1e-100 from tables of the distribution.
    for (const [q, z] of [
      [1e-20, -9.26234008979841],
      [1e-100, -21.27345356096586],
    ] as const) {
      const t = logitNormalQuantile(host, q);
      expect(Math.log(t) - Math.log1p(-t)).toBeCloseTo(z, 9);
    }
    expect(logitNormalDensity(host, 0)).toBe(0);
    expect(logitNormalDensity(host, -3)).toBe(0);
    expect(logitNormalDensity(host, 1)).toBe(0);
    expect(logitNormalDensity(host, 5e-324)).toBe(0);
  });

  it('refuses what is no distribution', () => {
    const refused = expect.objectContaining({ code: 'invalid-request' });
    for (const std of [0, -1, NaN, Infinity]) {
      expect(() => logitNormalDensity(host, 0.5, { std })).toThrow(refused);
      expect(() => logitNormalQuantile(host, 0.5, { std })).toThrow(refused);
    }
    expect(() => logitNormalDensity(host, NaN)).toThrow(refused);
    expect(() => logitNormalDensity(host, 0.5, { mean: Infinity })).toThrow(refused);
    for (const q of [-0.1, 1.1, NaN]) expect(() => logitNormalQuantile(host, q)).toThrow(refused);
    const generator = TorchGenerator.create(host, 0);
    expect(() => logitNormalSample(host, generator, -1)).toThrow(refused);
    generator.dispose();
    expect(() => logitNormalSample(host, generator, 1)).toThrow(expect.objectContaining({ code: 'closed' }));
  });
});

it('does not grow the memory over 100,000 calls', () => {
  sigmas(host, { steps: 1000, imageTokens: 4096 });
  const before = host.exports.memory.buffer.byteLength;
  for (let i = 0; i < 100_000; i++) sigmas(host, { steps: 28, imageTokens: 4096 });
  expect(host.exports.memory.buffer.byteLength).toBe(before);
});
