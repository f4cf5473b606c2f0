// Runs one generated kernel on a real (software) adapter, for oracle tests.
// Any WebGPU error, also an uncaptured one, fails the call: a wrong result may not hide behind a validation error.

import { create } from 'webgpu';
import { allBindings, type KernelSource } from '../../kernels-codegen/src/kernels/kernel.ts';

// Dawn crashes when this object is collected while a device lives, so it is kept for the process's life.
const instances: GPU[] = [];

export interface TestDevice {
  device: GPUDevice;
  adapter: GPUAdapter;
  errors: string[];
}

/** Threads of a subgroup of the adapter: the workgroup of kernels that hand round what they load. */
export const lanesOf = ({ adapter }: TestDevice): number => adapter.info.subgroupMaxSize!;

/** A device with every feature and the highest limits of the adapter that the environment selects. */
export async function openTestDevice(options: string[] = []): Promise<TestDevice> {
  const gpu = create(['enable-dawn-features=allow_unsafe_apis', ...options]);
  instances.push(gpu);
  const adapter = await gpu.requestAdapter();
  if (!adapter) throw new Error('no WebGPU adapter: install a Vulkan driver (npm run setup)');
  const requiredLimits: Record<string, number> = {};
  for (const name of [
    'maxStorageBufferBindingSize',
    'maxBufferSize',
    'maxStorageBuffersPerShaderStage',
    'maxComputeWorkgroupStorageSize',
    'maxComputeInvocationsPerWorkgroup',
    'maxComputeWorkgroupSizeX',
    'maxComputeWorkgroupSizeY',
  ] as const) {
    requiredLimits[name] = adapter.limits[name];
  }
  const device = await adapter.requestDevice({
    requiredFeatures: [...adapter.features] as GPUFeatureName[],
    requiredLimits,
  });
  const errors: string[] = [];
  device.addEventListener('uncapturederror', (e) => errors.push(e.error.message));
  return { device, adapter, errors };
}

/**
 * Dispatches `kernel` once. `operands[i]` are the initial bytes of binding `i`.
 * @returns the bytes of every `read_write` binding afterwards, by binding number
 */
export async function runKernel(
  { device, errors }: TestDevice,
  kernel: KernelSource,
  operands: readonly ArrayBufferView[],
): Promise<Map<number, ArrayBuffer>> {
  const buffers = kernel.sizes ? [...operands, kernel.sizes] : operands;
  device.pushErrorScope('validation');
  const layout = device.createBindGroupLayout({
    entries: allBindings(kernel).map((access, binding) => ({
      binding,
      visibility: GPUShaderStage_COMPUTE,
      buffer: { type: access === 'read' ? 'read-only-storage' : access === 'uniform' ? 'uniform' : 'storage' },
    })),
  });
  const module = device.createShaderModule({ code: kernel.wgsl, label: kernel.label });
  const info = await module.getCompilationInfo();
  const problems = info.messages.filter((m) => m.type === 'error');
  if (problems.length) {
    await device.popErrorScope();
    const numbered = kernel.wgsl.split('\n').map((line, i) => `${i + 1}: ${line}`);
    throw new Error(
      `${kernel.label}: ${problems.map((m) => `${m.lineNum}: ${m.message}`).join('\n')}\n${numbered.join('\n')}`,
    );
  }
  const pipeline = device.createComputePipeline({
    layout: device.createPipelineLayout({ bindGroupLayouts: [layout] }),
    compute: { module, entryPoint: 'main' },
  });
  const gpuBuffers = buffers.map((data) => {
    const size = Math.max(16, Math.ceil(data.byteLength / 16) * 16);
    const buffer = device.createBuffer({ size, usage: STORAGE | UNIFORM | COPY_SRC | COPY_DST });
    const padded = new Uint8Array(size);
    padded.set(new Uint8Array(data.buffer, data.byteOffset, data.byteLength));
    device.queue.writeBuffer(buffer, 0, padded);
    return buffer;
  });
  const group = device.createBindGroup({
    layout,
    entries: gpuBuffers.map((buffer, binding) => ({ binding, resource: { buffer } })),
  });
  const encoder = device.createCommandEncoder();
  const pass = encoder.beginComputePass();
  pass.setPipeline(pipeline);
  pass.setBindGroup(0, group);
  pass.dispatchWorkgroups(...kernel.workgroups);
  pass.end();
  const staged = new Map<number, GPUBuffer>();
  kernel.bindings.forEach((access, i) => {
    if (access !== 'read_write') return;
    const buffer = gpuBuffers[i]!;
    const staging = device.createBuffer({ size: buffer.size, usage: MAP_READ | COPY_DST });
    encoder.copyBufferToBuffer(buffer, 0, staging, 0, buffer.size);
    staged.set(i, staging);
  });
  device.queue.submit([encoder.finish()]);
  const error = await device.popErrorScope();
  if (error) throw new Error(`${kernel.label}: ${error.message}\n${kernel.wgsl}`);
  const results = new Map<number, ArrayBuffer>();
  for (const [i, staging] of staged) {
    await staging.mapAsync(1);
    results.set(i, staging.getMappedRange().slice(0, buffers[i]!.byteLength));
    staging.destroy();
  }
  for (const buffer of gpuBuffers) buffer.destroy();
  if (errors.length) throw new Error(`uncaptured WebGPU errors: ${errors.join('; ')}`);
  return results;
}

// Values of the WebGPU specification: the `webgpu` package leaves the flag objects to `globals`.
const GPUShaderStage_COMPUTE = 4;
const MAP_READ = 0x0001;
const COPY_SRC = 0x0004;
const COPY_DST = 0x0008;
const STORAGE = 0x0080;
const UNIFORM = 0x0040;
