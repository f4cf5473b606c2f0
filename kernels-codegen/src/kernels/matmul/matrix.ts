// The matmul on matrix instructions (tensor cores, simdgroup matrices), which hold most of a large GPU's arithmetic.
// WGSL gives a matrix no element access, so whatever is not a product passes through workgroup memory.

import type { SubgroupMatrixConfig } from '../../../../runtime/src/program/types.ts';
import { hasTier, type TargetProfile } from '../../targets/types.ts';
import type { KernelSource } from '../kernel.ts';
import { emitInputs } from './inputs.ts';
import { emitOutput } from './output.ts';
import { describeMatmul, type MatmulSpec, matmulBytes, matmulFlops, tileElement, usesF16 } from './spec.ts';

/** `subgroupsM × subgroupsN` subgroups compute `tilesM × tilesN` matrices each; sizes count matrices of the device. */
export interface MatrixSchedule {
  variant: 'matrix';
  subgroupsM: number;
  subgroupsN: number;
  tilesM: number;
  tilesN: number;
  /** Columns staged at a time, a multiple of 8 and of the matrix's own k. */
  tileK: number;
  /** Matrices side by side that pass to the epilogue at a time; divides `tilesN`. */
  storeTiles: number;
}

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

/** Edges of the block one workgroup computes. */
export const matrixTile = (s: MatrixSchedule, c: SubgroupMatrixConfig): { tileM: number; tileN: number } => ({
  tileM: s.subgroupsM * s.tilesM * c.m,
  tileN: s.subgroupsN * s.tilesN * c.n,
});

/** Bytes of workgroup memory of both operands' tiles and of the results on their way to the epilogue. */
export function matrixWorkgroupBytes(s: MatrixSchedule, c: SubgroupMatrixConfig): number {
  const { tileM, tileN } = matrixTile(s, c);
  const results = s.subgroupsM * s.subgroupsN * c.m * s.storeTiles * c.n * 4;
  return (tileM + tileN) * rowVectors(s, c.componentType) * (c.componentType === 'f16' ? 8 : 16) + results;
}

/**
 * Vectors in a row of a staged tile: 16 bytes more than its values, so that rows do not all start in the same memory bank.
 * Less would break the rule of VK_KHR_cooperative_matrix that rows start on multiples of 16 bytes.
 */
export const rowVectors = (s: MatrixSchedule, element: 'f32' | 'f16'): number =>
  s.tileK / 4 + (element === 'f16' ? 2 : 1);

/**
 * y[m, n] = epilogue(Σₖ a[m, k] · b[n, k])
 *
 * One workgroup computes a tileM × tileN block, stepping over k in tileK columns of `a` and `b` staged in workgroup memory
 * as they lie in storage, k contiguous: `a` is loaded as row-major left matrices, `b` as column-major right ones. A subgroup
 * keeps its results, f32, in matrices to the end; then passes them, `storeTiles` matrices at a time, through workgroup
 * memory to the epilogue. Rows and columns beyond the edges repeat the last one and are not stored; k beyond a segment
 * is zero. Requires one subgroup size and a {@link matrixConfig}.
 */
