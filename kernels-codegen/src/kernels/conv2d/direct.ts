// The convolution for adapters that run on the CPU (lavapipe, SwiftShader): no workgroup memory, no barrier, little text.
// Split as the direct matmul, and for its reasons: pixels broadcast, weights gathered, each shared by several products.

import type { TargetProfile } from '../../targets/types.ts';
import { emitWeightLoader } from '../../wgsl/weights.ts';
import type { KernelSource } from '../kernel.ts';
import { DIRECT_COLUMNS, type DirectSchedule, multiplyAdd } from '../matmul/direct.ts';
import { emitOutput } from '../matmul/output.ts';
import { emitConv2dInput } from './input.ts';
import { type Conv2dSpec, conv2dBytes, conv2dFlops, conv2dUsesF16, describeConv2d } from './spec.ts';

/**
 * A thread computes four neighbouring channels of `rows` neighbouring pixels. The pixels follow from the workgroup alone, so
 * a CPU's driver loads the image once for all lanes. The loops end at bounds the driver cannot know, by adding `group.z`,
 * always 0: otherwise it unrolls nine taps times the channels. Products and sums are f32.
 */
export function directConv2d(spec: Conv2dSpec, target: TargetProfile, s: DirectSchedule): KernelSource {
  const { cin, cout: n, kernel } = spec;
  const m = spec.outHeight * spec.outWidth;
  const input = emitConv2dInput(spec, 'f32', 2, true);
  const inputs = spec.prologue ? 3 : 2;
  const weight = emitWeightLoader({ ...spec.weight, binding: 1, name: 'weight', shaderF16: false, element: 'f32' });
  const output = emitOutput({ m, n, epilogue: spec.epilogue, out: spec.out }, inputs);
  const usesF16 = conv2dUsesF16(spec, target);
  const columns = s.threads * DIRECT_COLUMNS;
  const groupsN = Math.ceil(n / columns);
  const groupsM = Math.ceil(m / s.rows);
  const layers = Math.ceil(groupsM / target.limits.maxComputeWorkgroupsPerDimension);
  const groupsY = Math.ceil(groupsM / layers);
  const raggedM = layers * groupsY * s.rows !== m;
  const raggedN = n % DIRECT_COLUMNS !== 0;
  const each = <T>(count: number, f: (i: number) => T): T[] => Array.from({ length: count }, (_, i) => f(i));
  const channel = (j: number): string => (raggedN && j ? `min(col + ${j}u, ${n - 1}u)` : `col + ${j}u`);
  const wgsl = `${usesF16 ? 'enable f16;\n' : ''}${input.declarations}
${weight.declarations}
${output.declarations}

@compute @workgroup_size(${s.threads})
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
let col = (${layers > 1 ? `(group.x % ${groupsN}u)` : 'group.x'} * ${s.threads}u + thread) * ${DIRECT_COLUMNS}u;
${n % columns ? `if (col >= ${n}u) { return; }` : ''}
let rowBase = ${layers > 1 ? `(group.x / ${groupsN}u * ${groupsY}u + group.y)` : 'group.y'} * ${s.rows}u;
${each(
  s.rows,
  (i) => `let r${i} = ${raggedM ? `min(rowBase + ${i}u, ${m - 1}u)` : `rowBase + ${i}u`};
${input.window(String(i), `r${i}`)}
var c${i} = vec4<f32>();`,
).join('\n')}
for (var tap = 0u; tap < ${kernel * kernel}u + group.z; tap++) {
let ky = i32(tap / ${kernel}u);
let kx = i32(tap % ${kernel}u);
for (var c = 0u; c < ${cin}u + group.z; c += 4u) {
${each(DIRECT_COLUMNS, (j) => `let w${j} = ${weight.load(channel(j), `tap * ${cin}u + c`)};`).join('\n')}
${each(
  s.rows,
  (i) => `{ let x = ${input.load(`y${i} + ky`, `x${i} + kx`, 'c')};
${multiplyAdd(
  `c${i}`,
  'x',
  each(DIRECT_COLUMNS, (j) => `w${j}`),
)} }`,
).join('\n')}
}
}
${each(s.rows, (i) => {
  const store = `{ let row = r${i};\n${output.store(`c${i}`, { raggedM: false, raggedN })} }`;
  return raggedM && i ? `if (rowBase + ${i}u < ${m}u) ${store}` : store;
}).join('\n')}
}
`;
  return {
    label: `conv2d direct ${s.rows}×${columns} (${describeConv2d(spec)})`,
    wgsl,
    bindings: [...each(inputs, () => 'read' as const), ...output.bindings],
    workgroups: [groupsN * layers, groupsY, 1],
    flops: conv2dFlops(spec),
    bytes: conv2dBytes(spec),
    needs: { ...(usesF16 ? { features: ['shader-f16'] } : {}), invocations: s.threads, workgroupBytes: 0 },
  };
}
