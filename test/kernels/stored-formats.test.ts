// Walks the table of stored formats: every one is read by each kind of matmul kernel, held to the float64 oracle.
import { beforeAll, describe, it } from 'vitest';
import type { MatmulSchedule } from '../../kernels-codegen/src/kernels/matmul/index.ts';
import { BASELINE_LIMITS, type TargetProfile, type Tier } from '../../kernels-codegen/src/targets/types.ts';
import { columnsUnit, isQuantised, WEIGHT_FORMATS } from '../../runtime/src/program/formats.ts';
import { openTestDevice, type TestDevice } from '../support/gpu.ts';
import { bias, type MatmulShape, matmulSpec } from '../support/matmul-shapes.ts';
import { checkMatmul, matmulTolerance } from '../support/oracle-matmul.ts';

const targetOf = (tier: Tier, software = false): TargetProfile => ({
  name: `test ${tier}`,
  tier,
  limits: BASELINE_LIMITS,
  subgroupSize: { min: 4, max: 128 },
  ...(software ? { software: true } : {}),
});

const TILES: MatmulSchedule = { variant: 'tiled', threadsM: 4, threadsN: 4, rows: 1, cols: 4, tileK: 4 };

describe.each(WEIGHT_FORMATS)('%s', (format) => {
  let gpu: TestDevice;
  beforeAll(async () => {
    gpu = await openTestDevice();
  });
  // One block of columns where blocks are wide, three where they are not; rows that end inside a tile.
  const k = columnsUnit(format) === 256 ? 256 : 96;
  const check = (shape: MatmulShape, target: TargetProfile, halves = 0, schedule?: MatmulSchedule) => {
    const spec = matmulSpec({ format, ...shape });
    return checkMatmul(gpu, spec, target, matmulTolerance(spec, halves), schedule);
  };

  it('in tiles, f16', () =>
    check({ m: 9, n: 18, k, type: 'f16', epilogue: bias }, targetOf('f16'), isQuantised(format) ? 1 : 0, TILES));
  it('for few rows', () => check({ m: 2, n: 10, k }, targetOf('f32')));
  it('on software adapters, two inputs', () => check({ m: 7, n: 12, k: [40, k - 40] }, targetOf('f32', true)));
});
