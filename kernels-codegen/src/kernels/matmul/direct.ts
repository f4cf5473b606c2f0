// The matmul for adapters that run on the CPU (lavapipe, SwiftShader): no workgroup memory, no barrier, little text.
// There a shader's compilation costs more than its run, and memory shared by a workgroup is memory like any other.

import type { TargetProfile } from '../../targets/types.ts';
import type { KernelSource } from '../kernel.ts';
import { emitInputs } from './inputs.ts';
import { emitOutput } from './output.ts';
import { describeMatmul, type MatmulSpec, matmulBytes, matmulFlops, usesF16 } from './spec.ts';

/** A thread computes four neighbouring columns of `rows` rows; neighbouring threads, the next columns of the same rows. */
export interface DirectSchedule {
  variant: 'direct';
  threads: number;
  rows: number;
}

/** Columns a thread: one vector of the output. */
export const DIRECT_COLUMNS = 4;

/**
 * y[m, n] = epilogue(Σₖ a[m, k] · b[n, k])
 *
 * The rows follow from the workgroup alone, so a CPU's driver loads `a` once for all lanes and broadcasts it: what costs is
 * that broadcast, shared by a thread's columns, and the gather of `b`, shared by its rows. f16 is read as 32-bit words,
 * because a driver gathers 16-bit values one at a time.
 * The loop over k ends at a bound the driver cannot know, by adding `group.z`, always 0: loops of few turns, unrolled
 * throughout, took lavapipe up to 13 s to compile.
 * Products and sums are f32.
 */
export function directMatmul(spec: MatmulSpec, target: TargetProfile, s: DirectSchedule): KernelSource {
  const { m, n } = spec;
  const inputs = emitInputs(spec, target, 'f32', 4, true);
  const output = emitOutput(spec, inputs.count);
  const columns = s.threads * DIRECT_COLUMNS;
  const groupsN = Math.ceil(n / columns);
  const groupsM = Math.ceil(m / s.rows);
  const layers = Math.ceil(groupsM / target.limits.maxComputeWorkgroupsPerDimension);
  const groupsY = Math.ceil(groupsM / layers);
  const raggedM = layers * groupsY * s.rows !== m;
  const raggedN = n % DIRECT_COLUMNS !== 0;
  const each = <T>(count: number, f: (i: number) => T): T[] => Array.from({ length: count }, (_, i) => f(i));
  const column = (j: number): string => (raggedN && j ? `min(col + ${j}u, ${n - 1}u)` : `col + ${j}u`);

  const wgsl = `${usesF16(spec, target) ? 'enable f16;\n' : ''}${inputs.declarations}
${output.declarations}

@compute @workgroup_size(${s.threads})
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
let col = (${layers > 1 ? `(group.x % ${groupsN}u)` : 'group.x'} * ${s.threads}u + thread) * ${DIRECT_COLUMNS}u;
${n % columns ? `if (col >= ${n}u) { return; }` : ''}
let rowBase = ${layers > 1 ? `(group.x / ${groupsN}u * ${groupsY}u + group.y)` : 'group.y'} * ${s.rows}u;
${each(s.rows, (i) => `let r${i} = ${raggedM ? `min(rowBase + ${i}u, ${m - 1}u)` : `rowBase + ${i}u`};\nvar c${i} = vec4<f32>();`).join('\n')}
${inputs.segments
  .map(
    (segment) => `for (var k = 0u; k < ${segment.cols}u + group.z; k += 4u) {
${each(DIRECT_COLUMNS, (j) => `let w${j} = ${segment.loadB(column(j), 'k')};`).join('\n')}
${each(
  s.rows,
  (i) => `{ let x = ${segment.loadA(`r${i}`, 'k')};
${multiplyAdd(
  `c${i}`,
  'x',
  each(DIRECT_COLUMNS, (j) => `w${j}`),
)} }`,
).join('\n')}
}`,
  )
  .join('\n')}
${each(s.rows, (i) => {
  const store = `{ let row = r${i};\n${output.store(`c${i}`, { raggedM: false, raggedN })} }`;
  return raggedM && i ? `if (rowBase + ${i}u < ${m}u) ${store}` : store;
}).join('\n')}
}
`;
  return {
    label: `matmul direct ${s.rows}×${columns} (${describeMatmul(spec)})`,
    wgsl,
    bindings: [...each(inputs.count, () => 'read' as const), ...output.bindings],
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

/** Statement that adds to each component of `sum` the dot product of `x` with one of the four vectors `w`. */
export const multiplyAdd = (sum: string, x: string, w: readonly string[]): string =>
  `${sum} += vec4<f32>(${w.map((v) => `dot(${x}, ${v})`).join(', ')});`;

/**
 * The split of a product of `m` × `n` × `k`. Eight lanes are a vector of most CPUs. Rows share the gathers of the right
 * operand, but a text of eight takes lavapipe four times as long to compile as one of two (0.8 s and 0.2 s), so they must
 * have work: 256×1024×384 in f16 runs at 12 GFLOP/s a CPU with eight, 10 with four, 6 with two. Sixteen spill.
 */
export function directSchedule(m: number, n: number, k: number): DirectSchedule {
  const threads = 8;
  const work = 2 * m * n * k;
  const rows = work < 2 ** 26 ? 2 : work < 2 ** 29 ? 4 : 8;
  return { variant: 'direct', threads, rows: Math.min(rows, m) };
}

/** What measuring may choose from: more lanes, and texts of one row to sixteen. */
export function directCandidates(m: number): DirectSchedule[] {
  return [8, 4, 16, 32].flatMap((threads) =>
    [1, 2, 4, 8, 16].filter((rows) => rows <= m).map((rows) => ({ variant: 'direct' as const, threads, rows })),
  );
}
