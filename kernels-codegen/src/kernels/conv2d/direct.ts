// The convolution for adapters that run on the CPU (lavapipe, SwiftShader): no workgroup memory, no barrier, little text.
// There a shader's compilation costs more than its run, and memory shared by a workgroup is memory like any other.

import { hasTier, type TargetProfile } from '../../targets/types.ts';
import { emitWeightLoader } from '../../wgsl/weights.ts';
import { emitEpilogue } from '../epilogue.ts';
import type { KernelSource } from '../kernel.ts';
import { emitConv2dInput } from './input.ts';
import { type Conv2dSpec, conv2dBytes, conv2dFlops, conv2dUsesF16, describeConv2d } from './spec.ts';

/** Neighbouring threads compute neighbouring channels of the same `rows` pixels. */
export interface DirectConv2dSchedule {
  variant: 'direct';
  threads: number;
  rows: number;
}

/**
 * A thread computes one channel of `rows` neighbouring pixels. The pixels follow from the workgroup alone, so a CPU's driver
 * loads the image once for all lanes. The loops end at bounds the driver cannot know, by adding `group.z`, always 0:
 * otherwise it unrolls nine taps times the channels. Products and sums are f32.
 */
export function directConv2d(spec: Conv2dSpec, target: TargetProfile, s: DirectConv2dSchedule): KernelSource {
  const { cin, cout: n, kernel } = spec;
  const m = spec.outHeight * spec.outWidth;
  const input = emitConv2dInput(spec, 'f32', 2);
  const inputs = spec.prologue ? 3 : 2;
  const weight = emitWeightLoader({
    ...spec.weight,
    binding: 1,
    name: 'weight',
    shaderF16: hasTier(target, 'f16'),
    element: 'f32',
  });
  const epilogue = emitEpilogue(spec.epilogue, spec.out, inputs, 1);
  const usesF16 = conv2dUsesF16(spec, target);
  const groupsN = Math.ceil(n / s.threads);
  const groupsM = Math.ceil(m / s.rows);
  const layers = Math.ceil(groupsM / target.limits.maxComputeWorkgroupsPerDimension);
  const groupsY = Math.ceil(groupsM / layers);
  const raggedM = layers * groupsY * s.rows !== m;
  const rows = Array.from({ length: s.rows }, (_, i) => i);
  const wgsl = `${usesF16 ? 'enable f16;\n' : ''}${input.declarations}
${weight.declarations}
${epilogue.declarations}

@compute @workgroup_size(${s.threads})
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
let col = ${layers > 1 ? `(group.x % ${groupsN}u)` : 'group.x'} * ${s.threads}u + thread;
${n % s.threads ? `if (col >= ${n}u) { return; }` : ''}
let rowBase = ${layers > 1 ? `(group.x / ${groupsN}u * ${groupsY}u + group.y)` : 'group.y'} * ${s.rows}u;
${rows
  .map(
    (i) => `let r${i} = ${raggedM ? `min(rowBase + ${i}u, ${m - 1}u)` : `rowBase + ${i}u`};
${input.window(String(i), `r${i}`)}
var c${i} = 0.0f;`,
  )
  .join('\n')}
for (var tap = 0u; tap < ${kernel * kernel}u + group.z; tap++) {
let ky = i32(tap / ${kernel}u);
let kx = i32(tap % ${kernel}u);
for (var c = 0u; c < ${cin}u + group.z; c += 4u) {
let w = ${weight.load('col', `tap * ${cin}u + c`)};
${rows.map((i) => `c${i} += dot(${input.load(`y${i} + ky`, `x${i} + kx`, 'c')}, w);`).join('\n')}
}
}
${rows
  .map((i) => {
    const store = epilogue.store(`r${i}`, 'col', `c${i}`);
    return raggedM ? `if (rowBase + ${i}u < ${m}u) {\n${store}\n}` : store;
  })
  .join('\n')}
}
`;
  return {
    label: `conv2d direct ${s.rows}×${s.threads} (${describeConv2d(spec)})`,
    wgsl,
    bindings: [...Array.from({ length: inputs }, () => 'read' as const), ...epilogue.bindings],
    workgroups: [groupsN * layers, groupsY, 1],
    flops: conv2dFlops(spec),
    bytes: conv2dBytes(spec),
    needs: { ...(usesF16 ? { features: ['shader-f16'] } : {}), invocations: s.threads, workgroupBytes: 0 },
  };
}
