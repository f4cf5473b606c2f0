// Patch packing and image conversion: permutations are exact, colours must match the reference's rounding.
// The packing order is held to an index-coded latent of the reference implementation.
import { beforeAll, describe, expect, it } from 'vitest';
import type { MatrixView } from '../../kernels-codegen/src/kernels/kernel.ts';
import { type RearrangeSpec, rearrange } from '../../kernels-codegen/src/kernels/rearrange.ts';
import { BASELINE_LIMITS, type TargetProfile, type Tier } from '../../kernels-codegen/src/targets/types.ts';
import { openTestDevice, type TestDevice } from '../support/gpu.ts';
import { runSupported } from '../support/run-supported.ts';
import { decode, encode, expectView, filled, gaussian, valueAt, view } from '../support/views.ts';

const profile = (tier: Tier): TargetProfile => ({ name: 'test', tier, limits: BASELINE_LIMITS });
const exact = { nmse: 0, worst: 0 };

describe('rearrange', () => {
  let gpu: TestDevice;
  beforeAll(async () => {
    gpu = await openTestDevice();
  });

  /** [token, token channel] of a latent cell's channel, straight from the definition. */
  const placeOf = (width: number, cell: number, c: number): [number, number] => {
    const y = Math.floor(cell / width);
    const x = cell % width;
    return [(y >> 1) * (width / 2) + (x >> 1), c * 4 + (y & 1) * 2 + (x & 1)];
  };

  const shapes: { name: string; tier: Tier; h: number; w: number; c: number; cells: MatrixView; tokens: MatrixView }[] =
    [
      { name: 'f32 4×6', tier: 'f32', h: 4, w: 6, c: 16, cells: view('f32', 24, 16), tokens: view('f32', 6, 64) },
      { name: 'one patch', tier: 'f16', h: 2, w: 2, c: 4, cells: view('f16', 4, 4), tokens: view('f16', 1, 16) },
      {
        name: 'f16, odd strides',
        tier: 'f16',
        h: 10,
        w: 14,
        c: 3,
        cells: view('f16', 140, 3, { rowStride: 5, offset: 1 }),
        tokens: view('f16', 35, 12, { rowStride: 13, offset: 3 }),
      },
      {
        name: 'tokens inside a longer sequence',
        tier: 'f32',
        h: 6,
        w: 4,
        c: 16,
        cells: view('f32', 24, 16),
        tokens: view('f32', 6, 64, { offset: 128 }),
      },
    ];
  for (const s of shapes) {
    it(`pack ${s.name}`, async () => {
      const next = gaussian(1);
      const x = filled(s.cells, next);
      const before = filled(s.tokens, next);
      const spec: RearrangeSpec = { kind: 'pack', height: s.h, width: s.w, channels: s.c, x: s.cells, out: s.tokens };
      const kernel = rearrange(spec, profile(s.tier));
      const result = await runSupported(gpu, kernel, [encode(s.cells.type, x), encode(s.tokens.type, before)]);
      const want = new Map<string, number>();
      for (let cell = 0; cell < s.h * s.w; cell++) {
        for (let c = 0; c < s.c; c++) want.set(`${placeOf(s.w, cell, c)}`, valueAt(s.cells, x, cell, c));
      }
      const got = decode(s.tokens.type, result.get(1)!);
      expectView(s.tokens, got, (r, col) => want.get(`${[r, col]}`)!, exact, before);
    });

    it(`unpack ${s.name}`, async () => {
      const next = gaussian(2);
      const x = filled(s.tokens, next);
      const before = filled(s.cells, next);
      const spec: RearrangeSpec = { kind: 'unpack', height: s.h, width: s.w, channels: s.c, x: s.tokens, out: s.cells };
      const kernel = rearrange(spec, profile(s.tier));
      const result = await runSupported(gpu, kernel, [encode(s.tokens.type, x), encode(s.cells.type, before)]);
      const got = decode(s.cells.type, result.get(1)!);
      expectView(s.cells, got, (r, c) => valueAt(s.tokens, x, ...placeOf(s.w, r, c)), exact, before);
    });
  }

  it('packs as the reference does', async () => {
    // `packing.index_latent` of diffusers: value = c·24 + y·6 + x in a 16×4×6 latent. Token 0 of `packing.index_packed`
    // starts 0, 1, 6, 7, 24, 25, 30, 31; token 4 (row 1, column 1) starts 14, 15, 20, 21.
    const cells = view('f32', 24, 16);
    const x = Float32Array.from({ length: 24 * 16 }, (_, i) => (i % 16) * 24 + Math.floor(i / 16));
    const spec: RearrangeSpec = { kind: 'pack', height: 4, width: 6, channels: 16, x: cells, out: view('f32', 6, 64) };
    const result = await runSupported(gpu, rearrange(spec, profile('f32')), [x, new Float32Array(6 * 64)]);
    const packed = new Float32Array(result.get(1)!);
    expect([...packed.slice(0, 8)]).toEqual([0, 1, 6, 7, 24, 25, 30, 31]);
    expect([...packed.slice(4 * 64, 4 * 64 + 4)]).toEqual([14, 15, 20, 21]);
  });

  it.each([
    ['f32', view('f32', 15, 4)],
    ['f16', view('f16', 15, 4, { rowStride: 8, offset: 4 })],
  ] as const)('image to tensor, %s', async (tier, out) => {
    const pixels = Uint32Array.from({ length: 15 }, (_, i) => (Math.imul(i + 1, 0x9e3779b1) ^ (i * 255)) >>> 0);
    pixels[0] = 0xff00ff00;
    const before = filled(out, gaussian(4));
    const spec: RearrangeSpec = { kind: 'image-to-tensor', height: 3, width: 5, out };
    const result = await runSupported(gpu, rearrange(spec, profile(tier)), [pixels, encode(out.type, before)]);
    const want = (r: number, c: number): number => (c === 3 ? 0 : (((pixels[r]! >>> (8 * c)) & 255) / 255) * 2 - 1);
    // f32: division is good to 2.5 ulp of a value up to 2. f16: one rounding, either way.
    const limit = out.type === 'f32' ? { nmse: 1e-13, worst: 1e-6 } : { nmse: 1e-6, worst: 2e-3 };
    expectView(out, decode(out.type, result.get(1)!), want, limit, before);
  });

  it.each(['f32', 'f16'] as const)('tensor to image gives every byte back, %s', async (type) => {
    const x = view(type, 16 * 16, 4, { rowStride: 6, offset: 2 });
    const data = filled(x, gaussian(5));
    for (let i = 0; i < 256; i++) {
      const at = x.offset + i * x.rowStride;
      data[at] = (i / 255) * 2 - 1;
      data[at + 1] = ((255 - i) / 255) * 2 - 1;
      // Out of range on both sides: must saturate.
      data[at + 2] = (i - 128) / 16;
    }
    const spec: RearrangeSpec = { kind: 'tensor-to-image', height: 16, width: 16, x };
    const result = await runSupported(gpu, rearrange(spec, profile(type)), [encode(type, data), new Uint32Array(256)]);
    const bytes = new Uint8Array(result.get(1)!);
    for (let i = 0; i < 256; i++) {
      const blue = Math.round(Math.min(1, Math.max(0, (i - 128) / 32 + 0.5)) * 255);
      expect([bytes[4 * i], bytes[4 * i + 1], bytes[4 * i + 3]]).toEqual([i, 255 - i, 255]);
      // Ties of a grid of 1/32 × 255 may fall either way in JavaScript's rounding; at most one level.
      expect(Math.abs(bytes[4 * i + 2]! - blue)).toBeLessThanOrEqual(1);
    }
  });

  it('rounds halves to even', async () => {
    // x/2 + 1/2 is exact for multiples of 2^-20 and 255·v is a half for v = 0.5: 127.5 → 128; and 0.5/255 is not exact.
    const x = view('f32', 1, 3);
    const spec: RearrangeSpec = { kind: 'tensor-to-image', height: 1, width: 1, x };
    const result = await runSupported(gpu, rearrange(spec, profile('f32')), [
      Float32Array.of(0, -1, 1),
      new Uint32Array(1),
    ]);
    expect([...new Uint8Array(result.get(1)!)]).toEqual([128, 0, 255, 255]);
  });

  it('refuses odd patch grids and two-channel images', () => {
    const odd = {
      kind: 'pack',
      height: 3,
      width: 2,
      channels: 4,
      x: view('f32', 6, 4),
      out: view('f32', 1, 16),
    } as const;
    expect(() => rearrange(odd, profile('f32'))).toThrow(/even sides/);
    const two = { kind: 'tensor-to-image', height: 1, width: 1, x: view('f32', 1, 2) } as const;
    expect(() => rearrange(two, profile('f32'))).toThrow(/3 channels/);
  });
});
