// Opening devices: what is asked for, what is reported, and what the errors tell to do.

import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { describe, expect, it } from 'vitest';
import type { KontextError } from '../../../runtime/src/errors.ts';
import { describeAdapter, openDevice } from '../../../runtime/src/gpu/open.ts';
import { reportAdapter, USEFUL_FEATURES, USEFUL_LIMITS } from '../../../runtime/src/gpu/report.ts';

describe('openDevice', () => {
  it('asks for every useful feature and the adapter limits, and reports them', async () => {
    const adapter = await describeAdapter({ backend: 'null' });
    const gpu = await openDevice({ backend: 'null' });
    const { report } = gpu;
    for (const feature of USEFUL_FEATURES) {
      if (adapter.features.includes(feature)) expect(report.features).toContain(feature);
    }
    for (const limit of USEFUL_LIMITS) expect(report.limits[limit]).toBe(adapter.limits[limit]);
    expect(report.limits.maxStorageBufferBindingSize).toBeGreaterThanOrEqual(128 * 2 ** 20);
    expect(JSON.parse(JSON.stringify(report))).toEqual(report);
    gpu.destroy();
    expect(() => gpu.assertAlive()).toThrow(/closed/);
    expect((await gpu.lost).code).toBe('closed');
    gpu.destroy();
  });

  it('says what is there when no adapter has the wanted name', async () => {
    const error = await openDevice({ adapter: 'no such adapter' }).catch((e: KontextError) => e);
    expect(error).toMatchObject({ code: 'webgpu-unavailable' });
    expect((error as KontextError).message).toMatch(/"no such adapter"[\s\S]*apt install mesa-vulkan-drivers/);
  });

  it('refuses an entry point whose adapter has another name, and one without adapters', async () => {
    const info = { vendor: 'acme', architecture: 'one', device: '', description: 'Acme GPU' };
    const page = { requestAdapter: async () => ({ info }) } as unknown as GPU;
    await expect(openDevice({ gpu: page, adapter: 'nvidia' })).rejects.toMatchObject({
      code: 'webgpu-unavailable',
      details: { found: 'acme one  Acme GPU' },
    });
    const none = { requestAdapter: async () => null } as unknown as GPU;
    await expect(openDevice({ gpu: none })).rejects.toMatchObject({ code: 'webgpu-unavailable' });
  });

  it('keeps a device working through garbage collections', async () => {
    // Dawn crashes here when the object of create() was collected.
    setFlagsFromString('--expose-gc');
    const collectGarbage = runInNewContext('gc') as () => void;
    const gpu = await openDevice({ backend: 'null' });
    for (let i = 0; i < 30; i++) {
      await gpu.allocate(`buffer ${i}`, 2 ** 16, 0x80);
      collectGarbage();
    }
    await gpu.idle();
    expect(gpu.memory.buffers).toBe(30);
    gpu.destroy();
    expect(gpu.uncapturedErrors).toEqual([]);
  });

  it('records errors that no call was there to receive', async () => {
    const gpu = await openDevice({ backend: 'null' });
    gpu.device.createBuffer({ size: 16, usage: 0x1 | 0x80 });
    await gpu.idle();
    await new Promise((resolve) => setTimeout(resolve, 10));
    expect(gpu.uncapturedErrors).toMatchObject([{ code: 'gpu-validation' }]);
    gpu.destroy();
  });
});

describe('reportAdapter', () => {
  it('lists the float matrix shapes of the device, and only with the feature', () => {
    const shape = (componentType: string, resultComponentType: string) => ({
      M: 16,
      N: 8,
      K: 16,
      componentType,
      resultComponentType,
    });
    const adapter = {
      info: {
        subgroupMinSize: 32,
        subgroupMaxSize: 32,
        subgroupMatrixConfigs: [shape('f16', 'f32'), shape('i8', 'i32')],
      },
      limits: {},
      features: new Set(['subgroups', 'chromium-experimental-subgroup-matrix']),
    } as unknown as GPUAdapter;
    const report = reportAdapter(adapter);
    expect(report.subgroupMatrixConfigs).toEqual([{ m: 16, n: 8, k: 16, componentType: 'f16', resultType: 'f32' }]);
    expect(report.subgroupSize).toEqual({ min: 32, max: 32 });
    const plain = reportAdapter({ ...adapter, features: new Set<string>() } as unknown as GPUAdapter);
    expect(plain.subgroupMatrixConfigs).toEqual([]);
    expect(plain.subgroupSize).toBeUndefined();
  });
});
