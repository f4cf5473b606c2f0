// The convolution on matrix instructions (tensor cores, simdgroup matrices): the matmul's, with an image for its left operand.
// Chosen and limited as the matmul of the same sizes, which it is once a tile of taps is staged.

import type { SubgroupMatrixConfig } from '../../../../runtime/src/program/types.ts';
import { hasTier, type TargetProfile } from '../../targets/types.ts';
import { emitWeightLoader } from '../../wgsl/weights.ts';
import type { KernelSource } from '../kernel.ts';
import { type MatrixSchedule, matrixTile, matrixWorkgroupBytes, rowVectors } from '../matmul/matrix.ts';
import { emitOutput } from '../matmul/output.ts';
import type { MatmulSpec } from '../matmul/spec.ts';
import { emitConv2dInput } from './input.ts';
import { type Conv2dSpec, conv2dBytes, conv2dElement, conv2dFlops, conv2dUsesF16, describeConv2d } from './spec.ts';
import { stageImage } from './stage.ts';

/** The matmul whose left operand would be the matrix of taps, with the type that taps are staged in. */
export function equivalentMatmul(spec: Conv2dSpec, target: TargetProfile): MatmulSpec {
  const { weight, epilogue, out } = spec;
  const type = conv2dElement(spec, target);
  const taps = { type, rows: out.rows, cols: weight.cols, rowStride: weight.cols, offset: 0 };
  return { m: out.rows, n: spec.cout, segments: [{ a: taps }], weight, epilogue, out };
}

/**
 * m = output pixels in row order, n = output channels, k = (ky, kx, c).
 *
 * One workgroup computes a tileM × tileN block, stepping over tileK taps of image and weight staged in workgroup memory
 * with k contiguous: the taps are row-major left matrices, the weight column-major right ones. A subgroup keeps its results,
 * f32, in matrices to the end; then passes them, `storeTiles` at a time, through workgroup memory to the epilogue.
 * Requires one subgroup size and a matrix shape with f32 results.
 */
