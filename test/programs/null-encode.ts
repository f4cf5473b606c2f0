// Encodes a program of any size on the null backend: every pipeline, bind group and dispatch, nothing allocated for long.
// The null backend has 512 MiB and WebGPU's default limits; bindings of destroyed buffers are validated like any others.

import type { BufferKind, BufferRange, Kernel, Program } from '../../runtime/src/program/types.ts';
import { type NullDevice, pipelineOf } from '../support/null-device.ts';

export interface EncodedCount {
  dispatches: number;
  /** Dispatches with a binding above WebGPU's default limits: their ranges are checked by our own rules instead. */
  structural: number;
  /** Kernels whose workgroup does not suit the null device: its size and memory are compared with the target's limits. */
  largeKernels: number;
}

const STORAGE = 0x80;
const UNIFORM = 0x40;
/** What Dawn says of workgroups beyond a device's limits or not of its subgroups' size (128 here); anything else is an error of ours. */
const ABOVE_LIMITS =
  /exceeds the maximum allowed|workgroup storage|total number of workgroup invocations|multiple of the device maxSubgroupSize/i;
const WORKGROUP_SIZE = /@workgroup_size\(([\d, ]+)\)/;

/** @throws Error with every WebGPU error, and every broken rule of the dispatches too large to bind */
export async function encodeLarge(target: NullDevice, program: Program): Promise<EncodedCount> {
  const { device, errors } = target;
  let largeKernels = 0;
  const made = await Promise.all(
    program.kernels.map((kernel) =>
      pipelineOf(target, kernel).catch(async (error: Error) => {
        const problem = ABOVE_LIMITS.test(error.message) ? await workgroupProblem(target, kernel) : error.message;
        if (problem !== undefined) throw new Error(`${program.label}: ${kernel.label}: ${problem}`);
        largeKernels++;
        return pipelineOf(target, standIn(kernel));
      }),
    ),
  );
  const encoder = device.createCommandEncoder();
  const pass = encoder.beginComputePass();
  const groups = new Map<string, GPUBindGroup>();
  const sizes = new Map<string, GPUBuffer>();
  let structural = 0;
  for (const dispatch of program.dispatches) {
    checkRanges(program, dispatch.bindings, dispatch.kernel, dispatch.label);
    const known = made[dispatch.kernel]!;
    const extents = extentsOf(program, dispatch.bindings);
    const fits =
      [...extents.values()].every(({ first, end }) => end - first <= device.limits.maxBufferSize) &&
      dispatch.bindings.every(([, , , size]) => size <= device.limits.maxStorageBufferBindingSize);
    if (!fits) {
      structural++;
      continue;
    }
    const entries = dispatch.bindings.map((range, binding) => {
      const [, , offset, size] = range;
      const name = bufferName(program, range);
      const { first, end } = extents.get(name)!;
      return { binding, name, bytes: end - first, offset: offset - first, size };
    });
    const key = JSON.stringify([dispatch.kernel, entries]);
    let group = groups.get(key);
    if (!group) {
      const resources = entries.map(({ binding, name, bytes, offset, size }) => {
        const id = `${name} ${bytes}`;
        let buffer = sizes.get(id);
        if (!buffer) {
          buffer = device.createBuffer({ size: Math.max(16, bytes), usage: STORAGE | UNIFORM });
          buffer.destroy();
          sizes.set(id, buffer);
        }
        return { binding, resource: { buffer, offset, size } };
      });
      group = device.createBindGroup({ layout: known.layout, entries: resources, label: dispatch.label });
      groups.set(key, group);
    }
    pass.setPipeline(known.pipeline);
    pass.setBindGroup(0, group);
    pass.dispatchWorkgroups(...dispatch.workgroups);
  }
  pass.end();
  device.pushErrorScope('validation');
  encoder.finish();
  const finished = await device.popErrorScope();
  const found = [...errors.splice(0), ...(finished ? [finished.message] : [])];
  if (found.length) throw new Error(`${program.label}: ${found.slice(0, 3).join('\n')}`);
  return { dispatches: program.dispatches.length, structural, largeKernels };
}

/** The same module and bindings behind an entry point that needs no workgroup, so that ranges can be shown to Dawn. */
function standIn(kernel: Kernel): Kernel {
  const uses = kernel.bindings.map((_, i) => `  _ = &${declarationOf(kernel, i).name};`);
  const entry = `@compute @workgroup_size(1)\nfn main() {\n${uses.join('\n')}\n}`;
  return { ...kernel, wgsl: `${kernel.wgsl.slice(0, kernel.wgsl.search(/@compute/))}\n${entry}\n` };
}

