// Matmuls with two pairs of tiles, and with eight subgroups, against the float64 oracle; skipped where the adapter has no matrices.
// Steps are what may go wrong: one alone, the last of an even and of an odd number, those of two operands.
import { beforeAll, describe, expect, it } from 'vitest';
import {
  chooseMatmulSchedule,
  matmul,
  matmulCandidates,
  matmulShapeKey,
} from '../../kernels-codegen/src/kernels/matmul/index.ts';
import type { MatrixSchedule } from '../../kernels-codegen/src/kernels/matrix/schedule.ts';
import { targetByName } from '../../kernels-codegen/src/targets/profiles.ts';
import type { TargetProfile } from '../../kernels-codegen/src/targets/types.ts';
import { isQuantised } from '../../runtime/src/program/formats.ts';
import { openTestDevice, type TestDevice } from '../support/gpu.ts';
import {
  bias,
  describeShape,
  gatedResidual,
  gelu,
  HALF,
  type MatmulShape,
  matmulSpec,
  rowScale,
} from '../support/matmul-shapes.ts';
import { matrixTarget } from '../support/matrix-target.ts';
import { checkMatmul, matmulTolerance } from '../support/oracle-matmul.ts';

const schedule = (o: Partial<MatrixSchedule>): MatrixSchedule => ({
  variant: 'matrix',
  ...{ subgroupsM: 2, subgroupsN: 2, tilesM: 1, tilesN: 2, tileK: 16, storeTiles: 1, buffers: 2 },
  ...o,
});

/** Of one, two and three steps of 16; then with ragged edges along all three. */
const STEPS: MatmulShape[] = [
  { m: 16, n: 32, k: 16, type: 'f16', format: 'f16' },
  { m: 16, n: 32, k: 8, type: 'f16', format: 'f16', epilogue: bias },
  { m: 16, n: 32, k: 32, type: 'f16', format: 'f16', epilogue: rowScale },
  { m: 16, n: 32, k: 48, type: 'f16', format: 'f16', epilogue: gelu, out: 'f16' },
  { m: 33, n: 65, k: 40, type: 'f16', format: 'f16', epilogue: gatedResidual },
  { m: 33, n: 65, k: 37, type: 'f16', format: 'f16', epilogue: bias },
];

/** Steps of 32 columns, so that blocks of stored values are staged whole: of one operand, of two, and beside an adapter's path. */
const BLOCKS: MatmulShape[] = (['q8', 'q4'] as const).flatMap((format): MatmulShape[] => [
  { m: 33, n: 64, k: 32, type: 'f16', format, epilogue: bias },
  { m: 33, n: 68, k: 64, type: 'f16', format, epilogue: gatedResidual, out: 'f16' },
  { m: 20, n: 40, k: [32, 64], type: 'f16', format, epilogue: gelu },
  { m: 20, n: 40, k: [64, 32], type: 'f16', format, beside: 24, besideFormat: 'f16', epilogue: bias },
]);

describe('matmul on subgroup matrices, two buffers', () => {
  let gpu: TestDevice;
  let target: TargetProfile | undefined;

  beforeAll(async () => {
    gpu = await openTestDevice();
    target = matrixTarget(gpu, { maxComputeWorkgroupStorageSize: 32768 });
  });

  const check = async (shape: MatmulShape, s: MatrixSchedule): Promise<void> => {
    if (!target) return;
    const spec = matmulSpec(shape);
    const halves = (spec.out.type === 'f16' ? 1 : 0) + (isQuantised(spec.weight.format) ? 1 : 0);
    await checkMatmul(gpu, spec, target, matmulTolerance(spec, halves), s);
  };
  const cases = (shapes: readonly MatmulShape[]) => shapes.map((shape) => [describeShape(shape), shape] as const);

  it.each(cases([...STEPS, ...HALF.filter((s) => s.format !== 'f32')]))('%s', (_, shape) => check(shape, schedule({})));
  it.each(cases(BLOCKS))('blocks: %s', (_, shape) => check(shape, schedule({ tileK: 32, storeTiles: 2 })));
  it.each(cases([STEPS[3]!, STEPS[4]!, BLOCKS[2]!, BLOCKS[7]!]))('eight subgroups, 2×4: %s', (_, shape) =>
    check(shape, schedule({ subgroupsN: 4, tilesN: 1, tileK: 32 })),
  );
  it.each(cases([STEPS[3]!, STEPS[4]!, BLOCKS[2]!]))('eight subgroups, 4×2, one buffer: %s', (_, shape) => {
    const { buffers: two, ...single } = schedule({ subgroupsM: 4, tilesM: 2, tileK: 32 });
    return check(shape, single);
  });
  it.each(cases([STEPS[3]!, STEPS[5]!, HALF[5]!]))('steps of 64: %s', (_, shape) =>
    check(shape, schedule({ tileK: 64 })),
  );
});

describe('schedules with two buffers', () => {
  const nvidia = targetByName('nvidia-matrix');
  const spec = matmulSpec({ m: 1024, n: 1024, k: 512, type: 'f16', format: 'f16', out: 'f16' });
  const candidates = matmulCandidates(spec, nvidia).filter((s) => s.variant === 'matrix');

  it('are candidates, with four subgroups and with eight', () => {
    const splits = candidates.filter((s) => s.buffers).map((s) => `${s.subgroupsM}×${s.subgroupsN}×${s.tileK}`);
    for (const split of ['2×2×16', '2×2×32', '2×4×32', '4×2×32', '2×4×16']) expect(splits).toContain(split);
    expect(candidates.some((s) => !s.buffers && s.subgroupsM * s.subgroupsN === 8)).toBe(true);
  });

  it('fit the target, and keep twice the tiles', () => {
    for (const s of candidates) {
      const { needs, wgsl } = matmul(spec, nvidia, s);
      expect(needs.workgroupBytes).toBeLessThanOrEqual(nvidia.limits.maxComputeWorkgroupStorageSize);
      expect(wgsl).toContain(`array<vec4<u32>, ${needs.workgroupBytes / 16}>`);
    }
    const [one, two] = [schedule({ tilesM: 4, tilesN: 4 }), schedule({ tilesM: 4, tilesN: 4 })];
    delete one.buffers;
    expect(matmul(spec, nvidia, two).needs.workgroupBytes).toBe(2 * matmul(spec, nvidia, one).needs.workgroupBytes);
  });

  it('are refused where two pairs of tiles do not fit', () => {
    const large = schedule({ subgroupsM: 4, subgroupsN: 2, tilesM: 4, tilesN: 4, tileK: 64 });
    expect(() => matmul(spec, nvidia, large)).toThrow(expect.objectContaining({ code: 'limit-too-small' }));
  });

  it('may be named by a profile, beside those of profiles from before', () => {
    const key = matmulShapeKey(spec, nvidia);
    const chosenWith = (named: object) =>
      chooseMatmulSchedule(spec, { ...nvidia, tuned: { matmul: { [key]: { ...named } } } });
    const two = candidates.find((s) => s.buffers && s.subgroupsN === 4)!;
    expect(chosenWith(two)).toEqual(two);
    const before = {
      ...{ variant: 'matrix', subgroupsM: 1, subgroupsN: 4, tilesM: 4, tilesN: 2 },
      ...{ tileK: 64, storeTiles: 2 },
    };
    expect(chosenWith(before)).toEqual(before);
  });
});
