// Programs from outside: what the validator lets through, what the device check refuses, and that both name the item.

import { describe, expect, it } from 'vitest';
import type { KontextError } from '../../../runtime/src/errors.ts';
import {
  checkProgram,
  constantBytes,
  type DeviceFacts,
  decodeProgram,
  validateProgram,
} from '../../../runtime/src/program/check.ts';
import type { Program, Requirements } from '../../../runtime/src/program/types.ts';
import { affineTwice, sumOfWeights } from '../../support/tiny-program.ts';

function thrown(work: () => unknown): KontextError {
  try {
    work();
  } catch (error) {
    return error as KontextError;
  }
  throw new Error('did not throw');
}

describe('validateProgram', () => {
  it('returns good programs as they are, also through JSON text', () => {
    const program = affineTwice(128);
    expect(validateProgram(program)).toBe(program);
    expect(decodeProgram(JSON.stringify(program))).toEqual(program);
    expect(validateProgram(sumOfWeights(64, 3)).dispatches).toHaveLength(3);
  });

  type Change = (program: Program & Record<string, unknown>) => void;
  for (const [path, change] of [
    ['component', (p) => Object.assign(p, { component: 3 })],
    ['facts', (p) => Object.assign(p, { facts: null })],
    ['requires.features', (p) => Object.assign(p.requires, { features: 'f16' })],
    ['requires.limits.maxBufferSize', (p) => Object.assign(p.requires.limits, { maxBufferSize: '1' })],
    ['requires.subgroupSize.min', (p) => Object.assign(p.requires, { subgroupSize: { max: 8 } })],
    ['ports[1].name', (p) => Object.assign(p.ports[1]!, { name: 'x' })],
    ['ports[0].type', (p) => Object.assign(p.ports[0]!, { type: 'f64' })],
    ['ports[0].bytes', (p) => Object.assign(p.ports[0]!, { bytes: 1.5 })],
    ['slabs[0]', (p) => Object.assign(p.slabs, [-4])],
    ['weights[0].format', (p) => Object.assign(p.weights[0]!, { format: 'q5' })],
    ['weights[0].rows', (p) => Object.assign(p.weights[0]!, { rows: [4, 4] })],
    ['weights[0].bytes', (p) => Object.assign(p.weights[0]!, { bytes: 511 })],
    ['constants[0].data', (p) => Object.assign(p.constants[0]!, { data: null })],
    ['kernels[0].bindings', (p) => Object.assign(p.kernels[0]!, { bindings: ['write'] })],
    ['dispatches[1].kernel', (p) => Object.assign(p.dispatches[1]!, { kernel: 1 })],
    ['dispatches[0].workgroups', (p) => Object.assign(p.dispatches[0]!, { workgroups: [1, 0, 1] })],
    ['dispatches[0].bindings', (p) => p.dispatches[0]!.bindings.pop()],
    ['dispatches[0].bindings[0]', (p) => Object.assign(p.dispatches[0]!.bindings, [['texture', 0, 0, 4]])],
    ['dispatches[0].bindings[0]', (p) => Object.assign(p.dispatches[0]!.bindings, [['port', 2, 0, 4]])],
    ['dispatches[0].bindings[0]', (p) => Object.assign(p.dispatches[0]!.bindings, [['port', 0, 128, 4]])],
    ['dispatches[0].bindings[0]', (p) => Object.assign(p.dispatches[0]!.bindings, [['port', 0, 256, 260]])],
    ['dispatches[0].bindings[0]', (p) => Object.assign(p.dispatches[0]!.bindings, [['port', 0, 0, 6]])],
    ['dispatches[0].flops', (p) => Object.assign(p.dispatches[0]!, { flops: null })],
  ] as [string, Change][]) {
    it(`names ${path}`, () => {
      const program = structuredClone(affineTwice(128)) as Program & Record<string, unknown>;
      change(program);
      const error = thrown(() => validateProgram(program));
      expect(error).toMatchObject({ code: 'program-invalid', details: { path } });
    });
  }

  it('tells another schema from a broken file', () => {
    expect(thrown(() => validateProgram({ ...affineTwice(64), schema: 99 })).code).toBe('program-mismatch');
    for (const value of [null, [], 'program', 3])
      expect(thrown(() => validateProgram(value)).code).toBe('program-invalid');
    expect(thrown(() => decodeProgram('{')).code).toBe('program-invalid');
    expect(thrown(() => constantBytes({ data: '!', bytes: 1 })).code).toBe('program-invalid');
    expect(thrown(() => constantBytes({ data: 'AAAA', bytes: 4 })).code).toBe('program-invalid');
  });
});

describe('checkProgram', () => {
  const matrix = { m: 16, n: 16, k: 16, componentType: 'f16', resultType: 'f32' } as const;
  const device: DeviceFacts = {
    features: ['shader-f16', 'subgroups'],
    limits: { maxBufferSize: 1000, minStorageBufferOffsetAlignment: 32 },
    subgroupSize: { min: 32, max: 32 },
    subgroupMatrixConfigs: [matrix],
  };
  const check = (requires: Partial<Requirements>) => {
    const program = affineTwice(64);
    return () => checkProgram({ ...program, requires: { ...program.requires, ...requires } }, device);
  };

  it('passes what the device has', () => {
    check({
      features: ['shader-f16'],
      limits: { maxBufferSize: 1000, minStorageBufferOffsetAlignment: 256 },
      subgroupSize: { min: 8, max: 32 },
      subgroupMatrix: matrix,
    })();
  });

  it("takes a size that a kernel asks for out of the device's range", () => {
    const program = affineTwice(64);
    const amd: DeviceFacts = {
      ...device,
      features: ['subgroups', 'subgroup-size-control'],
      subgroupSize: { min: 32, max: 64 },
    };
    const asking = (size: number): Partial<Requirements> => ({
      features: ['subgroups', 'subgroup-size-control'],
      subgroupSize: { min: size, max: size },
    });
    const on = (facts: DeviceFacts, size: number) => () =>
      checkProgram({ ...program, requires: { ...program.requires, ...asking(size) } }, facts);
    on(amd, 32)();
    expect(thrown(on(amd, 16)).code).toBe('program-mismatch');
    expect(thrown(on(device, 32)).code).toBe('feature-missing');
  });

  it('names the exact missing item', () => {
    expect(thrown(check({ features: ['subgroups', 'timestamp-query'] }))).toMatchObject({
      code: 'feature-missing',
      details: { feature: 'timestamp-query' },
    });
    expect(thrown(check({ limits: { maxBufferSize: 1001 } }))).toMatchObject({
      code: 'limit-too-small',
      details: { limit: 'maxBufferSize', needed: 1001, available: 1000 },
    });
    expect(thrown(check({ limits: { minStorageBufferOffsetAlignment: 16 } })).code).toBe('limit-too-small');
    expect(thrown(check({ limits: { maxSomethingNew: 1 } })).message).toContain('maxSomethingNew');
    expect(thrown(check({ subgroupSize: { min: 64, max: 64 } })).code).toBe('program-mismatch');
    expect(thrown(check({ subgroupSize: { min: 16, max: 16 } })).code).toBe('program-mismatch');
    expect(thrown(check({ subgroupMatrix: { ...matrix, resultType: 'f16' } })).message).toContain('16×16×16');
  });
});
