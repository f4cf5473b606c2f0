// Noise against torch.randn, bit for bit, including what one call leaves behind for the next.
import { beforeAll, describe, expect, it } from 'vitest';
import type { Host } from '../../../sdk/src/host/module.ts';
import { loadHost } from '../../../sdk/src/host/module.ts';
import { TorchGenerator } from '../../../sdk/src/host/random.ts';
import { plainRandn } from '../../support/plain-noise.ts';
import { floatTensor, readSafetensors } from '../../support/safetensors.ts';

const tensors = readSafetensors(new URL('../../fixtures/rng/io.safetensors', import.meta.url));
const refused = expect.objectContaining({ code: 'invalid-request' });

let host: Host;
beforeAll(async () => {
  host = await loadHost();
});

function randn(seed: bigint | number, shape: number[], dtype?: 'float32' | 'bfloat16'): Float32Array {
  const generator = TorchGenerator.create(host, seed);
  const values = generator.randn(shape, dtype);
  generator.dispose();
  return values;
}

/** Bits, so that −0 and 0 differ. */
function bits(values: Float32Array): Uint32Array {
  return new Uint32Array(values.buffer, values.byteOffset, values.length);
}

describe('TorchGenerator', () => {
  const cases = [...tensors.keys()].flatMap((name) => {
    const match =
      /^randn\.(f32|bf16)\.seed(\d+)\.n\d+$/.exec(name) ??
      /^flux\.(?:bfl_get_noise|diffusers_noise)\.(f32|bf16)\.seed(\d+)/.exec(name);
    return match ? [[name, match[1] === 'bf16' ? 'bfloat16' : 'float32', BigInt(match[2]!)] as const] : [];
  });

  it('has the fixture’s draws to compare', () => {
    expect(cases.length).toBeGreaterThan(70);
  });

  it.each(cases)('%s', (name, dtype, seed) => {
    const { shape } = tensors.get(name)!;
    expect(bits(randn(seed, shape, dtype))).toEqual(bits(floatTensor(tensors, name)));
  });

  it('carries its state from call to call', () => {
    const generator = TorchGenerator.create(host, 42);
    const names = [...tensors.keys()].filter((name) => name.startsWith('sequence.seed42.')).sort();
    expect(names.length).toBe(6);
    for (const name of names) {
      expect(bits(generator.randn(tensors.get(name)!.shape))).toEqual(bits(floatTensor(tensors, name)));
    }
    generator.dispose();
  });

  it('draws a batch from a list of generators as diffusers does', () => {
    // The fixture's generators have the seeds 0, 1 and 42, 43: one picture each.
    for (const [name, seed] of [
      ['flux.diffusers_noise_generator_list.f32.seed0.64x96.batch2', 0],
      ['flux.diffusers_noise_generator_list.f32.seed42.128x80.batch2', 42],
    ] as const) {
      const [, ...shape] = tensors.get(name)!.shape;
      const expected = floatTensor(tensors, name);
      const half = expected.length / 2;
      expect(bits(randn(seed, shape))).toEqual(bits(expected.slice(0, half)));
      expect(bits(randn(seed + 1, shape))).toEqual(bits(expected.slice(half)));
    }
  });

  it('keeps generators apart', () => {
    const first = TorchGenerator.create(host, 1);
    const second = TorchGenerator.create(host, 0);
    const a = [...first.randn([7]), ...second.randn([33]), ...first.randn([5])];
    first.dispose();
    second.dispose();
    const alone = TorchGenerator.create(host, 1);
    expect(a.slice(0, 7)).toEqual([...alone.randn([7])]);
    expect(a.slice(7, 40)).toEqual([...floatTensor(tensors, 'randn.f32.seed0.n33')]);
    expect(a.slice(40)).toEqual([...alone.randn([5])]);
    alone.dispose();
  });

  it('seeds with the low 32 bits, negative seeds from 2^64 down', () => {
    const reference = randn(7, [16]);
    expect(randn(2n ** 32n + 7n, [16])).toEqual(reference);
    expect(randn(2n ** 64n - 2n ** 32n + 7n, [16])).toEqual(reference);
    expect(randn(-1, [16])).toEqual(randn(2n ** 64n - 1n, [16]));
    expect(randn(-(2n ** 63n), [16])).toEqual(randn(0, [16]));
    expect(randn(8, [16])).not.toEqual(reference);
  });

  it('has mean, deviation and no outliers of a normal distribution', () => {
    const values = randn(3, [16, 128, 128]);
    const mean = values.reduce((sum, value) => sum + value, 0) / values.length;
    const variance = values.reduce((sum, value) => sum + value * value, 0) / values.length;
    // Four standard errors of 262,144 draws; 24-bit uniforms cannot exceed sqrt(2 ln 2^24) = 5.77.
    expect(Math.abs(mean)).toBeLessThan(4 / 512);
    expect(Math.abs(variance - 1)).toBeLessThan((4 * Math.SQRT2) / 512);
    expect(values.reduce((most, value) => Math.max(most, Math.abs(value)), 0)).toBeLessThan(5.78);
  });

  it('agrees with plain TypeScript over a million values', () => {
    for (let seed = 0; seed < 4; seed++) {
      const expected = bits(plainRandn(seed, 2 ** 18));
      expect(bits(randn(seed, [2 ** 18])).findIndex((word, i) => word !== expected[i])).toBe(-1);
    }
  });

  it('moves and scales like torch.normal', () => {
    const generator = TorchGenerator.create(host, 0);
    const moved = generator.normal([257], { mean: 3, std: 0.5 });
    const plain = floatTensor(tensors, 'randn.f32.seed0.n257');
    moved.forEach((value, i) => void expect(value).toBe(Math.fround(plain[i]! * 0.5 + 3)));
    const constant = generator.normal([20], { mean: 2, std: 0 });
    expect([...constant]).toEqual(Array(20).fill(2));
    generator.dispose();
  });

  it('draws nothing for an empty shape and one value for a scalar', () => {
    const generator = TorchGenerator.create(host, 0);
    expect(generator.randn([4, 0]).length).toBe(0);
    expect([...generator.randn([])]).toEqual([...floatTensor(tensors, 'randn.f32.seed0.n1')]);
    generator.dispose();
  });

  it('refuses bad seeds and shapes and stays usable', () => {
    for (const seed of [NaN, 0.5, Infinity, 2 ** 53, -(2 ** 53), 2n ** 64n, -(2n ** 63n) - 1n]) {
      expect(() => TorchGenerator.create(host, seed)).toThrow(refused);
    }
    for (const seed of ['7', null, undefined, {}, true]) {
      expect(() => TorchGenerator.create(host, seed as unknown as number)).toThrow(refused);
    }
    const generator = TorchGenerator.create(host, 0);
    for (const shape of [[-1], [1.5], [NaN], [Infinity], [2 ** 20, 2 ** 20]]) {
      expect(() => generator.randn(shape)).toThrow(refused);
    }
    for (const options of [{ mean: NaN }, { std: -1 }, { std: Infinity }, { dtype: 'float16' as 'float32' }]) {
      expect(() => generator.normal([4], options)).toThrow(refused);
    }
    expect(generator.randn([16])).toEqual(floatTensor(tensors, 'randn.f32.seed0.n16'));
    generator.dispose();
    generator.dispose();
    expect(() => generator.randn([1])).toThrow(expect.objectContaining({ code: 'closed' }));
  });

  it('does not grow the memory over 100,000 generators', () => {
    randn(0, [64]);
    const before = host.exports.memory.buffer.byteLength;
    for (let i = 0; i < 100_000; i++) randn(i, [20]);
    expect(host.exports.memory.buffer.byteLength).toBe(before);
  });
});
