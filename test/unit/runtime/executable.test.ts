// The executable on a real (software) adapter: values, slicing, sharing, cancelling, errors with labels, device loss.

import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import type { KontextError } from '../../../runtime/src/errors.ts';
import { Executable } from '../../../runtime/src/execute/executable.ts';
import { SlabPool } from '../../../runtime/src/execute/slabs.ts';
import type { KontextDevice } from '../../../runtime/src/gpu/device.ts';
import { openDevice } from '../../../runtime/src/gpu/open.ts';
import { WeightStore } from '../../../runtime/src/weights/store.ts';
import { affineTwice, busyProgram, sumOfWeights } from '../../support/tiny-program.ts';
import { f32Tensor, memorySource } from '../../support/weights.ts';

let gpu: KontextDevice;
beforeAll(async () => {
  gpu = await openDevice();
});
afterAll(() => {
  expect(gpu.uncapturedErrors).toEqual([]);
  gpu.destroy();
});

const errorOf = (work: Promise<unknown>): Promise<KontextError> =>
  work.then(
    () => {
      throw new Error('did not reject');
    },
    (error: KontextError) => error,
  );

async function affineStore(n: number, device = gpu): Promise<WeightStore> {
  return new WeightStore(device, await memorySource({ w: f32Tensor([n], (i) => i / 8) }));
}

const ramp = (n: number) => Float32Array.from({ length: n }, (_, i) => i % 17);

describe('run', () => {
  it('computes through ports, slab, weight and constant, and frees everything', async () => {
    const before = gpu.memory;
    const weights = await affineStore(256);
    const exe = await Executable.create(gpu, affineTwice(256), { weights });
    exe.write('x', ramp(256));
    await exe.run();
    const y = await exe.read('y');
    expect([...y]).toEqual([...ramp(256)].map((x, i) => (x * 3 + i / 8) * 3 + i / 8));
    // A second run with another input reuses the bindings.
    exe.write('x', new Float32Array(128).fill(1), 512);
    await exe.run();
    expect((await exe.read('y'))[200]).toBe((3 + 25) * 3 + 25);
    await exe.dispose();
    await weights.evict();
    expect(gpu.memory).toEqual(before);
  });

  it('rejects wrong ports, sizes, directions and types with what to do', async () => {
    const weights = await affineStore(64);
    const exe = await Executable.create(gpu, affineTwice(64), { weights });
    expect(() => exe.write('z', new Float32Array(1))).toThrow(/no port "z".*x, y/);
    expect(() => exe.write('x', new Float32Array(65))).toThrow(/256 bytes/);
    expect(() => exe.write('y', new Float32Array(64))).toThrow(/output/);
    expect((await errorOf(exe.read('y', 'u32'))).code).toBe('invalid-request');
    await exe.dispose();
    expect(() => exe.port('x')).toThrow(/disposed/);
    expect((await errorOf(exe.run())).code).toBe('closed');
  });

  it('runs two programs on one pool in turn, growing the slabs', async () => {
    const pool = new SlabPool(gpu);
    const small = await Executable.create(gpu, affineTwice(64), { weights: await affineStore(64), slabs: pool });
    const bytes = pool.bytes;
    const large = await Executable.create(gpu, affineTwice(4096), { weights: await affineStore(4096), slabs: pool });
    expect(pool.bytes).toBeGreaterThan(bytes);
    small.write('x', ramp(64));
    large.write('x', ramp(4096));
    await Promise.all([small.run(), large.run(), small.run()]);
    expect((await small.read('y'))[33]).toBe((33 % 17) * 9 + (33 / 8) * 4);
    expect((await large.read('y'))[4000]).toBe((4000 % 17) * 9 + 500 * 4);
    await large.dispose();
    await small.run();
    expect(pool.bytes).toBe(bytes);
    expect((await small.read('y'))[33]).toBe((33 % 17) * 9 + (33 / 8) * 4);
    await small.dispose();
    expect(pool.bytes).toBe(0);
  });

  it('shares a port, copies rows into a port and out of one inside the run', async () => {
    const n = 64;
    const first = await Executable.create(gpu, affineTwice(n), { weights: await affineStore(n) });
    const second = await Executable.create(gpu, affineTwice(n), {
      weights: await affineStore(n),
      ports: { x: first.port('y') },
    });
    first.write('x', new Float32Array(n));
    await first.run();
    await second.run();
    expect((await second.read('y'))[8]).toBe(4 * 9 + 4);
    // The first half of y becomes the second half of x.
    await first.run({ copies: [{ from: second.port('y'), fromOffset: 0, to: 'x', toOffset: 128, bytes: 128 }] });
    expect((await first.read('y'))[32 + 8]).toBe(40 * 9 + (40 / 8) * 4);
    await first.copyPort(second.port('y'), 0, 'x', 0, 128);
    expect((await first.read('x'))[8]).toBe(40);
    await second.dispose();
    await first.dispose();
  });

  describe('on a device that has measured nothing yet', () => {
    // Slices are cut by predicted work; 1 GFLOP each is two to a slice before anything was measured. A device that
    // knows its speed may take all of it in one slice.
    const program = busyProgram(24, 8000, 8, 1e9);
    let fresh: KontextDevice;
    let exe: Executable;
    beforeEach(async () => {
      fresh = await openDevice();
      exe = await Executable.create(fresh, program);
      exe.write('y', new Float32Array(8 * 256));
    });
    afterEach(async () => {
      await exe.dispose();
      expect(fresh.uncapturedErrors).toEqual([]);
      fresh.destroy();
    });

    it('goes in slices with rising progress', async () => {
      const fractions: number[] = [];
      const report = await exe.run({ onProgress: (fraction) => fractions.push(fraction) });
      expect(report.slices).toBeGreaterThan(1);
      expect(fractions).toEqual([...fractions].sort((a, b) => a - b));
      expect(fractions.at(-1)).toBeCloseTo(1, 9);
    });

    it('stops between slices when cancelled, and can run again at once', async () => {
      const controller = new AbortController();
      const error = await errorOf(
        exe.run({ signal: controller.signal, onProgress: () => controller.abort(new Error('enough')) }),
      );
      expect(error.code).toBe('aborted');
      exe.write('y', new Float32Array(8 * 256));
      await exe.run();
      expect((await exe.read('y'))[100]).toBeCloseTo(1, 3);
    });
  });

  it('times every dispatch when asked', async () => {
    const exe = await Executable.create(gpu, busyProgram(3, 2000));
    const { trace } = await exe.run({ trace: true });
    expect(trace!.events.map((event) => event.label)).toEqual(['busy.0', 'busy.1', 'busy.2']);
    expect(trace!.milliseconds).toBeGreaterThan(0);
    expect(trace!.table()).toMatch(/GFLOP\/s[\s\S]*busy\.N/);
    const chrome = JSON.parse(trace!.chromeTrace()) as {
      traceEvents: { name: string; dur: number; args: { flops: number } }[];
    };
    expect(chrome.traceEvents[1]).toMatchObject({ name: 'busy.1', args: { flops: 2 * 64 * 256 * 2000 } });
    await exe.dispose();
  });
});

