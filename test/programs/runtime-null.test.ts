// The runtime on Dawn's null backend: a step of real size (its cost is `npm run bench:encode`), out of memory, placeholders, many programs.

import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest';
import type { KontextError } from '../../runtime/src/errors.ts';
import { Executable } from '../../runtime/src/execute/executable.ts';
import { SlabPool } from '../../runtime/src/execute/slabs.ts';
import type { KontextDevice } from '../../runtime/src/gpu/device.ts';
import { openDevice } from '../../runtime/src/gpu/open.ts';
import { type BufferRange, PROGRAM_SCHEMA, type Program } from '../../runtime/src/program/types.ts';
import { WeightStore } from '../../runtime/src/weights/store.ts';
import { affineTwice, f32Weight, sumOfWeights } from '../support/tiny-program.ts';
import { f32Tensor, memorySource } from '../support/weights.ts';

let gpu: KontextDevice;
beforeAll(async () => {
  gpu = await openDevice({ backend: 'null' });
});
afterAll(() => {
  expect(gpu.uncapturedErrors).toEqual([]);
  gpu.destroy();
});

/** As many dispatches, kernels and bindings as a denoise step of FLUX has, on buffers small enough for the null backend. */
function stepSized(dispatches = 900, kernels = 25): Program {
  const bytes = 4096;
  const bindings = (i: number): BufferRange[] => [
    ['slab', i % 2, 0, bytes],
    ['weight', i, 0, bytes],
    ['weight', (i + 1) % dispatches, 0, bytes],
    ['port', 0, 256 * (i % 8), 256],
    ['constant', 0, 0, 16],
    ['slab', 2 + (i % 2), 0, bytes],
  ];
  return {
    schema: PROGRAM_SCHEMA,
    component: 'denoise',
    label: 'denoise stand-in',
    requires: { features: [], limits: {} },
    ports: [{ name: 'modulation', direction: 'in', type: 'f32', shape: [512], bytes: 2048 }],
    slabs: [bytes, bytes, bytes, bytes],
    weights: Array.from({ length: dispatches }, (_, i) => f32Weight(`w${i}`, 1024)),
    constants: [{ type: 'f32', data: 'AAAAAAAAAAAAAAAAAAAAAA==', bytes: 16 }],
    kernels: Array.from({ length: kernels }, (_, i) => ({
      label: `kernel ${i}`,
      wgsl: `
@group(0) @binding(0) var<storage, read> a: array<f32>;
@group(0) @binding(1) var<storage, read> b: array<f32>;
@group(0) @binding(2) var<storage, read> c: array<f32>;
@group(0) @binding(3) var<storage, read> d: array<f32>;
@group(0) @binding(4) var<storage, read> e: array<f32>;
@group(0) @binding(5) var<storage, read_write> y: array<f32>;
@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
  y[id.x] = a[id.x] * b[id.x] + c[id.x] * d[0] + e[0] + ${i}.0;
}`,
      bindings: ['read', 'read', 'read', 'read', 'read', 'read_write'],
    })),
    dispatches: Array.from({ length: dispatches }, (_, i) => ({
      label: `blocks.${i}`,
      kernel: i % kernels,
      bindings: bindings(i),
      workgroups: [16, 1, 1],
      flops: 1e9,
      bytes: 1e6,
    })),
    facts: {},
  };
}

describe('a step of 900 dispatches', () => {
  it('is encoded whole, again and again, and its cost reported', async () => {
    const exe = await Executable.create(gpu, stepSized());
    for (let i = 0; i < 3; i++) {
      const { slices, encodeMilliseconds } = await exe.run();
      expect(slices).toBeGreaterThan(0);
      expect(encodeMilliseconds).toBeGreaterThan(0);
    }
    await exe.dispose();
    expect(gpu.memory).toEqual({ buffers: 0, bytes: 0 });
  });
});

