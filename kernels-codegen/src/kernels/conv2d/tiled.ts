// The convolution every GPU can run: implicit GEMM with blocks of the output in registers.
// The matrix of taps, nine times the image, exists only a tile at a time in workgroup memory.

import { hasTier, type TargetProfile } from '../../targets/types.ts';
import { emitWeightLoader } from '../../wgsl/weights.ts';
import type { KernelSource } from '../kernel.ts';
import { emitOutput } from '../matmul/output.ts';
import { PACKED_BYTES, PACKED_DECLARATIONS, packedProducts, watched, watchedStep } from '../packed.ts';
import { type Copy, indexOf, rowOf, stage, storeTransposed } from '../staging.ts';
import { emitConv2dInput } from './input.ts';
import { type Conv2dSpec, conv2dBytes, conv2dElement, conv2dFlops, conv2dUsesF16, describeConv2d } from './spec.ts';
import { stageImage } from './stage.ts';

/** `threadsM × threadsN` threads compute `rows` pixels × `cols` channels each, stepping over the taps by `tileK`. */
export interface TiledConv2dSchedule {
  variant: 'tiled';
  threadsM: number;
  threadsN: number;
  rows: number;
  /** A multiple of 4. */
  cols: number;
  /** A multiple of 4; best a divisor of cin, so that a step stays on one tap. */
  tileK: number;
  /** Products are summed in f16, 16 at a time; see `packed.ts`. */
  packed?: true;
}

/** Bytes of workgroup memory of both tiles; the weight's rows are one vector longer, see {@link tiledConv2d}. */
export function tiledConv2dWorkgroupBytes(s: TiledConv2dSchedule, element: 'f32' | 'f16'): number {
  const tileM = s.threadsM * s.rows;
  const tileN = s.threadsN * s.cols;
  const vectors = tileM * (s.tileK / 4) + s.tileK * (tileN / 4 + 1);
  return vectors * (element === 'f32' ? 16 : 8) + (s.packed ? PACKED_BYTES : 0);
}

/**
 * m = output pixels in row order, n = output channels, k = (ky, kx, c).
 *
 * One workgroup computes tileM pixels × tileN channels. Per step it stages tileK taps: the image as [m][k/4] vectors
 * along k, the weight transposed in 4×4 blocks on the way to [k][n/4] vectors along n, whose rows are padded by one vector
 * to spread the transposed writes over the memory banks. Thread (ty, tx) owns pixels ty + i·threadsM and
 * channel vectors tx + j·threadsN. Products and sums are f32 whatever the tile's type: at 4608 taps an f16 sum keeps
 * only three digits ("packed" schedules sum 16 products in f16 where no tile's value is too large). Neighbouring workgroups share pixels, not weights: the image is the larger operand.
 */
