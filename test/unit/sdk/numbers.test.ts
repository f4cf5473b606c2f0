// Embeddings, rotary tables and packing against the reference's tensors: a wrong digit here moves every picture.
import { describe, expect, it } from 'vitest';
import { loadHost } from '../../../sdk/src/host/module.ts';
import { sigmas } from '../../../sdk/src/host/schedule.ts';
import { sinusoids, toBfloat16 } from '../../../sdk/src/kontext/conditioning.ts';
import { pack, unpack } from '../../../sdk/src/kontext/latents.ts';
import { ropeTable } from '../../../sdk/src/kontext/rope.ts';
import { embedded, roundedTimestep } from '../../support/plain-conditioning.ts';
import { floatTensor, readSafetensors } from '../../support/safetensors.ts';

const fixture = (name: string) =>
  readSafetensors(new URL(`../../fixtures/${name}/io.safetensors`, import.meta.url).pathname);

function maxDifference(a: ArrayLike<number>, b: ArrayLike<number>): number {
  expect(a.length).toBe(b.length);
  let worst = 0;
  for (let i = 0; i < a.length; i++) worst = Math.max(worst, Math.abs(a[i]! - b[i]!));
  return worst;
}

/** One bfloat16 step of a sine, and what float32 angles below 2,500 add. */
const TIPPED = 2 ** -8 + 2e-4;

describe('sinusoids', () => {
  const io = fixture('timestep-embedding');

  it('equals the float64 reference', () => {
    const t = floatTensor(io, 't');
    // Half a unit in the last place of the stored float32.
    expect(maxDifference(sinusoids('timesteps', t, 'exact'), floatTensor(io, 'embedding_256_exact'))).toBeLessThan(
      1e-7,
    );
  });

  it('rounds as BFL’s pipeline does in bfloat16, to the bit', () => {
    const t = floatTensor(io, 't');
    expect([...t].map(toBfloat16)).toEqual([...floatTensor(io, 't_bf16')]);
    expect(maxDifference(sinusoids('timesteps', t, 'bfl'), floatTensor(io, 'embedding_256_from_bf16'))).toBe(0);
  });

  it('turns guidance 2.5 into 2496, whichever pipeline', () => {
    expect(toBfloat16(1000 * toBfloat16(2.5))).toBe(2496);
    for (const pipeline of ['bfl', 'diffusers'] as const) {
      const ours = sinusoids('guidance', [2.5], pipeline);
      expect(maxDifference(ours, embedded(2.496))).toBeLessThan(TIPPED);
      expect(maxDifference(ours, embedded(2.5))).toBeGreaterThan(1);
    }
  });

  it.each([1024, 512])(
    'has the timesteps of each pipeline over the 28 steps of a square of %i pixels',
    async (side) => {
      const schedule = sigmas(await loadHost(), { steps: 28, imageTokens: (side / 16) ** 2 }).subarray(0, 28);
      const differing = [...schedule].filter(
        (sigma) => roundedTimestep.bfl(sigma) !== roundedTimestep.diffusers(sigma),
      );
      if (side === 1024) expect(differing).toHaveLength(7);
      for (const sigma of schedule) {
        const [bfl, diffusers] = (['bfl', 'diffusers'] as const).map((pipeline) => {
          const ours = sinusoids('timesteps', [sigma], pipeline);
          expect(maxDifference(ours, embedded(roundedTimestep[pipeline](sigma) / 1000))).toBeLessThan(TIPPED);
          return ours;
        });
        // The step between two neighbouring bfloat16 timesteps is 2 at 400: far more than any rounding of a sine.
        if (differing.includes(sigma)) expect(maxDifference(bfl!, diffusers!)).toBeGreaterThan(0.2);
        else expect(bfl).toEqual(diffusers);
      }
    },
  );
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
