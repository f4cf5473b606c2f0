// Convolutions against a float64 oracle: every tier, geometry, variant and way of reading and storing.
// The matrix variant, which needs another driver, has its own file.
import { beforeAll, describe, expect, it } from 'vitest';
import { acc, mul } from '../../kernels-codegen/src/expr/expr.ts';
import {
  type Conv2dSchedule,
  chooseConv2dSchedule,
  conv2d,
  conv2dCandidates,
  conv2dShapeKey,
} from '../../kernels-codegen/src/kernels/conv2d/index.ts';
import { BASELINE_LIMITS, type TargetProfile, type Tier } from '../../kernels-codegen/src/targets/types.ts';
import { sameSchedule } from '../../kernels-codegen/src/tune/tuned.ts';
import type { WeightFormat } from '../../runtime/src/program/types.ts';
import { lanesOf, openTestDevice, type TestDevice } from '../support/gpu.ts';
import { CONV2D_SHAPES, type Conv2dShape, checkConv2d, conv2dSpec } from '../support/oracle-conv2d.ts';
import { runSupported } from '../support/run-supported.ts';
import { decode, encode, roundTo } from '../support/views.ts';

const profile = (tier: Tier): TargetProfile => ({ name: 'test', tier, limits: BASELINE_LIMITS });
// Small tiles keep the software driver's compiler quick and put every shape over several workgroups and ragged edges.
const small: Conv2dSchedule = { variant: 'tiled', threadsM: 8, threadsN: 2, rows: 2, cols: 4, tileK: 8 };