export function matrixMatmul(
  spec: MatmulSpec,
  target: TargetProfile,
  s: MatrixSchedule,
  config: SubgroupMatrixConfig,
  subgroupSize: number,
): KernelSource {
  const { m, n } = spec;
  const element = config.componentType;
  const { tileM, tileN } = matrixTile(s, config);
  const subgroups = s.subgroupsM * s.subgroupsN;
  const threads = subgroups * subgroupSize;
  const stride = rowVectors(s, element);
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
  const rowOf = (r: string): string => (raggedM ? `min(rowBase + ${r}, ${m - 1}u)` : `rowBase + ${r}`);
  const colOf = (c: string): string => (raggedN ? `min(colBase + ${c}, ${n - 1}u)` : `colBase + ${c}`);
  const each = <T>(count: number, f: (i: number) => T): T[] => Array.from({ length: count }, (_, i) => f(i));
  const stage = (tile: string, rows: number, load: string): string =>
    `for (var i = thread; i < ${rows * kVectors}u; i += ${threads}u) {
let r = i / ${kVectors}u;
let q = i % ${kVectors}u;
${tile}[r * ${stride}u + q] = ${load};
}`;

  const left = `subgroup_matrix_left<${element}, ${config.k}, ${config.m}>`;
  const right = `subgroup_matrix_right<${element}, ${config.n}, ${config.k}>`;
  const result = `subgroup_matrix_result<f32, ${config.n}, ${config.m}>`;
  // Offsets and strides count the array's elements, here vectors of four.
  const at = (row: string): string => `(${row}) * ${stride}u + kk * ${config.k / 4}u`;
  const multiply = [
    ...each(
      s.tilesN,
      (j) =>
        `let b${j} = subgroupMatrixLoad<${right}, col_major>(&tileB, ${at(`subCol + ${j * config.n}u`)}, ${stride}u);`,
    ),
    ...each(s.tilesM, (i) => [
      `let a${i} = subgroupMatrixLoad<${left}, row_major>(&tileA, ${at(`subRow + ${i * config.m}u`)}, ${stride}u);`,
      ...each(s.tilesN, (j) => `c${i}_${j} = subgroupMatrixMultiplyAccumulate(a${i}, b${j}, c${i}_${j});`),
    ]).flat(),
  ];

  let firstStep = 0;
  const accumulate = inputs.segments
    .map((segment) => {
      const start = firstStep;
      firstStep += Math.ceil(segment.cols / s.tileK);
      const last = segment === inputs.segments.at(-1);
      const k = start ? `(t - ${start}u) * ${s.tileK}u` : `t * ${s.tileK}u`;
      return `${last ? '' : `if (t < ${firstStep}u) `}{
let k = ${k};
${stage('tileA', tileM, segment.loadA(rowOf('r'), 'k + q * 4u'))}
${stage('tileB', tileN, segment.loadB(colOf('r'), 'k + q * 4u'))}
}`;
    })
    .join(' else ');

  const width = s.storeTiles * config.n;
  const region = config.m * width;
  const store = each(s.tilesM, (i) =>
    each(s.tilesN / s.storeTiles, (part) => {
      const stores = each(s.storeTiles, (j) => {
        const value = `c${i}_${part * s.storeTiles + j}`;
        return `subgroupMatrixStore<row_major>(&results, subgroup * ${region}u + ${j * config.n}u, ${value}, ${width}u);`;
      });
      return `${stores.join('\n')}
workgroupBarrier();
for (var i = thread; i < ${(subgroups * region) / 4}u; i += ${threads}u) {
let owner = i / ${region / 4}u;
let r = i % ${region / 4}u / ${width / 4}u;
let row = rowBase + (owner / ${s.subgroupsN}u) * ${s.tilesM * config.m}u + ${i * config.m}u + r;
let col = colBase + (owner % ${s.subgroupsN}u) * ${s.tilesN * config.n}u + ${part * width}u + (i % ${width / 4}u) * 4u;
let value = vec4<f32>(results[i * 4u], results[i * 4u + 1u], results[i * 4u + 2u], results[i * 4u + 3u]);
${output.store('value', { raggedM, raggedN })}
}
workgroupBarrier();`;
    }),
  ).flat();

  const wgsl = `${half ? 'enable f16;\n' : ''}enable subgroups;
enable chromium_experimental_subgroup_matrix;
${inputs.declarations}
${output.declarations}
var<workgroup> tileA: array<vec4<${element}>, ${tileM * stride}>;
var<workgroup> tileB: array<vec4<${element}>, ${tileN * stride}>;
var<workgroup> results: array<f32, ${subgroups * region}>;

@compute @workgroup_size(${threads})
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) thread: u32, @builtin(subgroup_id) subgroup: u32) {
let rowBase = ${layers > 1 ? `(group.z * ${groupsY}u + group.y)` : 'group.y'} * ${tileM}u;
let colBase = group.x * ${tileN}u;
let subRow = (subgroup / ${s.subgroupsN}u) * ${s.tilesM * config.m}u;
let subCol = (subgroup % ${s.subgroupsN}u) * ${s.tilesN * config.n}u;
${each(s.tilesM, (i) => each(s.tilesN, (j) => `var c${i}_${j} = ${result}();`))
  .flat()
  .join('\n')}
for (var t = 0u; t < ${firstStep}u; t++) {
${accumulate}
workgroupBarrier();
for (var kk = 0u; kk < ${s.tileK / config.k}u; kk++) {
${multiply.join('\n')}
}
workgroupBarrier();
}
${store.join('\n')}
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
      features: ['chromium-experimental-subgroup-matrix', ...(half ? ['shader-f16'] : []), 'subgroups'],
      invocations: threads,
      workgroupBytes: matrixWorkgroupBytes(s, config),
      subgroupSize: { min: subgroupSize, max: subgroupSize },
      subgroupMatrix: config,
    },
  };
}