describe('streamed weights', () => {
  it('gives the same result while holding at most two windows', async () => {
    const n = 4096;
    const count = 12;
    const tensors = Object.fromEntries(
      Array.from({ length: count }, (_, i) => [`layers.${i}.w`, f32Tensor([n], (k) => i + (k % 5))]),
    );
    const weights = new WeightStore(gpu, await memorySource(tensors));
    const exe = await Executable.create(gpu, sumOfWeights(n, count), {
      weights,
      residency: 'streamed',
      windowBytes: 2 * n * 4,
    });
    expect(weights.memory.bytes).toBe(0);
    let peak = 0;
    for (let round = 1; round <= 2; round++) {
      exe.write('y', new Float32Array(n));
      await exe.run({
        onProgress: () => {
          peak = Math.max(peak, weights.memory.bytes);
        },
      });
      const y = await exe.read('y');
      expect(y[3]).toBe(66 + 3 * 12);
      expect(weights.memory.bytes).toBe(0);
    }
    expect(peak).toBeGreaterThan(0);
    expect(peak).toBeLessThanOrEqual(4 * n * 4);
    const controller = new AbortController();
    const error = await errorOf(exe.run({ signal: controller.signal, onProgress: () => controller.abort() }));
    expect(error.code).toBe('aborted');
    expect(weights.memory.bytes).toBe(0);
    await exe.dispose();
    await weights.evict();
  });
});

describe('failures', () => {
  it('names the kernel that does not compile', async () => {
    const program = busyProgram(1, 10);
    program.kernels[0]!.wgsl = program.kernels[0]!.wgsl.replace('var v', 'var v: vec2<f32>');
    const error = await errorOf(Executable.create(gpu, program));
    expect(error.code).toBe('gpu-validation');
    expect(error.message).toContain('busy');
    expect(error.message).toMatch(/vec2/);
  });

  it('names the dispatch whose bindings WebGPU refuses', async () => {
    const program = sumOfWeights(64, 2);
    // Reads and writes one buffer in a dispatch.
    program.dispatches[1]!.bindings[0] = ['port', 0, 0, 256];
    const weights = new WeightStore(
      gpu,
      await memorySource({ 'layers.0.w': f32Tensor([64], () => 1), 'layers.1.w': f32Tensor([64], () => 1) }),
    );
    const exe = await Executable.create(gpu, program, { weights });
    const error = await errorOf(exe.run());
    expect(error.code).toBe('gpu-validation');
    expect(error.details.label).toBe('dispatch "layers.1.add"');
    await exe.dispose();
  });

  it('frees what it allocated when a weight is missing', async () => {
    const before = gpu.memory.bytes;
    const weights = new WeightStore(gpu, await memorySource({ other: f32Tensor([64], () => 0) }));
    const error = await errorOf(Executable.create(gpu, affineTwice(64), { weights }));
    expect(error).toMatchObject({ code: 'weights-invalid', details: { tensor: 'w' } });
    await weights.evict();
    expect(gpu.memory.bytes).toBe(before);
  });

  it('rejects pending work when the device is lost, and a new device runs the same program', async () => {
    const program = affineTwice(64);
    const busy = busyProgram(40, 20_000, 8, 1e9);
    const lost = await openDevice();
    const exe = await Executable.create(lost, busy);
    const running = errorOf(exe.run());
    // Behind the runtime's back, as a driver reset would be.
    lost.device.destroy();
    expect(await running).toMatchObject({ code: 'device-lost' });
    expect((await lost.lost).code).toBe('device-lost');
    expect((await errorOf(exe.run())).code).toBe('device-lost');

    const fresh = await openDevice();
    const again = await Executable.create(fresh, program, { weights: await affineStore(64, fresh) });
    again.write('x', ramp(64));
    await again.run();
    expect((await again.read('y'))[16]).toBe(16 * 9 + 2 * 4);
    expect([...lost.uncapturedErrors, ...fresh.uncapturedErrors]).toEqual([]);
    fresh.destroy();
    expect((await errorOf(again.run())).code).toBe('closed');
  });
});
