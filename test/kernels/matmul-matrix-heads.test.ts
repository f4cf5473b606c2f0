// Projections that normalise and rotate their heads, against the float64 oracle; skipped where the adapter has no matrix instructions.
// Blocks with one head and with several, heads over the edge, rows over the edge, stored weights, an adapter's path.
import { beforeAll, describe, expect, it } from 'vitest';
import { type MatmulSpec, matmul, normsHeads } from '../../kernels-codegen/src/kernels/matmul/index.ts';
import type { MatrixSchedule } from '../../kernels-codegen/src/kernels/matrix/schedule.ts';
import type { NormedHeads } from '../../kernels-codegen/src/kernels/normed-heads.ts';
import { targetByName } from '../../kernels-codegen/src/targets/profiles.ts';
import type { TargetProfile } from '../../kernels-codegen/src/targets/types.ts';
import { isQuantised } from '../../runtime/src/program/formats.ts';
import { openTestDevice, type TestDevice } from '../support/gpu.ts';
import { bias, gatedResidual, type MatmulShape, matmulSpec } from '../support/matmul-shapes.ts';
import { matrixTarget } from '../support/matrix-target.ts';
import { checkMatmul, matmulTolerance } from '../support/oracle-matmul.ts';

interface Case extends Omit<MatmulShape, 'n' | 'type'> {
  heads: number;
  size: number;
  /** Where the rotary table starts; none without. */
  rope?: number;
  /** Columns behind q, k and v. */
  more?: number;
}

function specOf({ heads, size, rope, more = 0, ...shape }: Case): MatmulSpec {
  const n = 3 * heads * size + more;
  const table = rope === undefined ? {} : { rope: { offset: rope, rowStride: size, length: rope + shape.m * size } };
  const normed: NormedHeads = { heads, size, eps: 1e-6, ...table };
  return { ...matmulSpec({ format: 'f16', out: 'f16', ...shape, n, type: 'f16' }), heads: normed };
}

