// Matmuls on matrix instructions against the float64 oracle; skipped where the adapter has none.
// `npm run test:matrix` runs them on a CPU, with Mesa's newest software driver (8×8×8, f16 → f32).
import { beforeAll, describe, expect, it } from 'vitest';
import { chooseMatmulSchedule, type MatmulSchedule, matmul } from '../../kernels-codegen/src/kernels/matmul/index.ts';
import { BASELINE_LIMITS, type TargetProfile } from '../../kernels-codegen/src/targets/types.ts';
import { isQuantised } from '../../runtime/src/program/formats.ts';
import { openTestDevice, type TestDevice } from '../support/gpu.ts';
import {
  bias,
  describeShape,
  FEW_HALF_ROWS,
  gatedResidual,
  HALF,
  type MatmulShape,
  matmulSpec,
} from '../support/matmul-shapes.ts';
import { matrixTarget } from '../support/matrix-target.ts';
import { checkMatmul, matmulTolerance } from '../support/oracle-matmul.ts';

describe('matmul on subgroup matrices', () => {
  let gpu: TestDevice;
  let target: TargetProfile | undefined;

  beforeAll(async () => {
    gpu = await openTestDevice();
    target = matrixTarget(gpu);
  });

  const small = (storeTiles: number): MatmulSchedule => ({
    variant: 'matrix',
    subgroupsM: 2,
    subgroupsN: 2,
    tilesM: 1,
    tilesN: 2,
    tileK: 16,
    storeTiles,
  });

  it.each(HALF.filter((s) => s.format !== 'f32').map((s, i) => [describeShape(s), s, 1 + (i % 2)] as const))(
    '%s',
    async (_, shape, storeTiles) => {
      if (!target) return;
      const spec = matmulSpec(shape);
      const quantised = isQuantised(spec.weight.format);
      const halves = (spec.out.type === 'f16' ? 1 : 0) + (quantised ? 1 : 0);
      await checkMatmul(gpu, spec, target, matmulTolerance(spec, halves), small(storeTiles));
    },
  );

  const chosen: MatmulShape[] = [
    { m: 70, n: 100, k: 72, type: 'f16', format: 'f16', epilogue: bias },
    { m: 64, n: 64, k: [64, 32], type: 'f16', format: 'f16', epilogue: gatedResidual, out: 'f16' },
    FEW_HALF_ROWS[0]!,
    // Whole blocks of stored values: steps of 32 columns, of one left operand and of two.
    { m: 70, n: 100, k: 96, type: 'f16', format: 'q8', epilogue: bias },
    { m: 70, n: 100, k: 96, type: 'f16', format: 'q4', epilogue: bias },
    { m: 64, n: 64, k: [64, 32], type: 'f16', format: 'q4', epilogue: gatedResidual, out: 'f16' },
    // A total that is no whole number of 16 bytes, so that single values are unpacked.
    { m: 20, n: 33, k: 32, type: 'f16', format: 'q4', epilogue: bias },
  ];
  it.each(chosen.map((s) => [describeShape(s), s] as const))('chosen schedule: %s', async (_, shape) => {
    if (!target) return;
    const spec = matmulSpec(shape);
    const halves = (spec.out.type === 'f16' ? 1 : 0) + (isQuantised(spec.weight.format) ? 1 : 0);
    const schedule = chooseMatmulSchedule(spec, target);
    expect(schedule.variant).toBe(spec.m > 16 ? 'matrix' : 'skinny');
    await checkMatmul(gpu, spec, target, matmulTolerance(spec, halves), schedule);
  });

  it('gives the same text for the same input', () => {
    const nvidia: TargetProfile = {
      name: 'test 16',
      tier: 'subgroup-matrix',
      limits: BASELINE_LIMITS,
      subgroupSize: { min: 32, max: 32 },
      subgroupMatrix: [{ m: 16, n: 16, k: 16, componentType: 'f16', resultType: 'f32' }],
    };
    const spec = matmulSpec({ m: 512, n: 512, k: 512, type: 'f16', format: 'f16' });
    const kernel = matmul(spec, nvidia);
    expect(kernel.needs.subgroupMatrix).toEqual(nvidia.subgroupMatrix![0]);
    expect(matmul(spec, nvidia)).toEqual(kernel);
  });
});