describe('conv2d', () => {
  let gpu: TestDevice;
  beforeAll(async () => {
    gpu = await openTestDevice();
  });
  // One subgroup a workgroup: pixels are handed round.
  const handing = (): TargetProfile => {
    const lanes = lanesOf(gpu);
    return { ...profile('f32'), software: true, subgroupSize: { min: lanes, max: lanes } };
  };
  const fitted = (schedule: Conv2dSchedule): Conv2dSchedule =>
    schedule.variant === 'direct' && schedule.broadcast ? { ...schedule, threads: lanesOf(gpu) } : schedule;

  for (const [name, shape] of Object.entries(CONV2D_SHAPES)) {
    it(`direct: ${name}`, () => checkConv2d(gpu, { ...shape, weight: 'f16' }, { ...profile('f32'), software: true }));
    it(`direct, handed round: ${name}`, () => checkConv2d(gpu, { ...shape, weight: 'f16' }, handing()));
  }

  // Geometry is shared with the direct variant; here what tiles make of it: steps that straddle taps, ragged blocks.
  const tiled = [
    'non-square, aligned',
    'ragged pixels and channels',
    'one pixel',
    'RGB in',
    'stride 2, odd sides',
    'upsampled',
    'one by one',
    'normalised',
    'output rows that break vectors',
  ] as const;
  it.each(tiled)('tiled f32: %s', (name) =>
    checkConv2d(gpu, { ...CONV2D_SHAPES[name], weight: 'f16' }, profile('f32'), small),
  );
  const narrow = [
    'ragged pixels and channels',
    'RGB out',
    'normalised, RGB out',
    'output rows that break vectors',
  ] as const;
  it.each(narrow)('tiled f16: %s', (name) =>
    checkConv2d(gpu, { ...CONV2D_SHAPES[name], x: 'f16', weight: 'f16', out: 'f16' }, profile('f16'), small),
  );
  it('direct f16, added to an f32 output in place', () =>
    checkConv2d(
      gpu,
      { ...CONV2D_SHAPES['added to the output in place'], x: 'f16', weight: 'f16' },
      { ...profile('f16'), software: true },
    ));

  const formats: [Tier, 'f32' | 'f16', WeightFormat][] = [
    ['f32', 'f32', 'f32'],
    ['f16', 'f32', 'f16'],
    ['f16', 'f16', 'q8'],
    ['subgroups', 'f16', 'f16'],
  ];
  it.each(formats)('tier %s, %s image, %s weight', (tier, x, weight) =>
    checkConv2d(gpu, { height: 5, width: 4, cin: 32, cout: 12, x, weight }, profile(tier), small),
  );

  it('normalises an f32 image into an f16 tile', () =>
    checkConv2d(
      gpu,
      { height: 6, width: 6, cin: 32, cout: 16, normalised: true, weight: 'f16' },
      profile('f16'),
      small,
    ));

  const schedules: Conv2dSchedule[] = [
    { variant: 'tiled', threadsM: 8, threadsN: 4, rows: 4, cols: 4, tileK: 12 },
    { variant: 'tiled', threadsM: 4, threadsN: 4, rows: 1, cols: 8, tileK: 20 },
    { variant: 'tiled', threadsM: 32, threadsN: 1, rows: 1, cols: 4, tileK: 4 },
    { variant: 'direct', threads: 8, rows: 5 },
    { variant: 'direct', threads: 8, rows: 11, broadcast: true },
  ];
  it.each(schedules)('schedule %o', (schedule) =>
    checkConv2d(gpu, { height: 9, width: 15, cin: 16, cout: 36, weight: 'f32' }, handing(), fitted(schedule)),
  );

  it('the schedule it chooses for a large layer', () => {
    const shape: Conv2dShape = { height: 12, width: 16, cin: 16, cout: 64, weight: 'f16', x: 'f16' };
    const large = conv2dSpec({ ...shape, height: 512, width: 512, cin: 128, cout: 128 });
    return checkConv2d(gpu, shape, profile('f16'), chooseConv2dSchedule(large, profile('f16')));
  });

  it.each([small, schedules[3]!, schedules[4]!])(
    'folds a grid with more pixel blocks than one dimension holds: %o',
    (schedule) => {
      const limits = { ...BASELINE_LIMITS, maxComputeWorkgroupsPerDimension: 3 };
      const shape: Conv2dShape = { height: 10, width: 16, cin: 4, cout: 4, weight: 'f32' };
      return checkConv2d(gpu, shape, { ...handing(), limits }, fitted(schedule));
    },
  );

  it('keeps f16 sums from overflowing', async () => {
    // 9 · 128 products of 100 · 10 sum to 1 152 000, far above f16; scaled back by the epilogue.
    const spec = conv2dSpec({ height: 3, width: 3, cin: 128, cout: 4, x: 'f16', weight: 'f16', out: 'f16' });
    const kernel = conv2d({ ...spec, epilogue: { expr: mul(acc, 2 ** -10), operands: [] } }, profile('f16'), small);
    const result = await runSupported(gpu, kernel, [
      encode('f16', new Float64Array(9 * 128).fill(100)),
      encode('f16', new Float64Array(4 * 9 * 128).fill(10)),
      new Uint16Array(9 * 4),
    ]);
    expect(decode('f16', result.get(2)!)[4 * 4]).toBe(roundTo('f16', 1125));
  });

  // The VAE's layers at 1024²: the schedule must use the whole tile and fit the default limits.
  const real: [string, Conv2dShape, number][] = [
    ['up.0 128→128', { height: 1024, width: 1024, cin: 128, cout: 128 }, 1],
    ['up.1 upsample 256→256', { height: 512, width: 512, cin: 256, cout: 256, upsample: 2 }, 1],
    ['mid 512→512', { height: 128, width: 128, cin: 512, cout: 512 }, 1],
    ['conv_out 128→3', { height: 1024, width: 1024, cin: 128, cout: 3 }, 4 / 3],
    ['conv_in 4→128', { height: 1024, width: 1024, cin: 4, cout: 128 }, 1],
    ['moments 512→32', { height: 128, width: 128, cin: 512, cout: 32 }, 1],
    ['down.0 stride 2', { height: 1024, width: 1024, cin: 128, cout: 128, stride: 2 }, 1],
  ];
  it.each(real)('chooses a schedule without waste for %s', (_, shape, padding) => {
    for (const tier of ['f32', 'f16', 'subgroup-matrix'] as const) {
      const half = tier === 'f32' ? 'f32' : 'f16';
      const spec = conv2dSpec({ ...shape, x: half, weight: 'f16', out: half });
      const s = chooseConv2dSchedule(spec, profile(tier));
      const kernel = conv2d(spec, profile(tier), s);
      expect(Math.max(...kernel.workgroups)).toBeLessThanOrEqual(65535);
      expect(kernel.needs.workgroupBytes).toBeLessThanOrEqual(16384);
      expect(kernel.needs.invocations).toBeLessThanOrEqual(256);
      if (s.variant !== 'tiled') throw new Error(`unexpected ${s.variant}`);
      const tiles = kernel.workgroups[0] * s.threadsN * s.cols * kernel.workgroups[1] * s.threadsM * s.rows;
      expect(tiles / (spec.outHeight * spec.outWidth * spec.cout)).toBeCloseTo(padding, 6);
      expect(kernel.flops).toBe(2 * spec.outHeight * spec.outWidth * spec.cout * 9 * spec.cin);
    }
  });

  it('takes a tuned schedule', () => {
    const spec = conv2dSpec({ height: 8, width: 8, cin: 16, cout: 16 });
    const estimate = chooseConv2dSchedule(spec, profile('f32'));
    const other = conv2dCandidates(spec, profile('f32')).find((s) => !sameSchedule(s, estimate))!;
    const tuned = { conv2d: { [conv2dShapeKey(spec, profile('f32'))]: { ...other } } };
    expect(chooseConv2dSchedule(spec, { ...profile('f32'), tuned })).toEqual(other);
    // A schedule that this version does not know is passed over.
    const unknown = { conv2d: { [conv2dShapeKey(spec, profile('f32'))]: { ...other, rows: 5 } } };
    expect(chooseConv2dSchedule(spec, { ...profile('f32'), tuned: unknown })).toEqual(estimate);
  });

  it('refuses contradictions and what the device lacks', () => {
    const shape: Conv2dShape = { height: 4, width: 4, cin: 8, cout: 8 };
    expect(() => conv2d(conv2dSpec({ ...shape, cin: 6 }), profile('f32'))).toThrow(/multiple of 4/);
    expect(() => conv2d(conv2dSpec({ ...shape, x: 'f16' }), profile('f32'))).toThrow(/make these tensors f32/);
    expect(() => conv2d(conv2dSpec({ ...shape, weight: 'q4' }), profile('f32'))).toThrow(/multiple of 32/);
    expect(() => conv2d(conv2dSpec({ ...shape, xAt: { rowStride: 9 } }), profile('f32'))).toThrow(/multiple of four/);
    const big: Conv2dSchedule = { variant: 'tiled', threadsM: 16, threadsN: 16, rows: 8, cols: 8, tileK: 64 };
    expect(() => conv2d(conv2dSpec(shape), profile('f32'), big)).toThrow(/bytes of workgroup memory/);
  });
});