describe('projections that normalise their heads', { timeout: 300_000 }, () => {
  let gpu: TestDevice;
  let target: TargetProfile | undefined;
  beforeAll(async () => {
    gpu = await openTestDevice();
    const found = matrixTarget(gpu, { maxStorageBuffersPerShaderStage: 10 });
    // The blocks below are of 8 × 8 matrices.
    if (found?.subgroupMatrix?.some((c) => c.m === 8)) target = found;
  });

  /** Blocks of `subgroupsM · 8` rows and `subgroupsN · 32` columns. */
  const schedule = (subgroupsM: number, subgroupsN: number, tilesM = 1): MatrixSchedule => ({
    ...{ variant: 'matrix', subgroupsM, subgroupsN, tilesM, tilesN: 4, tileK: 32, storeTiles: 4 },
  });
  const [square, flat, tall] = [schedule(2, 2), schedule(1, 4), schedule(2, 2, 2)];
  const wide: MatrixSchedule = { ...schedule(1, 8), tilesN: 2, storeTiles: 2 };
  const cases: [string, Case, MatrixSchedule][] = [
    ['one head of 64 a block', { m: 32, k: 64, heads: 1, size: 64, rope: 0, epilogue: bias }, square],
    ['heads of 128', { m: 24, k: 64, heads: 2, size: 128, rope: 0, epilogue: bias }, flat],
    ['heads of 128, ragged rows, no bias', { m: 21, k: 40, heads: 1, size: 128, rope: 0 }, flat],
    ['more threads than rows can share', { m: 21, k: 64, heads: 1, size: 128, rope: 0, epilogue: bias }, wide],
    ['no rotation', { m: 19, k: 64, heads: 1, size: 64, epilogue: bias }, square],
    ['two heads a block, over its edge', { m: 27, k: 64, heads: 3, size: 32, rope: 8, epilogue: bias }, square],
    ['several passes, f32 out', { m: 50, k: 64, heads: 1, size: 64, rope: 0, epilogue: bias, out: 'f32' }, tall],
    ['q8', { m: 27, k: 64, heads: 1, size: 64, rope: 0, epilogue: bias, format: 'q8' }, square],
    ['q4', { m: 32, k: 64, heads: 2, size: 64, rope: 64, epilogue: bias, format: 'q4' }, tall],
    [
      'an adapter',
      { m: 18, k: 64, heads: 1, size: 64, rope: 0, beside: 8, besideFormat: 'f16', epilogue: bias },
      square,
    ],
    ['more columns, two left operands', { m: 18, k: [32, 32], heads: 1, size: 64, rope: 0, more: 40 }, square],
    [
      'inside a wider buffer',
      { m: 18, k: 64, heads: 2, size: 32, rope: 0, epilogue: bias, outAt: { rowStride: 240, offset: 12 } },
      square,
    ],
  ];
  it.each(cases)('%s', async (_, c, s) => {
    if (!target) return;
    const spec = specOf(c);
    const halves = (spec.out.type === 'f16' ? 1 : 0) + (isQuantised(spec.weight.format) ? 1 : 0);
    await checkMatmul(gpu, spec, target, matmulTolerance(spec, halves), s);
  });
  it('more rows of blocks than one grid dimension', async () => {
    if (!target) return;
    const spec = specOf({ m: 75, k: 32, heads: 1, size: 64, rope: 0, epilogue: bias });
    const few = { ...target, limits: { ...target.limits, maxComputeWorkgroupsPerDimension: 3 } };
    await checkMatmul(gpu, spec, few, matmulTolerance(spec, 1), square);
  });

  describe('choice', () => {
    const large = (o: Partial<Case> = {}) =>
      specOf({ m: 8704, k: 3072, heads: 24, size: 128, rope: 0, epilogue: bias, ...o });
    const nvidia = targetByName('nvidia-matrix');

    it.each(['nvidia-matrix', 'amd-rdna3', 'amd-rdna4'])('%s normalises the heads of a whole model', (name) => {
      for (const format of ['f16', 'q8', 'q4'] as const)
        expect(normsHeads(large({ format }), targetByName(name))).toBe(true);
      expect(normsHeads(large({ m: 8700 }), targetByName(name))).toBe(true);
    });
    it.each(['nvidia', 'apple-m', 'lavapipe', 'lavapipe-matrix', 'baseline', 'adreno'])('%s does not', (name) => {
      const spec = large();
      const half =
        name === 'baseline'
          ? {
              segments: [{ a: { ...spec.segments[0]!.a, type: 'f32' as const } }],
              out: { ...spec.out, type: 'f32' as const },
            }
          : {};
      expect(normsHeads({ ...spec, ...half }, targetByName(name))).toBe(false);
    });
    it('needs whole heads in a block, a value a column, and a binding for each table', () => {
      expect(normsHeads(large({ heads: 32, size: 96 }), nvidia)).toBe(false);
      expect(normsHeads(large({ epilogue: gatedResidual }), nvidia)).toBe(false);
      const limits = { ...nvidia.limits, maxStorageBuffersPerShaderStage: 6 };
      expect(normsHeads(large(), { ...nvidia, limits })).toBe(false);
      expect(normsHeads(large({ outAt: { rowStride: 9219, offset: 1 } }), nvidia)).toBe(false);
    });
    it('takes no more memory, and the same text for the streams', () => {
      const { heads: _, ...plain } = large();
      const [with_, without] = [matmul(large(), nvidia), matmul(plain, nvidia)];
      expect(with_.needs).toEqual(without.needs);
      expect(matmul(large({ m: 512 }), nvidia).wgsl).toBe(with_.wgsl);
    });
    it('refuses variants that cannot, and tables too short', () => {
      const tiled = { variant: 'tiled', threadsM: 16, threadsN: 16, rows: 8, cols: 8, tileK: 16 } as const;
      expect(() => matmul(large(), nvidia, tiled)).toThrow(/normalises no heads/);
      const spec = large();
      const short: MatmulSpec = {
        ...spec,
        heads: { ...spec.heads!, rope: { offset: 0, rowStride: 128, length: 128 } },
      };
      expect(() => matmul(short, nvidia)).toThrow(/too few/);
    });
  });
});
