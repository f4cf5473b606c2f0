// Dawn's null backend: validates WGSL, limits, bindings and aliasing without a GPU, and computes nothing.
// The device gets exactly the features and limits of a target profile, so a program that asks for more fails here.

import { create } from 'webgpu';
import { hasTier, type TargetProfile } from '../../kernels-codegen/src/targets/types.ts';
import type { BufferKind, Kernel, Program } from '../../runtime/src/program/types.ts';

// Kept for the process's life: Dawn crashes when this is collected while a device lives.
const instances: GPU[] = [];

export interface NullDevice {
  /** What it stands for; above the null adapter's own limits this is compared with instead. */
  profile: TargetProfile;
  device: GPUDevice;
  errors: string[];
  pipelines: Map<string, { layout: GPUBindGroupLayout; pipeline: GPUComputePipeline }>;
}

export async function openNullDevice(target: TargetProfile): Promise<NullDevice> {
  const gpu = create(['backend=null', 'enable-dawn-features=allow_unsafe_apis']);
  instances.push(gpu);
  const adapter = (await gpu.requestAdapter())!;
  const features: string[] = [];
  if (hasTier(target, 'f16')) features.push('shader-f16');
  if (hasTier(target, 'subgroups')) features.push('subgroups');
  if (hasTier(target, 'subgroup-matrix')) features.push('chromium-experimental-subgroup-matrix');
  if (target.fixedSubgroupSize) features.push('subgroup-size-control');
  const device = await adapter.requestDevice({
    requiredFeatures: features as GPUFeatureName[],
    requiredLimits: limitsFor(adapter, target),
  });
  const errors: string[] = [];
  device.addEventListener('uncapturederror', (e) => errors.push(e.error.message));
  return { profile: target, device, errors, pipelines: new Map() };
}

/** The null adapter has WebGPU's default limits and refuses more, so what a target has above those cannot be shown to it. */
function limitsFor(adapter: GPUAdapter, target: TargetProfile): Record<string, number> {
  const limits = Object.entries(target.limits) as [keyof TargetProfile['limits'], number][];
  return Object.fromEntries(limits.map(([name, value]) => [name, Math.min(value, adapter.limits[name])]));
}

/** Creates every pipeline and encodes every dispatch of a program; all weights share one buffer. Throws on any WebGPU error. */
export async function encodeProgram(target: NullDevice, program: Program): Promise<void> {
  const { device, errors } = target;
  const known = await Promise.all(program.kernels.map((k) => pipelineOf(target, k)));
  const make = (size: number): GPUBuffer => device.createBuffer({ size: Math.max(16, size), usage: STORAGE | UNIFORM });
  const weights = make(Math.max(0, ...program.weights.map((w) => w.bytes)));
  const buffers: Record<BufferKind, GPUBuffer[]> = {
    port: program.ports.map((p) => make(p.bytes)),
    slab: program.slabs.map(make),
    weight: program.weights.map(() => weights),
    constant: program.constants.map((c) => make(c.bytes)),
  };
  const encoder = device.createCommandEncoder();
  const pass = encoder.beginComputePass();
  for (const dispatch of program.dispatches) {
    const { layout, pipeline } = known[dispatch.kernel]!;
    const entries = dispatch.bindings.map(([kind, index, offset, size], binding) => ({
      binding,
      resource: { buffer: buffers[kind][index]!, offset, size },
    }));
    pass.setPipeline(pipeline);
    pass.setBindGroup(0, device.createBindGroup({ layout, entries, label: dispatch.label }));
    pass.dispatchWorkgroups(...dispatch.workgroups);
  }
  pass.end();
  device.queue.submit([encoder.finish()]);
  await device.queue.onSubmittedWorkDone();
  for (const buffer of [weights, ...buffers.port, ...buffers.slab, ...buffers.constant]) buffer.destroy();
  if (errors.length) throw new Error(`${program.label}: ${errors.splice(0).join('\n')}`);
}

/** A kernel's pipeline, made once for each text. */
export async function pipelineOf(target: NullDevice, kernel: Kernel) {
  const { device, pipelines } = target;
  const key = `${kernel.bindings.join()}\n${kernel.wgsl}`;
  const known = pipelines.get(key);
  if (known) return known;
  const layout = device.createBindGroupLayout({
    entries: kernel.bindings.map((access, binding) => ({
      binding,
      visibility: COMPUTE,
      buffer: { type: access === 'read' ? 'read-only-storage' : access === 'uniform' ? 'uniform' : 'storage' },
    })),
  });
  const module = device.createShaderModule({ code: kernel.wgsl, label: kernel.label });
  const pipeline = await device.createComputePipelineAsync({
    label: kernel.label,
    layout: device.createPipelineLayout({ bindGroupLayouts: [layout] }),
    compute: { module, entryPoint: 'main' },
  });
  const made = { layout, pipeline };
  pipelines.set(key, made);
  return made;
}

const COMPUTE = 4;
const STORAGE = 0x80;
const UNIFORM = 0x40;
