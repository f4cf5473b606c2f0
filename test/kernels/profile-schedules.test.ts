// Every schedule that a GPU's profile gets for the real model, run here at a small ragged shape against the float64 oracle.
// Choosers take shape and profile, so the real shapes pick the schedules, and the schedules then compute small ones.
// Not here: matrix instructions (`npm run test:matrix`), few rows (matmul.test.ts), and exchanges over more lanes than
// the adapter's subgroups have, which are listed.
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type AttentionSpec, chooseAttentionSchedule } from '../../kernels-codegen/src/kernels/attention/index.ts';
import type { TiledAttention } from '../../kernels-codegen/src/kernels/attention/tiled.ts';
import { type Conv2dSchedule, chooseConv2dSchedule } from '../../kernels-codegen/src/kernels/conv2d/index.ts';
import { chooseMatmulSchedule, type MatmulSchedule } from '../../kernels-codegen/src/kernels/matmul/index.ts';
import { TARGETS } from '../../kernels-codegen/src/targets/profiles.ts';
import { hasTier, type TargetProfile } from '../../kernels-codegen/src/targets/types.ts';
import { reportAdapter } from '../../runtime/src/gpu/report.ts';
import { openTestDevice, type TestDevice } from '../support/gpu.ts';
import { gatedResidual, matmulSpec } from '../support/matmul-shapes.ts';
import { checkConv2d, conv2dSpec } from '../support/oracle-conv2d.ts';
import { checkMatmul, matmulTolerance } from '../support/oracle-matmul.ts';
import { view } from '../support/views.ts';
import { checkAttention } from './attention-oracle.ts';

type Element = 'f32' | 'f16';
const GPUS = TARGETS.filter((t) => !t.software);
const elementOf = (target: TargetProfile): Element => (hasTier(target, 'f16') ? 'f16' : 'f32');

/** Linears of the transformer, T5, CLIP and the autoencoder: m, n, k. */
const LINEARS: [number, number, number | number[]][] = [
  [8704, 9216, 3072],
  [8704, 3072, [3072, 12288]],
  [512, 3072, 4096],
  [4096, 64, 3072],
  [77, 768, 768],
  [77, 3072, 768],
  [512, 10240, 4096],
  [2 ** 20, 128, 256],
];
const CONVOLUTIONS = [
  { height: 1024, width: 1024, cin: 128, cout: 128 },
  { height: 128, width: 128, cin: 512, cout: 512 },
  { height: 1024, width: 1024, cin: 128, cout: 3 },
  { height: 1024, width: 1024, cin: 4, cout: 128 },
  { height: 128, width: 128, cin: 512, cout: 32 },
  { height: 1024, width: 1024, cin: 128, cout: 128, stride: 2 as const },
];
/** Heads, their size, tokens: the transformer, T5, CLIP, the autoencoder's single wide head, and a small head. */
const ATTENTIONS: [number, number, number][] = [
  [24, 128, 8704],
  [64, 64, 512],
  [12, 64, 77],
  [1, 512, 16384],
  [8, 32, 4096],
];

/** Distinct values by their text, with the names of the profiles that have them. */
function distinct<T>(items: [name: string, value: T][]): { title: string; value: T }[] {
  const found = new Map<string, { names: Set<string>; value: T }>();
  for (const [name, value] of items) {
    const key = JSON.stringify(value);
    const known = found.get(key) ?? { names: new Set(), value };
    found.set(key, { ...known, names: known.names.add(name) });
  }
  return [...found].map(([key, { names, value }]) => ({
    title: `${[...names].join(', ')}: ${key.replace(/["{}]/g, '')}`,
    value,
  }));
}

const matmuls = distinct(
  GPUS.flatMap((target) =>
    LINEARS.map(([m, n, k]): [string, { type: Element; schedule: MatmulSchedule }] => {
      const type = elementOf(target);
      const normalised = typeof k === 'number' ? true : undefined;
      const spec = matmulSpec({ m, n, k, type, format: type, out: type, normalised, epilogue: gatedResidual });
      return [target.name, { type, schedule: chooseMatmulSchedule(spec, target) }];
    }),
  ),
).filter(({ value }) => value.schedule.variant === 'tiled');