export function matrixConv2d(
  spec: Conv2dSpec,
  target: TargetProfile,
  s: MatrixSchedule,
  config: SubgroupMatrixConfig,
  subgroupSize: number,
): KernelSource {
  const { cout: n } = spec;
  const m = spec.out.rows;
  const k = spec.weight.cols;
  const element = config.componentType;
  const { tileM, tileN } = matrixTile(s, config);
  const subgroups = s.subgroupsM * s.subgroupsN;
  const threads = subgroups * subgroupSize;
  const stride = rowVectors(s, element);
  const kVectors = s.tileK / 4;
  const half = element === 'f16' || conv2dUsesF16(spec, target);
  const shaderF16 = hasTier(target, 'f16');
  const input = emitConv2dInput(spec, element, 2);
  const weight = emitWeightLoader({ ...spec.weight, binding: 1, name: 'weight', shaderF16, element });
  const inputs = spec.prologue ? 3 : 2;
  const output = emitOutput({ m, n, epilogue: spec.epilogue, out: spec.out }, inputs);

  const [groupsN, groupsM] = [Math.ceil(n / tileN), Math.ceil(m / tileM)];
  const layers = Math.ceil(groupsM / target.limits.maxComputeWorkgroupsPerDimension);
  const groupsY = Math.ceil(groupsM / layers);
  const raggedM = layers * groupsY * tileM !== m;
  const raggedN = n % tileN !== 0;
  const image = stageImage({ spec, input, element, tile: 'tileA', tileM, tileK: s.tileK, stride, threads, raggedM });
  const channel = raggedN ? `min(colBase + r, ${n - 1}u)` : 'colBase + r';
  // Taps beyond the last are zero in the image's tile; the weight only has to stay inside its row.
  const tap = k % s.tileK ? `min(k + q * 4u, ${k - 4}u)` : 'k + q * 4u';

  const each = <T>(count: number, f: (i: number) => T): T[] => Array.from({ length: count }, (_, i) => f(i));
  const left = `subgroup_matrix_left<${element}, ${config.k}, ${config.m}>`;
  const right = `subgroup_matrix_right<${element}, ${config.n}, ${config.k}>`;
  const result = `subgroup_matrix_result<f32, ${config.n}, ${config.m}>`;
  const at = (row: string): string => `(${row}) * ${stride}u + kk * ${config.k / 4}u, ${stride}u`;
  const multiply = [
    ...each(s.tilesN, (j) => {
      return `let b${j} = subgroupMatrixLoad<${right}, col_major>(&tileB, ${at(`subCol + ${j * config.n}u`)});`;
    }),
    ...each(s.tilesM, (i) => [
      `let a${i} = subgroupMatrixLoad<${left}, row_major>(&tileA, ${at(`subRow + ${i * config.m}u`)});`,
      ...each(s.tilesN, (j) => `c${i}_${j} = subgroupMatrixMultiplyAccumulate(a${i}, b${j}, c${i}_${j});`),
    ]).flat(),
  ];
  const width = s.storeTiles * config.n;
  const region = config.m * width;
  const passes = each(s.tilesM, (i) => each(s.tilesN / s.storeTiles, (part) => ({ i, part }))).flat();
  const store = passes.map(({ i, part }) => {
    const stores = each(s.storeTiles, (j) => {
      const value = `c${i}_${part * s.storeTiles + j}`;
      return `subgroupMatrixStore<row_major>(&results, subgroup * ${region}u + ${j * config.n}u, ${value}, ${width}u);`;
    });
    return `${stores.join('\n')}
workgroupBarrier();
for (var i = thread * 4u; i < ${subgroups * region}u; i += ${threads * 4}u) {
let owner = i / ${region}u;
let row = rowBase + owner / ${s.subgroupsN}u * ${s.tilesM * config.m}u + ${i * config.m}u + i % ${region}u / ${width}u;
let col = colBase + owner % ${s.subgroupsN}u * ${s.tilesN * config.n}u + ${part * width}u + i % ${width}u;
let value = vec4<f32>(results[i], results[i + 1u], results[i + 2u], results[i + 3u]);
${output.store('value', { raggedM, raggedN })}
}
workgroupBarrier();`;
  });

  const wgsl = `${half ? 'enable f16;\n' : ''}enable subgroups;
enable chromium_experimental_subgroup_matrix;
${input.declarations}
${weight.declarations}
${output.declarations}
var<workgroup> tileA: array<vec4<${element}>, ${tileM * stride}>;
var<workgroup> tileB: array<vec4<${element}>, ${tileN * stride}>;
var<workgroup> results: array<f32, ${subgroups * region}>;

@compute @workgroup_size(${threads})
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) thread: u32, @builtin(subgroup_id) subgroup: u32) {
let rowBase = ${layers > 1 ? `(group.z * ${groupsY}u + group.y)` : 'group.y'} * ${tileM}u;
let colBase = group.x * ${tileN}u;
let subRow = subgroup / ${s.subgroupsN}u * ${s.tilesM * config.m}u;
let subCol = subgroup % ${s.subgroupsN}u * ${s.tilesN * config.n}u;
${image.before}
${each(s.tilesM, (i) => each(s.tilesN, (j) => `var c${i}_${j} = ${result}();`))
  .flat()
  .join('\n')}
for (var k = 0u; k < ${k}u; k += ${s.tileK}u) {
${image.fill}
for (var i = thread; i < ${tileN * kVectors}u; i += ${threads}u) {
let r = i / ${kVectors}u;
let q = i % ${kVectors}u;
tileB[r * ${stride}u + q] = ${weight.load(channel, tap)};
}
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
    label: `conv2d matrix ${element} ${tileM}×${tileN}×${s.tileK} (${describeConv2d(spec)})`,
    wgsl,
    bindings: [...each(inputs, () => 'read' as const), ...output.bindings],
    workgroups: [groupsN, groupsY, layers],
    flops: conv2dFlops(spec),
    bytes: conv2dBytes(spec),
    needs: {
      features: ['chromium-experimental-subgroup-matrix', ...(half ? ['shader-f16'] : []), 'subgroups'],
      invocations: threads,
      workgroupBytes: matrixWorkgroupBytes(s, config),
      subgroupSize: { min: subgroupSize, max: subgroupSize },
      subgroupMatrix: config,
    },
  };
}
