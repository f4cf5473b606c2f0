// The matmul on matrix instructions (tensor cores, simdgroup matrices), which hold most of a large GPU's arithmetic.
// WGSL gives a matrix no element access, so whatever is not a product passes through workgroup memory.

import type { SubgroupMatrixConfig } from '../../../../runtime/src/program/types.ts';
import { hasTier, type TargetProfile } from '../../targets/types.ts';
import type { BlockReader } from '../../wgsl/sixteen.ts';
import { ANY_ROWS, LITERALS } from '../../wgsl/sizes.ts';
import type { KernelSource } from '../kernel.ts';
import { emitMatrixProduct, twoBuffers } from '../matrix/product.ts';
import { type MatrixSchedule, matrixTile, matrixWorkgroupBytes, unitOf } from '../matrix/schedule.ts';
import { type Copy, rowOf } from '../staging.ts';
import { subgroupEnables, subgroupFeatures, subgroupSizeAttribute } from '../subgroups.ts';
import { emitNormedOutput } from './heads.ts';
import { matrixSteps } from './matrix-steps.ts';
import { emitOutput } from './output.ts';
import { emitRows, type Part } from './rows16.ts';
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
  const unit = unitOf(element);
  const width = s.tileK / unit;
  const half = element === 'f16' || usesF16(spec, target);
  const groupsN = Math.ceil(n / tileN);
  const groupsM = Math.ceil(m / tileM);
  const layers = Math.ceil(groupsM / target.limits.maxComputeWorkgroupsPerDimension);
  const groupsY = Math.ceil(groupsM / layers);
  const raggedM = layers * groupsY * tileM !== m;
  const raggedN = n % tileN !== 0;
  // Whole tiles in one layer: nothing in the text depends on the number of rows, and FLUX's streams share their kernels.
  const sizes = !raggedM && layers === 1 ? ANY_ROWS : LITERALS;
  const inputs = emitRows(spec, target, element, s.tileK, sizes);
  const output = spec.heads
    ? emitNormedOutput(spec, target, s, config, inputs.count, sizes)
    : emitOutput(spec, inputs.count, sizes);
  const product = emitMatrixProduct(s, config, threads, output, { raggedM, raggedN }, layers === 1 ? ' + group.z' : '');
  /** Rows of a tile, 16 bytes at a time; a row beyond the edge is the last one again. */
  const rows = (tile: 'a' | 'b', read: Part['left'][0]['read']): Copy => {
    const [count, base, last] =
      tile === 'a' ? [tileM, 'rowBase', raggedM && m - 1] : [tileN, 'colBase', raggedN && n - 1];
    return {
      count: count * width,
      width,
      words: 4,
      spread: true,
      item: (at) => ({
        values: [
          last === false
            ? read(`${base} + ${at.row}`, at.more, `k + ${at.col} * ${unit}u`)
            : read(`min(${base} + ${rowOf(at)}, ${last}u)`, 0, `k + ${at.col} * ${unit}u`),
        ],
        store: ([v]) => product.store(tile, at, v!),
      }),
    };
  };
  /** Blocks of the right operand's stored values: 32 of a row, unpacked where they are stored. */
  const blocks = (block: BlockReader): Copy => ({
    count: (tileN * s.tileK) / 32,
    width: s.tileK / 32,
    words: 4,
    item: (at) => ({
      values: block.values(
        raggedN ? `min(colBase + ${rowOf(at)}, ${n - 1}u)` : `colBase + ${rowOf(at)}`,
        `k + ${at.col} * 32u`,
      ),
      store: (names) =>
        block
          .octets(names)
          .map((value, i) => product.store('b', { ...at, col: `${at.col} * 4u + ${i}u` }, value))
          .join('\n'),
    }),
  });

  const steps = matrixSteps({
    parts: inputs.parts,
    threads,
    tileK: s.tileK,
    type: element === 'f16' ? 'vec4<u32>' : 'vec4<f32>',
    rows,
    blocks,
  });
  const loop = s.buffers
    ? twoBuffers(s, config, steps.count, steps.prefetch(), product.multiply)
    : `for (var t = 0u; t < ${steps.count}u; t++) {
${steps.stage()}
workgroupBarrier();
${product.multiply}
workgroupBarrier();
}`;

  const wgsl = `${half ? 'enable f16;\n' : ''}${subgroupEnables(target)}enable chromium_experimental_subgroup_matrix;
${inputs.declarations}
${output.declarations}
${product.declarations}

@compute ${subgroupSizeAttribute(target)}@workgroup_size(${threads})
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) thread: u32, @builtin(subgroup_id) subgroup: u32) {
let rowBase = ${layers > 1 ? `(group.z * ${groupsY}u + group.y)` : 'group.y'} * ${tileM}u;
let colBase = group.x * ${tileN}u;
${product.before}
${loop}
${product.after}
}
`;
  return {
    label: `matmul matrix ${element} ${tileM}×${tileN}×${s.tileK}${s.buffers ? ' two buffers' : ''} (${describeMatmul(spec)})`,
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