describe('memory', () => {
  it('an allocation that does not fit is an out-of-memory error with label and bytes, and frees what came before', async () => {
    // The null backend has 512 MiB in all.
    const program = sumOfWeights(32 * 2 ** 20, 5);
    program.dispatches = [];
    program.ports = program.weights.map((_, i) => ({
      name: `p${i}`,
      direction: 'in',
      type: 'f32',
      shape: [32 * 2 ** 20],
      bytes: 128 * 2 ** 20,
    }));
    program.weights = [];
    const error = await Executable.create(gpu, program).catch((e: KontextError) => e);
    expect(error).toMatchObject({ code: 'out-of-memory', details: { bytes: 128 * 2 ** 20 } });
    expect((error as KontextError).details.label).toMatch(/port p\d/);
    expect(gpu.memory).toEqual({ buffers: 0, bytes: 0 });
  });

  it('a buffer over the device limit is refused before it is made', async () => {
    const program = affineTwice(64);
    program.slabs[0] = 2 ** 31;
    const weights = new WeightStore(gpu, await memorySource({ w: f32Tensor([64], () => 0) }));
    const error = await Executable.create(gpu, program, { weights }).catch((e: KontextError) => e);
    expect(error).toMatchObject({ code: 'limit-too-small', details: { limit: 'maxBufferSize', needed: 2 ** 31 } });
    await weights.evict();
    expect(gpu.memory).toEqual({ buffers: 0, bytes: 0 });
  });

  it('stays flat over a hundred programs made, run and disposed', async () => {
    const pool = new SlabPool(gpu);
    const weights = new WeightStore(gpu, await memorySource({ w: f32Tensor([64], () => 0) }));
    let flat: typeof gpu.memory | undefined;
    for (let i = 0; i < 100; i++) {
      const exe = await Executable.create(gpu, affineTwice(64), { weights, slabs: pool });
      await exe.run();
      await exe.dispose();
      flat ??= gpu.memory;
    }
    expect(gpu.memory).toEqual(flat);
    await weights.evict();
    expect(gpu.memory).toEqual({ buffers: 0, bytes: 0 });
  });
});

describe('order', () => {
  it('a run cancelled while it waits for another leaves the pool usable', async () => {
    const pool = new SlabPool(gpu);
    const exe = await Executable.create(gpu, stepSized(40, 2), { slabs: pool });
    const controller = new AbortController();
    const first = exe.run();
    const second = exe.run({ signal: controller.signal }).catch((e: KontextError) => e.code);
    const third = exe.run();
    controller.abort();
    expect(await second).toBe('aborted');
    await first;
    await third;
    const disposed = exe.dispose();
    await expect(exe.run()).rejects.toMatchObject({ code: 'closed' });
    await disposed;
  });

  it('cancelling create frees everything', async () => {
    const controller = new AbortController();
    const weights = new WeightStore(gpu, await memorySource({ w: f32Tensor([64], () => 0) }));
    const creating = Executable.create(gpu, affineTwice(64), {
      weights,
      signal: controller.signal,
      onProgress: () => controller.abort(),
    });
    await expect(creating).rejects.toMatchObject({ code: 'aborted' });
    await weights.evict();
    expect(gpu.memory).toEqual({ buffers: 0, bytes: 0 });
  });

  it('a program with weights needs a store of the same device', async () => {
    const other = await openDevice({ backend: 'null' });
    const weights = new WeightStore(other, await memorySource({ w: f32Tensor([64], () => 0) }));
    await expect(Executable.create(gpu, affineTwice(64), { weights })).rejects.toMatchObject({
      code: 'invalid-request',
    });
    other.destroy();
  });
});

describe('KONTEXT_DEBUG', () => {
  it('prints plan, kernels and times when asked, nothing otherwise', async () => {
    const print = vi.spyOn(console, 'error').mockImplementation(() => {});
    try {
      const quiet = await Executable.create(gpu, stepSized(3, 1));
      await quiet.run();
      await quiet.dispose();
      expect(print).not.toHaveBeenCalled();
      vi.stubGlobal('KONTEXT_DEBUG', 'plan,wgsl,submit');
      const program = stepSized(3, 1);
      program.kernels[0]!.wgsl += '// not in the cache';
      const loud = await Executable.create(gpu, program);
      await loud.run();
      await loud.dispose();
      const text = print.mock.calls.map(([line]) => String(line)).join('\n');
      expect(text).toContain('3 dispatches of 1 kernels');
      expect(text).toContain('// not in the cache');
      expect(text).toMatch(/GFLOP\/s[\s\S]*blocks\.N/);
    } finally {
      vi.unstubAllGlobals();
      print.mockRestore();
    }
  });
});