export function tiledConv2d(spec: Conv2dSpec, target: TargetProfile, s: TiledConv2dSchedule): KernelSource {
  const { cout: n } = spec;
  const m = spec.outHeight * spec.outWidth;
  const k = spec.weight.cols;
  const element = s.packed ? 'f16' : conv2dElement(spec, target);
  const type = `vec4<${element}>`;
  const [tileM, tileN] = [s.threadsM * s.rows, s.threadsN * s.cols];
  const threads = s.threadsM * s.threadsN;
  const kVectors = s.tileK / 4;
  const strideB = tileN / 4 + 1;
  const colVectors = s.cols / 4;
  const input = emitConv2dInput(spec, element, 2);
  const weight = emitWeightLoader({
    ...spec.weight,
    binding: 1,
    name: 'weight',
    shaderF16: hasTier(target, 'f16'),
    element,
  });
  const inputs = spec.prologue ? 3 : 2;
  const output = emitOutput({ m, n, epilogue: spec.epilogue, out: spec.out }, inputs);

  const [groupsN, groupsM] = [Math.ceil(n / tileN), Math.ceil(m / tileM)];
  const layers = Math.ceil(groupsM / target.limits.maxComputeWorkgroupsPerDimension);
  const groupsY = Math.ceil(groupsM / layers);
  // A CPU's driver unrolls loops of known length throughout and compiles for seconds; here `group.z` is always 0.
  const open = target.software && layers === 1 ? ' + group.z' : '';
  const groupRow = layers > 1 ? `(group.z * ${groupsY}u + group.y)` : 'group.y';
  const raggedM = layers * groupsY * tileM !== m;
  const raggedN = n % tileN !== 0;
  const raggedK = k % s.tileK !== 0;

  const each = <T>(count: number, f: (i: number) => T): T[] => Array.from({ length: count }, (_, i) => f(i));
  const image = stageImage({
    spec,
    input,
    element,
    tileM,
    tileK: s.tileK,
    threads,
    raggedM,
    unit: 4,
    store: (at, value) => `tileA[${indexOf(at, kVectors)}] = ${value};`,
  });
  const channel = (c: string): string => (raggedN ? `min(colBase + ${c}, ${n - 1}u)` : `colBase + ${c}`);
  const q = (col: string): string => `k + ${col} * 4u`;
  const weights: Copy = {
    count: (tileN / 4) * kVectors,
    width: kVectors,
    item: (place) => ({
      values: each(4, (j) =>
        weight.load(
          channel(`${rowOf(place)} * 4u + ${j}u`),
          raggedK ? `min(${q(place.col)}, ${k - 4}u)` : q(place.col),
        ),
      ),
      store: (w) => storeTransposed('tileB', `${place.col} * ${4 * strideB}u + ${rowOf(place)}`, strideB, type, w),
    }),
  };
  // Each step of the image's copy has windows of its own, so it is never a loop.
  const [pixels, channels] = s.packed
    ? [watched(image.copy, 'left'), watched(weights, 'right')]
    : [image.copy, weights];
  const staging = open
    ? `${stage([pixels], threads)}\n${stage([channels], threads, open)}`
    : stage([pixels, channels], threads);
  const wide = (text: string): string => (element === 'f32' ? text : `vec4<f32>(${text})`);
  const arithmetic = [
    ...LANES.flatMap((_, kk) =>
      each(colVectors, (j) => {
        const at = `q * ${4 * strideB}u + ${kk * strideB}u + tx + ${j * s.threadsN}u`;
        return `let b${kk}_${j} = ${wide(`tileB[${at}]`)};`;
      }),
    ),
    ...each(s.rows, (i) => [
      `let a${i} = ${wide(`tileA[(ty + ${i * s.threadsM}u) * ${kVectors}u + q]`)};`,
      ...LANES.flatMap((lane, kk) => each(colVectors, (j) => `c${i}_${j} += a${i}.${lane} * b${kk}_${j};`)),
    ]).flat(),
  ];
  const loop = `for (var q = 0u; q < ${kVectors}u${open}; q++) {
${arithmetic.join('\n')}
}`;
  const block = { rows: s.rows, colVectors, kVectors, strideB, threadsM: s.threadsM, threadsN: s.threadsN };
  const products = s.packed ? packedProducts({ ...block, step: 'k + 1u', open }, loop) : loop;
  const blocks = each(s.rows, (i) => each(colVectors, (j) => ({ i, j }))).flat();
  const usesF16 = s.packed || conv2dUsesF16(spec, target);
  const wgsl = `${usesF16 ? 'enable f16;\n' : ''}${input.declarations}
${weight.declarations}
${output.declarations}
var<workgroup> tileA: array<${type}, ${tileM * kVectors}>;
var<workgroup> tileB: array<${type}, ${s.tileK * strideB}>;
${s.packed ? `${PACKED_DECLARATIONS}\n` : ''}
@compute @workgroup_size(${threads})
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
let tx = thread % ${s.threadsN}u;
let ty = thread / ${s.threadsN}u;
let rowBase = ${groupRow} * ${tileM}u;
let colBase = group.x * ${tileN}u;
${image.before}
${blocks.map(({ i, j }) => `var c${i}_${j} = vec4<f32>();`).join('\n')}
for (var k = 0u; k < ${k}u${open}; k += ${s.tileK}u) {
${image.tap}
${s.packed ? watchedStep(staging, 'k + 1u') : staging}
workgroupBarrier();
${products}
workgroupBarrier();
}
${blocks
  .map(
    ({ i, j }) => `{
let row = rowBase + ty + ${i * s.threadsM}u;
let col = colBase + (tx + ${j * s.threadsN}u) * 4u;
${output.store(`c${i}_${j}`, { raggedM, raggedN })}
}`,
  )
  .join('\n')}
}
`;
  return {
    label: `conv2d ${s.packed ? 'packed ' : ''}${element} ${tileM}×${tileN}×${s.tileK} (${describeConv2d(spec)})`,
    wgsl,
    bindings: [...each(inputs, () => 'read' as const), ...output.bindings],
    workgroups: [groupsN, groupsY, layers],
    flops: conv2dFlops(spec),
    bytes: conv2dBytes(spec),
    needs: {
      ...(usesF16 ? { features: ['shader-f16'] } : {}),
      invocations: threads,
      workgroupBytes: tiledConv2dWorkgroupBytes(s, element),
    },
  };
}

const LANES = ['x', 'y', 'z', 'w'] as const;
