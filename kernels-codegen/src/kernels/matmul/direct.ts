// The matmul for adapters that run on the CPU (lavapipe, SwiftShader): no workgroup memory, no barrier, little text.
// There a shader's compilation costs more than its run, and memory shared by a workgroup is memory like any other.

import type { TargetProfile } from '../../targets/types.ts';
import { emitEpilogue } from '../epilogue.ts';
import type { KernelSource } from '../kernel.ts';
import { emitInputs } from './inputs.ts';
import { describeMatmul, type MatmulSpec, matmulBytes, matmulFlops, usesF16 } from './spec.ts';

/** Neighbouring threads compute neighbouring columns of the same `rows` rows. */
export interface DirectSchedule {
  variant: 'direct';
  threads: number;
  rows: number;
}

/**
 * y[m, n] = epilogue(Σₖ a[m, k] · b[n, k])
 *
 * A thread computes one column of `rows` rows. The rows follow from the workgroup alone, so a CPU's driver loads `a` once
 * for all lanes. Measured on lavapipe, 256×512×512 f32: as fast as 64×64 tiles, compiled in 0.2 s instead of 2.
 * The loop over k ends at a bound the driver cannot know, by adding `group.z`, always 0: loops of few turns, unrolled
 * throughout, took lavapipe up to 13 s to compile.
 * Products and sums are f32.
 */
export function directMatmul(spec: MatmulSpec, target: TargetProfile, s: DirectSchedule): KernelSource {
  const { m, n } = spec;
  const inputs = emitInputs(spec, target, 'f32', 4);
  const epilogue = emitEpilogue(spec.epilogue, spec.out, inputs.count, 1);
  const groupsN = Math.ceil(n / s.threads);
  const groupsM = Math.ceil(m / s.rows);
  const layers = Math.ceil(groupsM / target.limits.maxComputeWorkgroupsPerDimension);
  const groupsY = Math.ceil(groupsM / layers);
  const raggedM = layers * groupsY * s.rows !== m;
  const rows = Array.from({ length: s.rows }, (_, i) => i);

  const wgsl = `${usesF16(spec, target) ? 'enable f16;\n' : ''}${inputs.declarations}
${epilogue.declarations}

@compute @workgroup_size(${s.threads})
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
let col = ${layers > 1 ? `(group.x % ${groupsN}u)` : 'group.x'} * ${s.threads}u + thread;
${n % s.threads ? `if (col >= ${n}u) { return; }` : ''}
let rowBase = ${layers > 1 ? `(group.x / ${groupsN}u * ${groupsY}u + group.y)` : 'group.y'} * ${s.rows}u;
${rows.map((i) => `let r${i} = ${raggedM ? `min(rowBase + ${i}u, ${m - 1}u)` : `rowBase + ${i}u`};\nvar c${i} = 0.0f;`).join('\n')}
${inputs.segments
  .map(
    (segment) => `for (var k = 0u; k < ${segment.cols}u + group.z; k += 4u) {
let w = ${segment.loadB('col', 'k')};
${rows.map((i) => `c${i} += dot(${segment.loadA(`r${i}`, 'k')}, w);`).join('\n')}
}`,
  )
  .join('\n')}
${rows
  .map((i) => {
    const store = epilogue.store(`r${i}`, 'col', `c${i}`);
    return raggedM && i ? `if (rowBase + ${i}u < ${m}u) {\n${store}\n}` : store;
  })
  .join('\n')}
}
`;
  return {
    label: `matmul direct ${s.rows}×${s.threads} (${describeMatmul(spec)})`,
    wgsl,
    bindings: [...Array.from({ length: inputs.count }, () => 'read' as const), ...epilogue.bindings],
    workgroups: [groupsN * layers, groupsY, 1],
    flops: matmulFlops(spec),
    bytes: matmulBytes(spec),
    needs: {
      ...(usesF16(spec, target) ? { features: ['shader-f16'] } : {}),
      invocations: s.threads,
      workgroupBytes: 0,
    },
  };
}
