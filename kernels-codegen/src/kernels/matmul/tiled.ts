// The matmul every GPU can run: blocks of the output in registers, operands staged in workgroup memory.
// It carries the portable and the f16 tier, and in the others the shapes their own variants do not fit.

import type { TargetProfile } from '../../targets/types.ts';
import type { KernelSource } from '../kernel.ts';
import { PACKED_BYTES, PACKED_DECLARATIONS, packedProducts, watched, watchedStep } from '../packed.ts';
import { type Copy, indexOf, rowOf, stage, stageOneOf, storeTransposed } from '../staging.ts';
import { emitInputs, type SegmentInput } from './inputs.ts';
import { emitOutput } from './output.ts';
import { describeMatmul, type MatmulSpec, matmulBytes, matmulFlops, tileElement, usesF16 } from './spec.ts';

/** `threadsM × threadsN` threads compute `rows × cols` outputs each, stepping over k by `tileK`. */
export interface TiledSchedule {
  variant: 'tiled';
  threadsM: number;
  threadsN: number;
  rows: number;
  /** A multiple of 4. */
  cols: number;
  /** A multiple of 4. */
  tileK: number;
  /** Products are summed in f16, 16 at a time; see `packed.ts`. */
  packed?: true;
}

/** Bytes of workgroup memory of both tiles; `b`'s rows are one vector longer, see {@link tiledMatmul}. */
export function tiledWorkgroupBytes(s: TiledSchedule, element: 'f32' | 'f16'): number {
  const vector = element === 'f32' ? 16 : 8;
  const tileM = s.threadsM * s.rows;
  const tileN = s.threadsN * s.cols;
  return (tileM * (s.tileK / 4) + s.tileK * (tileN / 4 + 1)) * vector + (s.packed ? PACKED_BYTES : 0);
}

/**
 * y[m, n] = epilogue(Σₖ a[m, k] · b[n, k])
 *
 * One workgroup computes a tileM × tileN block of y, stepping over k in tileK columns staged in workgroup memory: `a` as
 * [m][k/4] vectors along k, `b` transposed in 4×4 blocks on the way to [k][n/4] vectors along n. A thread owns rows
 * ty + i·threadsM and column vectors tx + j·threadsN, so neighbours read neighbouring vectors of `b` and the same of `a`.
 * A row of `b`'s tile is padded by one vector: threads next to each other write to rows four apart, whose distance would
 * otherwise be a multiple of the memory banks.
 * Products and sums are f32 whatever the tile's type: f16 sums overflow in FLUX's MLPs. "Packed" schedules sum 16 products in f16 where the tile's
 * values are too small for that.
 */
