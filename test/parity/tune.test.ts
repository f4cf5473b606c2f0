// Tuning on the adapter at hand: a wrong kernel never wins, whatever wins is right, and idle time keeps what it found.
import { afterAll, describe, expect, it, vi } from 'vitest';
import { type CompileRequest, compile } from '../../kernels-codegen/src/compile.ts';
import { FLUX1_KONTEXT_DEV } from '../../kernels-codegen/src/models/specs.ts';
import { targetFor } from '../../kernels-codegen/src/targets/profiles.ts';
import type { Candidate } from '../../kernels-codegen/src/tune/shapes.ts';
import * as shapes from '../../kernels-codegen/src/tune/shapes.ts';
import { openDevice } from '../../runtime/src/index.ts';
import { justInTime } from '../../sdk/src/kontext/programs.ts';
import { BackgroundTuner } from '../../sdk/src/tune/background.ts';
import { distance, ShapeBench } from '../../sdk/src/tune/bench.ts';
import { measureShape } from '../../sdk/src/tune/measure.ts';
import { checkTuning } from '../../sdk/src/tune/profile.ts';
import { gainOf, profileOf } from '../../sdk/src/tune/tune.ts';

const planted = vi.hoisted(() => ({ wrong: undefined as Candidate | undefined }));
vi.mock('../../kernels-codegen/src/tune/shapes.ts', async (original) => {
  const real = await original<typeof shapes>();
  const candidatesOf: typeof real.candidatesOf = (shape, target) => {
    const [estimate, ...others] = real.candidatesOf(shape, target);
    // A few candidates are enough here, and the planted one first.
    return [estimate, ...(planted.wrong ? [planted.wrong] : []), ...others.slice(0, 2)];
  };
  return { ...real, candidatesOf };
});

const gpu = await openDevice();
const target = targetFor(gpu.report);
const spec = {
  ...FLUX1_KONTEXT_DEV.transformer,
  hidden: 128,
  heads: 2,
  axes: [8, 28, 28],
  doubleBlocks: 1,
  singleBlocks: 1,
  textWidth: 64,
  pooledWidth: 32,
};
const grid = { height: 4, width: 4 };
const request = {
  component: 'denoise',
  spec,
  textTokens: 16,
  image: grid,
  references: [grid],
  target,
} as CompileRequest;
const matmuls = shapes.tunableShapes([request]).filter(({ family }) => family === 'matmul');
afterAll(() => {
  expect(gpu.uncapturedErrors).toEqual([]);
  gpu.destroy();
});

describe('measureShape', () => {
  it('passes over a kernel that is fast and wrong', { timeout: 300_000 }, async () => {
    const shape = matmuls[0]!;
    const [estimate] = shapes.candidatesOf(shape, target);
    // One workgroup only: most of the result stays 0, in no time.
    planted.wrong = { schedule: { variant: 'none' }, kernel: () => ({ ...estimate.kernel(), workgroups: [1, 1, 1] }) };
    const result = await measureShape(gpu, shape, { target, budgetMs: 60_000 }).finally(() => {
      planted.wrong = undefined;
    });
    expect(result.tried).toBe(3);
    expect(result.refused).toBe(1);
    expect(result.best?.schedule).not.toEqual({ variant: 'none' });
    expect(result.estimateMs).toBeGreaterThan(0);
    if (result.best) expect(result.best.milliseconds).toBeLessThan(result.estimateMs);
    const profile = profileOf([result], gpu.report);
    expect(checkTuning(JSON.parse(JSON.stringify(profile)))).toEqual(profile);
    expect(gainOf([result])).toBeGreaterThanOrEqual(1);
  });

  it('says so when the estimate’s own kernel is wrong', { timeout: 300_000 }, async () => {
    const shape = matmuls[0]!;
    const plain = shapes.plainKernel(shape, target);
    const broken = vi.spyOn(ShapeBench.prototype, 'result').mockImplementation(async (bound) => {
      const value = bound.source.label === plain.label ? 1 : 2;
      return { first: Float64Array.of(value), last: Float64Array.of(value) };
    });
    await expect(measureShape(gpu, shape, { target, budgetMs: 1 })).rejects.toMatchObject({ code: 'gpu-validation' });
    broken.mockRestore();
  });
});

it('counts what is not a number as far off', () => {
  expect(distance(Float64Array.of(1, Number.NaN), Float64Array.of(1, 2))).toBe(Number.POSITIVE_INFINITY);
  expect(distance(Float64Array.of(0, 0), Float64Array.of(0, 0))).toBe(Number.POSITIVE_INFINITY);
  expect(distance(Float64Array.of(1, 2), Float64Array.of(1, 2))).toBe(0);
});

describe('BackgroundTuner', () => {
  it('measures when nothing else is to be done, keeps it, and the next load uses it', {
    timeout: 300_000,
  }, async () => {
    const kept = new Map<string, string>();
    const store = {
      read: async (name: string) => kept.get(name),
      write: async (name: string, text: string) => void kept.set(name, text),
    };
    const only = { ...request, spec: { ...spec, singleBlocks: 0 } } as CompileRequest & { component: 'denoise' };
    const tuner = await BackgroundTuner.create({}, store, 1);
    const programs = tuner.programs(justInTime());
    const first = await programs.target(gpu.report, 'auto');
    expect(first.tuned).toBeUndefined();
    await programs.program({ ...only, target: first });
    const busy = tuner.begin();
    await new Promise((resolve) => setTimeout(resolve, 50));
    expect(kept.size).toBe(0);
    busy();
    await vi.waitFor(() => expect(kept.size).toBe(1), { timeout: 250_000, interval: 100 });
    await tuner.close();
    const [text] = [...kept.values()];
    const profile = checkTuning(JSON.parse(text!));
    expect(profile.gains.length).toBeGreaterThan(0);
    const next = await BackgroundTuner.create({}, store, 1);
    const tuned = await next.programs(justInTime()).target(gpu.report, 'auto');
    expect(tuned.tuned).toEqual(profile.tuned);
    expect(compile({ ...only, target: tuned }).dispatches).toHaveLength(
      compile({ ...only, target: first }).dispatches.length,
    );
    await next.close();
  });
});
