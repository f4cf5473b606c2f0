// The convolution on matrix instructions (tensor cores, simdgroup matrices): the matmul's, with an image for its left operand.
// Chosen and limited as the matmul of the same sizes, which it is once a tile of taps is staged.

import type { SubgroupMatrixConfig } from '../../../../runtime/src/program/types.ts';
import { hasTier, type TargetProfile } from '../../targets/types.ts';
import { emitOctetReader, sixteenOf } from '../../wgsl/sixteen.ts';
import { emitWeightLoader } from '../../wgsl/weights.ts';
import type { KernelSource } from '../kernel.ts';
import { emitOutput } from '../matmul/output.ts';
import type { MatmulSpec } from '../matmul/spec.ts';
import { emitMatrixProduct, twoBuffers } from '../matrix/product.ts';
import { type MatrixSchedule, matrixTile, matrixWorkgroupBytes, unitOf } from '../matrix/schedule.ts';
import { type Copy, type Place, prefetch, rowOf, stage } from '../staging.ts';
import { subgroupEnables, subgroupFeatures, subgroupSizeAttribute } from '../subgroups.ts';
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
 * with k contiguous; the rest is the matmul's.
 * Requires one subgroup size and a matrix shape with f32 results.
 */
export function matrixConv2d(
  spec: Conv2dSpec,
  target: TargetProfile,
  s: MatrixSchedule,
  config: SubgroupMatrixConfig,
): KernelSource {
  const { cout: n } = spec;
  const m = spec.out.rows;
  const k = spec.weight.cols;
  const element = config.componentType;
  const { tileM, tileN } = matrixTile(s, config);
  const threads = s.subgroupsM * s.subgroupsN * target.subgroupSize!.max;
  const unit = unitOf(element);
  const width = s.tileK / unit;
  const half = element === 'f16' || conv2dUsesF16(spec, target);
  const shaderF16 = hasTier(target, 'f16');
  const input = emitConv2dInput(spec, element, 2);
  const stored = { ...spec.weight, binding: 1, name: 'weight' };
  const octets = element === 'f16' ? emitOctetReader(stored) : undefined;
  const weight = emitWeightLoader({ ...stored, shaderF16, element });
  const inputs = spec.prologue ? 3 : 2;
  const output = emitOutput({ m, n, epilogue: spec.epilogue, out: spec.out }, inputs);

  const [groupsN, groupsM] = [Math.ceil(n / tileN), Math.ceil(m / tileM)];
  const layers = Math.ceil(groupsM / target.limits.maxComputeWorkgroupsPerDimension);
  const groupsY = Math.ceil(groupsM / layers);
  const raggedM = layers * groupsY * tileM !== m;
  const raggedN = n % tileN !== 0;
  const product = emitMatrixProduct(s, config, threads, output, { raggedM, raggedN }, layers === 1 ? ' + group.z' : '');
  const image = stageImage({
    spec,
    input,
    element,
    tileM,
    tileK: s.tileK,
    threads,
    raggedM,
    unit,
    spread: true,
    store: (at, v) => product.store('a', at, v),
  });
  const channel = (r: string): string => (raggedN ? `min(colBase + ${r}, ${n - 1}u)` : `colBase + ${r}`);
  // Taps beyond the last are zero in the image's tile; the weight only has to stay inside its row.
  const tap = (q: string): string => (k % s.tileK ? `min(k + ${q}, ${k - 4}u)` : `k + ${q}`);
  const loads = (place: Place): string[] => {
    const row = channel(rowOf(place));
    if (octets)
      return [
        `weight_read(${row}, 0u, ${k % s.tileK ? `min(k + ${place.col} * 8u, ${k - 8}u)` : `k + ${place.col} * 8u`})`,
      ];
    return Array.from({ length: unit / 4 }, (_, i) => weight.load(row, tap(`${place.col} * ${unit}u + ${4 * i}u`)));
  };
  const weights: Copy = {
    count: tileN * width,
    width,
    spread: true,
    item: (place) => ({
      values: loads(place),
      store: (v) => product.store('b', place, sixteenOf(v)),
    }),
  };

  const ahead = () => {
    const quad = `vec4<${element}>`;
    const [a, b] = [
      prefetch(image.copy, threads, 'a', quad),
      prefetch(weights, threads, 'b', octets ? 'vec4<u32>' : quad),
    ];
    return {
      declare: `${a.declare}\n${b.declare}`,
      load: `{\nlet k = t * ${s.tileK}u;\n${image.tap}\n${a.load}\n${b.load}\n}`,
      store: `${a.store}\n${b.store}`,
    };
  };
  const loop = s.buffers
    ? twoBuffers(s, config, Math.ceil(k / s.tileK), ahead(), product.multiply)
    : `for (var k = 0u; k < ${k}u; k += ${s.tileK}u) {
${image.tap}
${stage([image.copy, weights], threads)}
workgroupBarrier();
${product.multiply}
workgroupBarrier();
}`;

  const wgsl = `${half ? 'enable f16;\n' : ''}${subgroupEnables(target)}enable chromium_experimental_subgroup_matrix;
${input.declarations}
${octets ?? weight.declarations}
${output.declarations}
${product.declarations}

@compute ${subgroupSizeAttribute(target)}@workgroup_size(${threads})
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) thread: u32, @builtin(subgroup_id) subgroup: u32) {
let rowBase = ${layers > 1 ? `(group.z * ${groupsY}u + group.y)` : 'group.y'} * ${tileM}u;
let colBase = group.x * ${tileN}u;
${product.before}
${image.before}
${loop}
${product.after}
}
`;
  return {
    label: `conv2d matrix ${element} ${tileM}×${tileN}×${s.tileK}${s.buffers ? ' two buffers' : ''} (${describeConv2d(spec)})`,
    wgsl,
    bindings: [...Array.from({ length: inputs }, () => 'read' as const), ...output.bindings],
    workgroups: [groupsN, groupsY, layers],
    flops: conv2dFlops(spec),
    bytes: conv2dBytes(spec),
    needs: {
      features: ['chromium-experimental-subgroup-matrix', ...(half ? ['shader-f16'] : []), ...subgroupFeatures(target)],
      invocations: threads,
      workgroupBytes: matrixWorkgroupBytes(s, config),
      subgroupSize: target.subgroupSize!,
      subgroupMatrix: config,
    },
  };
}