/** A binding's variable in the WGSL, and the bytes its type needs at least. */
function declarationOf(kernel: Kernel, binding: number): { name: string; bytes: number } {
  if (kernel.bindings[binding] === 'uniform') {
    const [, fields] = /struct Sizes \{ ([^}]*) \}/.exec(kernel.wgsl)!;
    return { name: 'sizes', bytes: 4 * fields!.split(',').length };
  }
  const pattern = new RegExp(
    `@binding\\(${binding}\\)\\s*var<[^>]*>\\s*(\\w+)\\s*:\\s*array<(?:vec(\\d)<)?(f32|f16|u32|i32)>?(?:,\\s*(\\d+))?`,
  );
  const [, name, lanes = '1', type, length = '1'] = pattern.exec(kernel.wgsl)!;
  return { name: name!, bytes: Number(lanes) * Number(length) * (type === 'f16' ? 2 : 4) };
}

/** What of a kernel's workgroup exceeds the target. Dawn itself counts the memory, for a smaller workgroup of the same text. */
async function workgroupProblem(target: NullDevice, kernel: Kernel): Promise<string | undefined> {
  const { limits, subgroupSize, subgroupMatrix } = target.profile;
  const size = WORKGROUP_SIZE.exec(kernel.wgsl)![1]!.split(',').map(Number);
  const invocations = size.reduce((product, n) => product * n, 1);
  if (size[0]! > limits.maxComputeWorkgroupSizeX || invocations > limits.maxComputeInvocationsPerWorkgroup)
    return `has workgroups of ${size.join('×')}`;
  if (subgroupMatrix && /subgroupMatrix/.test(kernel.wgsl) && size[0]! % subgroupSize!.max !== 0)
    return `has workgroups of ${size.join('×')}, no multiple of the subgroup size ${subgroupSize!.max}`;
  const small = { ...kernel, wgsl: kernel.wgsl.replace(WORKGROUP_SIZE, '@workgroup_size(128)') };
  const message = await pipelineOf(target, small).then(
    () => undefined,
    (error: Error) => error.message,
  );
  if (message === undefined) return undefined;
  const bytes = Number(/workgroup storage \((\d+) bytes\)/.exec(message)?.[1] ?? Number.NaN);
  return bytes <= limits.maxComputeWorkgroupStorageSize ? undefined : message;
}

/** The part of each buffer that one dispatch binds. */
function extentsOf(program: Program, bindings: BufferRange[]): Map<string, { first: number; end: number }> {
  const extents = new Map<string, { first: number; end: number }>();
  for (const range of bindings) {
    const [, , offset, size] = range;
    const name = bufferName(program, range);
    const { first, end } = extents.get(name) ?? { first: offset, end: 0 };
    extents.set(name, { first: Math.min(first, offset), end: Math.max(end, offset + size) });
  }
  return extents;
}

/** Weights of one size share a buffer here, so blocks that differ only in their weights share their bind groups. */
function bufferName(program: Program, [kind, index]: BufferRange): string {
  return kind === 'weight' ? `weight of ${program.weights[index]!.bytes}` : `${kind} ${index}`;
}

/** WebGPU's own rules, for buffers it cannot be shown. */
function checkRanges(program: Program, bindings: BufferRange[], kernel: number, label: string): void {
  const access = program.kernels[kernel]!.bindings;
  const limits = program.requires.limits;
  const use = new Map<string, string>();
  bindings.forEach((range, i) => {
    const [kind, index, offset, size] = range;
    const fail = (why: string): never => {
      throw new Error(`${program.label}: ${label}: binding ${i} ${why}`);
    };
    const bytes = kind === 'slab' ? program.slabs[index]! : listOf(program, kind)[index]!.bytes;
    if (offset % 256 !== 0) fail(`starts at ${offset}`);
    const least = declarationOf(program.kernels[kernel]!, i).bytes;
    if (size < least) fail(`binds ${size} bytes of an array of ${least}`);
    if (offset + size > Math.max(16, bytes)) fail(`ends at ${offset + size} of ${bytes}`);
    if (size > (limits.maxStorageBufferBindingSize ?? 0)) fail(`binds ${size}, above what the program says it needs`);
    const buffer = kind === 'weight' ? `weight ${index}` : `${kind} ${index}`;
    const before = use.get(buffer);
    if (before !== undefined && before !== access[i]) fail(`reads and writes ${buffer} at once`);
    use.set(buffer, access[i]!);
  });
}

function listOf(program: Program, kind: Exclude<BufferKind, 'slab'>): { bytes: number }[] {
  return { port: program.ports, weight: program.weights, constant: program.constants }[kind];
}
