// Per-head RMS norm and rotary embedding against a float64 oracle.
// The rectangles are those of a fused qkv buffer: strided, offset, in place.
import { beforeAll, describe, expect, it } from 'vitest';
import { type HeadNormSpec, headNorm } from '../../kernels-codegen/src/kernels/head-norm.ts';
import { BASELINE_LIMITS, type TargetProfile } from '../../kernels-codegen/src/targets/types.ts';
import { openTestDevice, runKernel, type TestDevice } from '../support/gpu.ts';
import { normedHead, rotaryTable } from '../support/oracle-heads.ts';
import { decode, encode, expectView, filled, gaussian, valueAt, view } from '../support/views.ts';

const target: TargetProfile = { name: 'test', tier: 'f16', limits: BASELINE_LIMITS };
// As for row norms: a few f32 ulp, or one rounding to f16 of values up to about six times the root mean square.
const limits = { f32: { nmse: 1e-12, worst: 5e-6 }, f16: { nmse: 1e-7, worst: 3e-3 } };

describe('headNorm', () => {
  let gpu: TestDevice;
  beforeAll(async () => {
    gpu = await openTestDevice();
  });

  /** As a GPU computes it, and with a thread a head as on a CPU. */
  async function check(part: Omit<HeadNormSpec, 'eps' | 'scaleType'>, profile = target): Promise<void> {
    await checkOn(part, profile);
    await checkOn(part, { ...profile, software: true });
  }

  async function checkOn(part: Omit<HeadNormSpec, 'eps' | 'scaleType'>, profile: TargetProfile): Promise<void> {
    const spec: HeadNormSpec = { ...part, eps: 1e-6, scaleType: 'f32' };
    const next = gaussian(11);
    const { x, out, size, rope } = spec;
    const input = filled(x, next);
    const scale = filled(view('f32', 1, size), next);
    const before = spec.inPlace ? input : filled(out, next);
    const table = rotaryTable(rope, next);
    const buffers = [
      ...(spec.inPlace ? [] : [encode(x.type, input)]),
      encode('f32', scale),
      ...(rope ? [encode('f32', table)] : []),
      encode(out.type, before),
    ];
    const kernel = headNorm(spec, profile);
    expect(kernel.bindings.length).toBe(buffers.length);
    const result = await runKernel(gpu, kernel, buffers);
    const want = (row: number, col: number): number => {
      const i = col % size;
      const head = Array.from({ length: size }, (_, j) => valueAt(x, input, row, col - i + j));
      return normedHead(spec, head, scale, table, row, i);
    };
    expectView(out, decode(out.type, result.get(buffers.length - 1)!), want, limits[out.type], before);
  }

  const tight = (type: 'f32' | 'f16', rows: number, cols: number) => ({
    x: view(type, rows, cols),
    out: view(type, rows, cols),
    inPlace: false,
  });
  const rope = (rows: number, size: number) => ({ offset: 0, rowStride: size, length: rows * size });

  it('norm alone', () => check({ heads: 3, size: 64, ...tight('f32', 7, 192) }));
  it('norm and rotation', () => check({ heads: 4, size: 128, ...tight('f32', 9, 512), rope: rope(9, 128) }));
  it('f16', () => check({ heads: 2, size: 32, ...tight('f16', 9, 64), rope: rope(9, 32) }));
  it('f32 to f16', () =>
    check({
      heads: 2,
      size: 128,
      x: view('f32', 3, 256),
      out: view('f16', 3, 256),
      inPlace: false,
      rope: rope(3, 128),
    }));
  it('a head that is no multiple of four', () =>
    check({ heads: 3, size: 10, ...tight('f32', 5, 30), rope: rope(5, 10) }));
  it('one row, one head', () => check({ heads: 1, size: 16, ...tight('f32', 1, 16), rope: rope(1, 16) }));
  it('in place inside a qkv buffer, with a table that starts later', () => {
    const x = view('f32', 6, 96, { rowStride: 288, offset: 96 });
    return check({ heads: 3, size: 32, x, out: x, inPlace: true, rope: { offset: 128, rowStride: 32, length: 320 } });
  });
  it('in place at an odd offset', () => {
    const x = view('f16', 6, 16, { rowStride: 51, offset: 5 });
    return check({ heads: 2, size: 8, x, out: x, inPlace: true, rope: rope(6, 8) });
  });
  it('more workgroups than one grid dimension', () =>
    check(
      { heads: 5, size: 32, ...tight('f32', 77, 160), rope: rope(77, 32) },
      {
        ...target,
        limits: { ...BASELINE_LIMITS, maxComputeWorkgroupsPerDimension: 3 },
      },
    ));

  it('refuses odd heads and short tables', () => {
    const spec = { eps: 0, scaleType: 'f32', heads: 2, size: 9, ...tight('f32', 4, 18) } as const;
    expect(() => headNorm(spec, target)).toThrow(/odd/);
    const short = { ...spec, size: 8, ...tight('f32', 4, 16), rope: rope(3, 8) };
    expect(() => headNorm(short, target)).toThrow(/too few/);
  });
});
