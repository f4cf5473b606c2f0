// The matmul for a few rows (modulation, timestep and pooled-text embedders): a weight read once, nothing reused.
// Such products are bound by reading the weight, so threads split k and there is no tile to stage.

import { hasTier, type TargetProfile } from '../../targets/types.ts';
import type { KernelSource } from '../kernel.ts';
import { subgroupEnables, subgroupFeatures, subgroupSizeAttribute } from '../subgroups.ts';
import { emitInputs } from './inputs.ts';
import { emitOutput } from './output.ts';
import { describeMatmul, type MatmulSpec, matmulBytes, matmulFlops, usesF16 } from './spec.ts';

/** One workgroup of `threads` computes four columns of y for all rows. */
export interface SkinnySchedule {
  variant: 'skinny';
  /** A power of two. */
  threads: number;
  /** Reduce across a subgroup before workgroup memory; needs tier `subgroups`. */
  subgroups: boolean;
}

/** More rows than this need more registers than threads have. */
export const SKINNY_ROWS = 16;

/** Bytes of workgroup memory of the partial sums. */
export function skinnyWorkgroupBytes(s: SkinnySchedule, m: number, target: TargetProfile): number {
  return m * partials(s, target) * 16;
}

/**
 * y[m, n] = epilogue(Σₖ a[m, k] · b[n, k]) for m ≤ {@link SKINNY_ROWS}
 *
 * Thread t takes k = 4t, 4t + 4·threads, … of four consecutive rows of `b` and of every row of `a`, so a load of `b` by
 * neighbouring threads is contiguous. The partial sums, f32, meet by subgroupAdd and then in workgroup memory,
 * in a fixed order: the result does not vary from run to run. Products are f32 in every tier.
 */
export function skinnyMatmul(spec: MatmulSpec, target: TargetProfile, s: SkinnySchedule): KernelSource {
  const { m, n } = spec;
  const inputs = emitInputs(spec, target, 'f32', 4);
  const output = emitOutput(spec, inputs.count);
  const raggedN = n % 4 !== 0;
  const columns = Math.ceil(n / 4);
  const layers = Math.ceil(columns / target.limits.maxComputeWorkgroupsPerDimension);
  const groupsX = Math.ceil(columns / layers);
  const rows = Array.from({ length: m }, (_, r) => r);
  const perRow = partials(s, target);
  const clamp = raggedN || layers > 1;

  const accumulate = inputs.segments.map(
    (segment) => `for (var k = thread * 4u; k < ${segment.cols}u; k += ${s.threads * 4}u) {
${[0, 1, 2, 3]
  .map((j) => `let b${j} = ${segment.loadB(clamp ? `min(col + ${j}u, ${n - 1}u)` : `col + ${j}u`, 'k')};`)
  .join('\n')}
${rows
  .map(
    (r) => `{ let x = ${segment.loadA(`${r}u`, 'k')};
c${r} += vec4<f32>(dot(x, b0), dot(x, b1), dot(x, b2), dot(x, b3)); }`,
  )
  .join('\n')}
}`,
  );

  const reduce = s.subgroups
    ? `${rows.map((r) => `c${r} = subgroupAdd(c${r});`).join('\n')}
if (lane == 0u) {
${rows.map((r) => `sums[${r * perRow}u + subgroup] = c${r};`).join('\n')}
}
workgroupBarrier();
if (thread < ${m}u) {
let row = thread;
var sum = sums[row * ${perRow}u];
for (var i = 1u; i < subgroups; i++) { sum += sums[row * ${perRow}u + i]; }
${output.store('sum', { raggedM: false, raggedN: clamp })}
}`
    : `${rows.map((r) => `sums[${r * perRow}u + thread] = c${r};`).join('\n')}
for (var stride = ${s.threads / 2}u; stride > 0u; stride /= 2u) {
workgroupBarrier();
for (var i = thread; i < ${m}u * stride; i += ${s.threads}u) {
let at = (i / stride) * ${perRow}u + i % stride;
sums[at] += sums[at + stride];
}
}
workgroupBarrier();
if (thread < ${m}u) {
let row = thread;
let sum = sums[row * ${perRow}u];
${output.store('sum', { raggedM: false, raggedN: clamp })}
}`;

  const enables = [usesF16(spec, target) ? 'enable f16;' : '', s.subgroups ? subgroupEnables(target).trim() : ''];
  const subgroupInputs = s.subgroups
    ? `, @builtin(subgroup_invocation_id) lane: u32, @builtin(subgroup_id) subgroup: u32, @builtin(num_subgroups) subgroups: u32`
    : '';
  const wgsl = `${enables.filter(Boolean).join('\n')}
${inputs.declarations}
${output.declarations}
var<workgroup> sums: array<vec4<f32>, ${m * perRow}>;

@compute ${s.subgroups ? subgroupSizeAttribute(target) : ''}@workgroup_size(${s.threads})
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) thread: u32${subgroupInputs}) {
let col = ${layers > 1 ? `(group.y * ${groupsX}u + group.x)` : 'group.x'} * 4u;
${rows.map((r) => `var c${r} = vec4<f32>();`).join('\n')}
${accumulate.join('\n')}
${reduce}
}
`;
  const features = [...(usesF16(spec, target) ? ['shader-f16'] : []), ...(s.subgroups ? subgroupFeatures(target) : [])];
  return {
    label: `matmul skinny${s.subgroups ? ' subgroups' : ''} ${s.threads} (${describeMatmul(spec)})`,
    wgsl,
    bindings: [...Array.from({ length: inputs.count }, () => 'read' as const), ...output.bindings],
    workgroups: [groupsX, layers, 1],
    flops: matmulFlops(spec),
    bytes: matmulBytes(spec),
    needs: {
      ...(features.length ? { features } : {}),
      invocations: s.threads,
      workgroupBytes: skinnyWorkgroupBytes(s, m, target),
      ...(s.subgroups && target.subgroupSize ? { subgroupSize: target.subgroupSize } : {}),
    },
  };
}

/** Partial sums of a row that meet in workgroup memory. */
function partials(s: SkinnySchedule, target: TargetProfile): number {
  if (!s.subgroups) return s.threads;
  const smallest = hasTier(target, 'subgroups') ? (target.subgroupSize?.min ?? 4) : 4;
  return Math.max(1, s.threads / smallest);
}
