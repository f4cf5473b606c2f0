// The matmul on matrix instructions (tensor cores, simdgroup matrices), which hold most of a large GPU's arithmetic.
// WGSL gives a matrix no element access, so whatever is not a product passes through workgroup memory.

import type { SubgroupMatrixConfig } from '../../../../runtime/src/program/types.ts';
import { hasTier, type TargetProfile } from '../../targets/types.ts';
import type { KernelSource } from '../kernel.ts';
import { emitMatrixProduct } from '../matrix/product.ts';
import { type MatrixSchedule, matrixTile, matrixWorkgroupBytes } from '../matrix/schedule.ts';
import { type Copy, rowOf, stage } from '../staging.ts';
import { subgroupEnables, subgroupFeatures, subgroupSizeAttribute } from '../subgroups.ts';
import { emitInputs } from './inputs.ts';
import { emitOutput } from './output.ts';
import { describeMatmul, type MatmulSpec, matmulBytes, matmulFlops, tileElement, usesF16 } from './spec.ts';

/**
 * The matrix shape a spec is computed with, f32 results only: f16 → f32, else f32 → f32 (Apple), to which f16 tiles are
 * widened. The largest of several. None when the target lacks both, or is to keep f32 activations and lacks the second.
 */
export function matrixConfig(spec: MatmulSpec, target: TargetProfile): SubgroupMatrixConfig | undefined {
  const { subgroupSize: size, subgroupMatrix = [] } = target;
  if (!hasTier(target, 'subgroup-matrix') || !size || size.min !== size.max) return undefined;
  const work = (c: SubgroupMatrixConfig): number => c.m * c.n * c.k;
  const of = (type: 'f32' | 'f16'): SubgroupMatrixConfig | undefined =>
    subgroupMatrix
      .filter((c) => c.componentType === type && c.resultType === 'f32')
      .sort((a, b) => work(b) - work(a))[0];
  return (tileElement(spec, target) === 'f16' ? of('f16') : undefined) ?? of('f32');
}

/**
 * y[m, n] = epilogue(Σₖ a[m, k] · b[n, k])
 *
 * One workgroup computes a tileM × tileN block, stepping over k in tileK columns of `a` and `b` staged in workgroup memory
 * as they lie in storage, k contiguous. A subgroup keeps its results, f32, in matrices to the end; then passes them,
 * `storeTiles` matrices at a time, through workgroup memory to the epilogue. Rows and columns beyond the edges repeat the last one and are not stored; k beyond a segment
 * is zero. Requires one subgroup size and a {@link matrixConfig}.
 */
export function matrixMatmul(
  spec: MatmulSpec,
  target: TargetProfile,
  s: MatrixSchedule,
  config: SubgroupMatrixConfig,
): KernelSource {
  const { m, n } = spec;
  const element = config.componentType;
  const { tileM, tileN } = matrixTile(s, config);
  const threads = s.subgroupsM * s.subgroupsN * target.subgroupSize!.max;
  const kVectors = s.tileK / 4;
  const half = element === 'f16' || usesF16(spec, target);
  const inputs = emitInputs(spec, target, element, s.tileK);
  const output = emitOutput(spec, inputs.count);

  const groupsN = Math.ceil(n / tileN);
  const groupsM = Math.ceil(m / tileM);
  const layers = Math.ceil(groupsM / target.limits.maxComputeWorkgroupsPerDimension);
  const groupsY = Math.ceil(groupsM / layers);
  const raggedM = layers * groupsY * tileM !== m;
  const raggedN = n % tileN !== 0;
  const product = emitMatrixProduct(s, config, threads, output, { raggedM, raggedN });
  const inM = (r: string): string => (raggedM ? `min(rowBase + ${r}, ${m - 1}u)` : `rowBase + ${r}`);
  const inN = (c: string): string => (raggedN ? `min(colBase + ${c}, ${n - 1}u)` : `colBase + ${c}`);
  const rows = (tile: 'a' | 'b', count: number, load: (row: string, k: string) => string): Copy => ({
    count: count * kVectors,
    width: kVectors,
    item: (place) => ({
      values: [load(rowOf(place), `k + ${place.col} * 4u`)],
      store: ([v]) => product.store(tile, place, v!),
    }),
  });

  let firstStep = 0;
  const accumulate = inputs.segments
    .map((segment) => {
      const start = firstStep;
      firstStep += Math.ceil(segment.cols / s.tileK);
      const last = segment === inputs.segments.at(-1);
      const k = start ? `(t - ${start}u) * ${s.tileK}u` : `t * ${s.tileK}u`;
      const copies = [
        rows('a', tileM, (r, q) => segment.loadA(inM(r), q)),
        rows('b', tileN, (r, q) => segment.loadB(inN(r), q)),
      ];
      return `${last ? '' : `if (t < ${firstStep}u) `}{
let k = ${k};
${stage(copies, threads)}
}`;
    })
    .join(' else ');

  const wgsl = `${half ? 'enable f16;\n' : ''}${subgroupEnables(target)}enable chromium_experimental_subgroup_matrix;
${inputs.declarations}
${output.declarations}
${product.declarations}

@compute ${subgroupSizeAttribute(target)}@workgroup_size(${threads})
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) thread: u32, @builtin(subgroup_id) subgroup: u32) {
let rowBase = ${layers > 1 ? `(group.z * ${groupsY}u + group.y)` : 'group.y'} * ${tileM}u;
let colBase = group.x * ${tileN}u;
${product.before}
for (var t = 0u; t < ${firstStep}u; t++) {
${accumulate}
workgroupBarrier();
${product.multiply}
workgroupBarrier();
}
${product.after}
}
`;
  return {
    label: `matmul matrix ${element} ${tileM}×${tileN}×${s.tileK} (${describeMatmul(spec)})`,
    wgsl,
    bindings: [...Array.from({ length: inputs.count }, () => 'read' as const), ...output.bindings],
    workgroups: [groupsN, groupsY, layers],
    flops: matmulFlops(spec),
    bytes: matmulBytes(spec),
    needs: {
      features: ['chromium-experimental-subgroup-matrix', ...(half ? ['shader-f16'] : []), ...subgroupFeatures(target)],
      invocations: threads,
      workgroupBytes: matrixWorkgroupBytes(s, config),
      subgroupSize: target.subgroupSize!,
      subgroupMatrix: config,
    },
  };
}
