// Matmuls of every variant, weight format, epilogue and awkward shape against a float64 oracle.
// Shapes are the smallest that cross each boundary of a tile: software adapters run about 8 GFLOP/s.
import { beforeAll, describe, it } from 'vitest';
import type { MatmulSchedule } from '../../kernels-codegen/src/kernels/matmul/index.ts';
import { BASELINE_LIMITS, type TargetProfile, type Tier } from '../../kernels-codegen/src/targets/types.ts';
import { isQuantised } from '../../runtime/src/program/formats.ts';
import { openTestDevice, type TestDevice } from '../support/gpu.ts';
import {
  bias,
  describeShape,
  FEW_HALF_ROWS,
  FEW_ROWS,
  FULL,
  HALF,
  type MatmulShape,
  matmulSpec,
} from '../support/matmul-shapes.ts';
import { checkMatmul, matmulTolerance } from '../support/oracle-matmul.ts';

const targetOf = (tier: Tier, software = false): TargetProfile => ({
  name: `test ${tier}`,
  tier,
  limits: BASELINE_LIMITS,
  subgroupSize: { min: 4, max: 128 },
  ...(software ? { software: true } : {}),
});

// One subgroup a workgroup, of the size that lavapipe has: rows are handed round.
const lanes = (tier: Tier): TargetProfile => ({ ...targetOf(tier, true), subgroupSize: { min: 8, max: 8 } });

// Small, so that small shapes span several tiles: it differs from the real ones in numbers only.
const SMALL: MatmulSchedule = { variant: 'tiled', threadsM: 4, threadsN: 4, rows: 2, cols: 4, tileK: 8 };

describe('matmul', () => {
  let gpu: TestDevice;
  beforeAll(async () => {
    gpu = await openTestDevice();
  });

  const check = (name: string, shapes: MatmulShape[], target: TargetProfile, schedule?: MatmulSchedule): void => {
    it.each(shapes.map((shape) => [describeShape(shape), shape] as const))(`${name}: %s`, (_, shape) => {
      const spec = matmulSpec(shape);
      // Values rounded to f16 on the way: an f16 output, and quantised weights in an f16 tile.
      const quantised = isQuantised(spec.weight.format);
      const halfTile = schedule?.variant === 'tiled' && target.tier !== 'f32' && shape.type === 'f16';
      const halves = (spec.out.type === 'f16' ? 1 : 0) + (quantised && halfTile ? 1 : 0);
      return checkMatmul(gpu, spec, target, matmulTolerance(spec, halves), schedule);
    });
  };

  check('tiles, tier f32', FULL, targetOf('f32'), SMALL);
  check('tiles, tier f16', [...HALF, FULL[2]!, FULL[5]!], targetOf('f16'), SMALL);
  check('few rows, tier f32', FEW_ROWS, targetOf('f32'));
  check('few rows, tier subgroups', [...FEW_ROWS, ...FEW_HALF_ROWS], targetOf('subgroups'));
  check('software adapter, tier f32', [...FULL, ...FEW_ROWS], targetOf('f32', true));
  // Small products get two rows a thread; large ones eight.
  check('software adapter, eight rows', [FULL[1]!], targetOf('f32', true), { variant: 'direct', threads: 8, rows: 8 });
  check('software adapter, tier f16', [...HALF, ...FEW_HALF_ROWS], targetOf('f16', true));
  // Real tiles take a software adapter seconds to compile: one of each type.
  check('handed round, tier f32', [...FULL, ...FEW_ROWS], lanes('f32'));
  check('handed round, tier subgroups', [...HALF, ...FEW_HALF_ROWS], lanes('subgroups'));
  check('handed round, sixteen rows', [FULL[1]!, FULL[2]!], lanes('f32'), {
    variant: 'direct',
    threads: 8,
    rows: 16,
    broadcast: true,
  });
  check('chosen tiles, tier f32', [{ m: 70, n: 132, k: 40 }], targetOf('f32'));
  check(
    'chosen tiles, tier f16',
    [{ m: 66, n: 64, k: 64, type: 'f16', format: 'f16', out: 'f16', epilogue: bias }],
    targetOf('f16'),
  );
});
