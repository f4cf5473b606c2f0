// What may be measured: the products of programs, the schedules of each, and profiles that choose among them.
import { describe, expect, it } from 'vitest';
import { compile } from '../../../kernels-codegen/src/compile.ts';
import { FLUX1_KONTEXT_DEV } from '../../../kernels-codegen/src/models/specs.ts';
import { TARGETS, targetByName } from '../../../kernels-codegen/src/targets/profiles.ts';
import { candidatesOf, operandsOf, plainKernel, tunableShapes } from '../../../kernels-codegen/src/tune/shapes.ts';
import { sameSchedule } from '../../../kernels-codegen/src/tune/tuned.ts';

const small = {
  ...FLUX1_KONTEXT_DEV.transformer,
  hidden: 256,
  heads: 2,
  doubleBlocks: 2,
  singleBlocks: 3,
  textWidth: 128,
};
const grid = { height: 8, width: 8 };
const requestsFor = (name: string) => {
  const target = targetByName(name);
  return [
    { component: 'denoise', spec: small, textTokens: 32, image: grid, references: [grid], target },
    { component: 'vae-decode', spec: FLUX1_KONTEXT_DEV.vae, height: 64, width: 64, target },
    { component: 't5', spec: { ...FLUX1_KONTEXT_DEV.t5, layers: 1 }, tokens: 64, target },
  ] as Parameters<typeof tunableShapes>[0];
};

describe.each(TARGETS.map(({ name }) => name))('on %s', (name) => {
  const target = targetByName(name);
  const shapes = tunableShapes(requestsFor(name));

  it('lists each shape once, the most work first, and misses no product', () => {
    expect(new Set(shapes.map(({ family, key }) => `${family} ${key}`)).size).toBe(shapes.length);
    const work = shapes.map(({ flops, dispatches }) => flops * dispatches);
    expect(work).toEqual([...work].sort((a, b) => b - a));
    const products = requestsFor(name)
      .flatMap((request) => compile(request).dispatches)
      .reduce((sum, { flops }) => sum + flops, 0);
    // The rest are norms and pointwise work.
    expect(work.reduce((a, b) => a + b)).toBeGreaterThan(0.97 * products);
    expect(work.reduce((a, b) => a + b)).toBeLessThanOrEqual(products);
  });

  it('begins with the estimate’s choice and offers each other schedule once, as kernels the target can hold', () => {
    for (const shape of shapes) {
      const candidates = candidatesOf(shape, target);
      for (const [i, { schedule, kernel }] of candidates.entries()) {
        expect(candidates.findIndex((other) => sameSchedule(other.schedule, schedule))).toBe(i);
        const { needs, bindings } = kernel();
        expect(needs.workgroupBytes).toBeLessThanOrEqual(target.limits.maxComputeWorkgroupStorageSize);
        expect(needs.invocations).toBeLessThanOrEqual(target.limits.maxComputeInvocationsPerWorkgroup);
        expect(bindings).toHaveLength(operandsOf(shape).length);
      }
      expect(plainKernel(shape, target).bindings).toHaveLength(operandsOf(shape).length);
    }
  });

  it('compiles programs with any candidate of a profile, and changes that product alone', () => {
    const [request] = requestsFor(name);
    for (const shape of tunableShapes([request!])) {
      const last = candidatesOf(shape, target).at(-1)!;
      const tuned = { [shape.family]: { [shape.key]: last.schedule } };
      const program = compile({ ...request!, target: { ...target, tuned } });
      expect(program.dispatches).toHaveLength(compile(request!).dispatches.length);
      const label = last.kernel().label;
      expect(program.kernels.map((kernel) => kernel.label)).toContain(label);
    }
  });
});

it('an empty profile changes no byte', () => {
  const [request] = requestsFor('nvidia-matrix');
  expect(compile({ ...request!, target: { ...request!.target, tuned: {} } })).toEqual(compile(request!));
});
