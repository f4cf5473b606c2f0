// Embeddings, rotary tables and packing against the reference's tensors: a wrong digit here moves every picture.
import { describe, expect, it } from 'vitest';
import { sinusoids, toBfloat16 } from '../../../sdk/src/kontext/conditioning.ts';
import { pack, unpack } from '../../../sdk/src/kontext/latents.ts';
import { ropeTable } from '../../../sdk/src/kontext/rope.ts';
import { floatTensor, readSafetensors } from '../../support/safetensors.ts';

const fixture = (name: string) =>
  readSafetensors(new URL(`../../fixtures/${name}/io.safetensors`, import.meta.url).pathname);

function maxDifference(a: ArrayLike<number>, b: ArrayLike<number>): number {
  expect(a.length).toBe(b.length);
  let worst = 0;
  for (let i = 0; i < a.length; i++) worst = Math.max(worst, Math.abs(a[i]! - b[i]!));
  return worst;
}

describe('sinusoids', () => {
  const io = fixture('timestep-embedding');

  it('equals the float64 reference', () => {
    const t = floatTensor(io, 't');
    // Half a unit in the last place of the stored float32.
    expect(maxDifference(sinusoids(t, 'exact'), floatTensor(io, 'embedding_256_exact'))).toBeLessThan(1e-7);
  });

  it('rounds as a bfloat16 pipeline does', () => {
    const t = floatTensor(io, 't');
    expect([...t].map(toBfloat16)).toEqual([...floatTensor(io, 't_bf16')]);
    const [ours, theirs] = [sinusoids(t, 'bfloat16'), floatTensor(io, 'embedding_256_from_bf16')];
    // The reference's float32 angles of up to 30,000 are off by 1e-3, which can tip the rounding to 8 bits.
    expect(maxDifference(ours, theirs)).toBeLessThan(2 ** -8 + 2e-3);
    const equal = ours.filter((value, i) => value === theirs[i]).length;
    expect(equal / ours.length).toBeGreaterThan(0.97);
  });

  it('turns guidance 2.5 into 2496', () => {
    expect(toBfloat16(1000 * toBfloat16(2.5))).toBe(2496);
    expect(sinusoids([2.5], 'bfloat16')[1]).not.toBeCloseTo(sinusoids([2.5], 'exact')[1]!, 2);
  });
});

describe('ropeTable', () => {
  const io = fixture('rope');

  it.each([
    ['real', [16, 56, 56], 10000],
    ['tiny', [8, 12, 12], 10000],
    ['theta', [8, 12, 12], 2000],
  ] as const)('has the angles of the reference for %s axes', (set, axes, theta) => {
    const ids = floatTensor(io, `${set}.ids`);
    const [cos, sin] = [floatTensor(io, `${set}.exact_cos`), floatTensor(io, `${set}.exact_sin`)];
    const half = axes.reduce((a, b) => a + b, 0) / 2;
    let compared = 0;
    for (let row = 0; row * 3 < ids.length; row++) {
      const [index, y, x] = [...ids.subarray(3 * row, 3 * row + 3)] as [number, number, number];
      if (!Number.isInteger(index) || index > 4 || (x + 1) * (y + 1) > 10_000) continue;
      // A picture just large enough to hold this position, as the target or as reference number index.
      const size = { width: x + 1, height: y + 1 };
      const one = { width: 1, height: 1 };
      const images = Array.from({ length: index }, () => one);
      const table = ropeTable(axes, theta, 0, index === 0 ? size : one, index === 0 ? [] : [...images.slice(1), size]);
      const last = table.subarray(table.length - 2 * half);
      const at = (table: Float32Array) => table.subarray(row * half, (row + 1) * half);
      const of = (part: number) => last.filter((_, i) => i % 2 === part);
      expect(maxDifference(of(0), at(cos))).toBeLessThan(1e-7);
      expect(maxDifference(of(1), at(sin))).toBeLessThan(1e-7);
      compared++;
    }
    expect(compared).toBeGreaterThan(5);
  });

  it('puts text first, then target, then references row by row', () => {
    const table = ropeTable([2, 2, 2], 10000, 2, { width: 2, height: 1 }, [{ width: 1, height: 2 }]);
    const angles = Array.from({ length: table.length / 2 }, (_, i) =>
      Math.round(Math.atan2(table[2 * i + 1]!, table[2 * i]!)),
    );
    const positions = Array.from({ length: 6 }, (_, i) => angles.slice(3 * i, 3 * i + 3));
    expect(positions).toEqual([
      [0, 0, 0],
      [0, 0, 0],
      [0, 0, 0],
      [0, 0, 1],
      [1, 0, 0],
      [1, 1, 0],
    ]);
  });
});

describe('packing', () => {
  it('is the permutation of the reference, both ways', () => {
    const io = fixture('denoise-bfl');
    const latent = floatTensor(io, 'in.latent');
    const size = { width: 80, height: 48 };
    const packed = pack(latent, size);
    expect(packed).toEqual(floatTensor(io, 'mid.img_packed'));
    expect(unpack(packed, size)).toEqual(latent);
  });
});