export function tiledMatmul(spec: MatmulSpec, target: TargetProfile, s: TiledSchedule): KernelSource {
  const { m, n } = spec;
  const element = s.packed ? 'f16' : tileElement(spec, target);
  const tileM = s.threadsM * s.rows;
  const tileN = s.threadsN * s.cols;
  const threads = s.threadsM * s.threadsN;
  const kVectors = s.tileK / 4;
  const strideB = tileN / 4 + 1;
  const colVectors = s.cols / 4;
  const inputs = emitInputs(spec, target, element, s.tileK);
  const output = emitOutput(spec, inputs.count);

  const [groupsN, groupsM] = [Math.ceil(n / tileN), Math.ceil(m / tileM)];
  const limit = target.limits.maxComputeWorkgroupsPerDimension;
  const layers = Math.ceil(groupsM / limit);
  const groupsY = Math.ceil(groupsM / layers);
  // A CPU's driver unrolls loops of known length throughout and compiles for seconds; here `group.z` is always 0.
  const open = target.software && layers === 1 ? ' + group.z' : '';
  const groupRow = layers > 1 ? `(group.z * ${groupsY}u + group.y)` : 'group.y';
  const raggedM = layers * groupsY * tileM !== m;
  const raggedN = n % tileN !== 0;

  const each = <T>(count: number, f: (i: number) => T): T[] => Array.from({ length: count }, (_, i) => f(i));
  const inM = (r: string): string => (raggedM ? `min(rowBase + ${r}, ${m - 1}u)` : `rowBase + ${r}`);
  const inN = (c: string): string => (raggedN ? `min(colBase + ${c}, ${n - 1}u)` : `colBase + ${c}`);

  const seen = s.packed ? watched : (copy: Copy): Copy => copy;
  const quarter = (col: string): string => `k + ${col} * 4u`;
  const tileRows = (segment: SegmentInput): Copy =>
    seen(
      {
        count: tileM * kVectors,
        width: kVectors,
        item: (place) => ({
          values: [segment.loadA(inM(rowOf(place)), quarter(place.col))],
          store: ([v]) => `tileA[${indexOf(place, kVectors)}] = ${v};`,
        }),
      },
      'left',
    );
  const tileCols = (segment: SegmentInput): Copy =>
    seen(
      {
        count: (tileN / 4) * kVectors,
        width: kVectors,
        item: (place) => ({
          values: each(4, (j) => segment.loadB(inN(`${rowOf(place)} * 4u + ${j}u`), quarter(place.col))),
          store: (w) =>
            storeTransposed(
              'tileB',
              `${place.col} * ${4 * strideB}u + ${rowOf(place)}`,
              strideB,
              `vec4<${element}>`,
              w,
            ),
        }),
      },
      'right',
    );

  // One loop over the tiles of all segments: the arithmetic stays in the text once. A CPU's driver gets loops, which have no half to share.
  let firstTile = 0;
  let besideTile: number | undefined;
  const parts = open ? inputs.segments.map((segment) => [segment]) : inputs.parts;
  const branches = parts.map((part) => {
    const start = firstTile;
    if (part[0] === inputs.segments[spec.segments.length]) besideTile = start;
    const ends = part.map(({ cols }) => {
      firstTile += Math.ceil(cols / s.tileK);
      return firstTile;
    });
    const k = start ? `(t - ${start}u) * ${s.tileK}u` : `t * ${s.tileK}u`;
    const copies =
      part.length === 1
        ? stage([tileRows(part[0]!), tileCols(part[0]!)], threads, open)
        : stageOneOf(part.map(tileRows), threads, { type: `vec4<${element}>`, ends, start, step: s.tileK }) +
          stage([tileCols(part[0]!)], threads);
    return { end: firstTile, body: `let k = ${k};\n${copies}` };
  });
  const staging = branches
    .map(({ end, body }, i) => {
      const last = i === branches.length - 1;
      return last ? `{\n${body}\n}` : `if (t < ${end}u) {\n${body}\n} else`;
    })
    .join(' ');

  const widen = (text: string): string => (element === 'f32' ? text : `vec4<f32>(${text})`);
  const lanes = ['x', 'y', 'z', 'w'];
  const arithmetic = [
    ...each(4, (kk) =>
      each(
        colVectors,
        (j) => `let b${kk}_${j} = ${widen(`tileB[q * ${4 * strideB}u + ${kk * strideB}u + tx + ${j * s.threadsN}u]`)};`,
      ),
    ).flat(),
    ...each(s.rows, (i) => [
      `let a_${i} = ${widen(`tileA[(ty + ${i * s.threadsM}u) * ${kVectors}u + q]`)};`,
      ...each(4, (kk) => each(colVectors, (j) => `c${i}_${j} += a_${i}.${lanes[kk]} * b${kk}_${j};`)).flat(),
    ]).flat(),
  ];

  const loop = `for (var q = 0u; q < ${kVectors}u${open}; q++) {
${arithmetic.join('\n')}
}`;
  const block = { rows: s.rows, colVectors, kVectors, strideB, threadsM: s.threadsM, threadsN: s.threadsN };
  // A path beside is of values that no norm gave.
  const always = besideTile === undefined ? undefined : `t >= ${besideTile}u`;
  const products = s.packed ? packedProducts({ ...block, step: 't + 1u', always, open }, loop) : loop;
  const filled = s.packed ? watchedStep(staging, 't + 1u') : staging;

  const storing = each(s.rows, (i) =>
    each(colVectors, (j) => {
      const row = `rowBase + ty + ${i * s.threadsM}u`;
      const col = `colBase + (tx + ${j * s.threadsN}u) * 4u`;
      return `{
let row = ${row};
let col = ${col};
${output.store(`c${i}_${j}`, { raggedM, raggedN })}
}`;
    }),
  ).flat();

  const wgsl = `${usesF16(spec, target) ? 'enable f16;\n' : ''}${inputs.declarations}
${output.declarations}
var<workgroup> tileA: array<vec4<${element}>, ${tileM * kVectors}>;
var<workgroup> tileB: array<vec4<${element}>, ${s.tileK * strideB}>;
${s.packed ? `${PACKED_DECLARATIONS}\n` : ''}
@compute @workgroup_size(${threads})
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
let tx = thread % ${s.threadsN}u;
let ty = thread / ${s.threadsN}u;
let rowBase = ${groupRow} * ${tileM}u;
let colBase = group.x * ${tileN}u;
${each(s.rows, (i) => each(colVectors, (j) => `var c${i}_${j} = vec4<f32>();`))
  .flat()
  .join('\n')}
for (var t = 0u; t < ${firstTile}u${open}; t++) {
${filled}
workgroupBarrier();
${products}
workgroupBarrier();
}
${storing.join('\n')}
}
`;
  return {
    label: `matmul ${s.packed ? 'packed ' : ''}${element} ${tileM}×${tileN}×${s.tileK} (${describeMatmul(spec)})`,
    wgsl,
    bindings: [...Array.from({ length: inputs.count }, () => 'read' as const), ...output.bindings],
    workgroups: [groupsN, groupsY, layers],
    flops: matmulFlops(spec),
    bytes: matmulBytes(spec),
    needs: {
      ...(usesF16(spec, target) ? { features: ['shader-f16'] } : {}),
      invocations: threads,
      workgroupBytes: tiledWorkgroupBytes(s, element),
    },
  };
}