const convolutions = distinct(
  GPUS.flatMap((target) =>
    CONVOLUTIONS.map((shape): [string, { type: Element; schedule: Conv2dSchedule }] => {
      const type = elementOf(target);
      const spec = conv2dSpec({ ...shape, x: type, weight: type, out: type, normed: shape.cin > 4 ? true : undefined });
      return [target.name, { type, schedule: chooseConv2dSchedule(spec, target) }];
    }),
  ),
).filter(({ value }) => value.schedule.variant === 'tiled');

interface AttentionChoice {
  type: Element;
  size: number;
  schedule: TiledAttention;
}

const attentions = distinct(
  GPUS.flatMap((target) =>
    ATTENTIONS.flatMap(([heads, size, tokens]): [string, AttentionChoice][] => {
      const type = elementOf(target);
      const m = view(type, tokens, heads * size);
      const spec: AttentionSpec = { heads, size, q: m, k: m, v: m, out: m, scale: 1, causal: false };
      const schedule = chooseAttentionSchedule(spec, target);
      return schedule.variant === 'tiled' ? [[target.name, { type, size, schedule }]] : [];
    }),
  ),
);

describe('the schedules of the known GPUs', { timeout: 600_000 }, () => {
  let gpu: TestDevice;
  let lanes = 0;
  beforeAll(async () => {
    gpu = await openTestDevice();
    lanes = reportAdapter(gpu.adapter).subgroupSize?.min ?? 0;
  });
  afterAll(() => expect(gpu.errors).toEqual([]));

  const targetOf = (type: Element): TargetProfile => ({
    name: 'test',
    tier: type === 'f16' ? 'subgroups' : 'f32',
    limits: GPUS.find(({ name }) => name === 'nvidia')!.limits,
    subgroupSize: { min: lanes, max: lanes },
    // Loops that a CPU's driver cannot unroll: it would compile for seconds. Nothing else of a given schedule changes.
    software: true,
  });
  const offers = (type: Element): boolean => type === 'f32' || gpu.adapter.features.has('shader-f16');

  const named = <T>(list: { title: string; value: T }[]) => list.map(({ title, value }) => [title, value] as const);

  it.each(named(matmuls))('matmul %s', (_, { type, schedule }) => {
    if (!offers(type)) return;
    const packed = schedule.variant === 'tiled' ? schedule.packed : undefined;
    const shape = { m: 70, n: 69, k: [24, 20], type, format: type, out: type, normalised: packed };
    const spec = matmulSpec({ ...shape, epilogue: gatedResidual });
    return checkMatmul(gpu, spec, targetOf(type), matmulTolerance(spec, type === 'f16' ? 1 : 0, packed), schedule);
  });

  it.each(named(convolutions))('conv2d %s', (_, { type, schedule }) => {
    if (!offers(type)) return;
    const normed = schedule.variant === 'tiled' ? schedule.packed : undefined;
    const shape = { height: 9, width: 11, cin: 12, cout: 37, x: type, weight: type, out: type, normed };
    return checkConv2d(gpu, shape, targetOf(type), schedule);
  });

  it.each(named(attentions))('attention %s', (_, { type, size, schedule }) => {
    if (!offers(type) || (schedule.exchange === 'subgroup' && schedule.threadsK > lanes)) return;
    return checkAttention(gpu, targetOf(type), { heads: 1, size, queries: 37, keys: 45, type, schedule });
  });

  it('leaves out only exchanges over more lanes than lavapipe has', () => {
    const wide = attentions.filter(({ value: { schedule: s } }) => s.exchange === 'subgroup' && s.threadsK > 8);
    expect(new Set(wide.map(({ value }) => value.schedule.threadsK))).toEqual(new Set([16, 32]));
    expect(new Set(wide.flatMap(({ title }) => title.split(':')[0]!.split(', ')))).toEqual(
      // nvidia-matrix has the memory to take heads of 512 on matrices; AMD's profiles, with 32 KiB, have not.
      new Set(['apple-m-matrix', 'nvidia', 'amd-rdna', 'amd-rdna3', 'amd-rdna4']),
    );
  });
});
