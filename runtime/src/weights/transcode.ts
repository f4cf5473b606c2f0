// WGSL that turns checkpoint bytes into a program's weight format, on the GPU, once, while loading.
// JavaScript never touches single elements: a 12 B model would take minutes there.

import type { Kernel, WeightFormat } from '../program/types.ts';

/** File element types that can become weights. */
export type TranscodeDtype = 'F32' | 'F16' | 'BF16';

/** What a kernel writes. Scales have their own, because WebGPU allows no two writable bindings that share 256 bytes. */
export type TranscodeOutput = WeightFormat | 'q8-scales' | 'q4-scales';

const WORKGROUP = 64;

/** Elements each invocation reads: a word of output, a block of 32, or two blocks, whose f16 scales share a word. */
const SPAN: Record<TranscodeOutput, number> = { f32: 1, f16: 2, q8: 32, q4: 32, 'q8-scales': 64, 'q4-scales': 64 };

/**
 * The values of the uniform buffer, each a u32, in this order. A chunk is whole rows of the source matrix.
 *
 * Output element `e` is row `e / outCols`, column `c = e % outCols`; with `tap = c / padIn` and `channel = c % padIn` its
 * source element is `row · srcCols + firstCol + channel · taps + tap`, or zero when `channel ≥ channels`.
 * A plain matrix has `taps = 1` and `padIn = channels = outCols`.
 */
export interface TranscodeParams {
  /** Output elements of the chunk. */
  count: number;
  outCols: number;
  srcCols: number;
  firstCol: number;
  padIn: number;
  channels: number;
  taps: number;
  /** Word of the output binding where the chunk starts. */
  dstWord: number;
  /** Workgroups along x, for grids beyond one dimension's limit. */
  groupsX: number;
}

/** A grid over `count` elements, folded into two dimensions at WebGPU's limit of 65535 workgroups. */
export function transcodeGrid(count: number, output: TranscodeOutput): [x: number, y: number] {
  const groups = Math.ceil(count / SPAN[output] / WORKGROUP);
  const x = Math.min(groups, 32768);
  return [x, Math.ceil(groups / x)];
}

/** Packs {@link TranscodeParams} for the uniform binding. */
export function packParams(p: TranscodeParams): Uint32Array<ArrayBuffer> {
  const { count, outCols, srcCols, firstCol, padIn, channels, taps, dstWord, groupsX } = p;
  // Whole rows in the file's order, nearly every weight: no divisions, which cost more than the memory.
  const contiguous = Number(outCols === srcCols && padIn === channels && taps === 1);
  return new Uint32Array([
    count,
    outCols,
    srcCols,
    firstCol,
    padIn,
    channels,
    taps,
    dstWord,
    groupsX,
    contiguous,
    0,
    0,
  ]);
}

/**
 * Bindings: params (uniform), source words (read), output words (read_write).
 *
 * Values are widened to f32. f16 is written by `pack2x16float`, so `shader-f16` is not needed, after a clamp to ±65504:
 * packing a larger value gives any result. q8 and q4 are defined at {@link WeightFormat}; rounding is half to even for
 * q8 (WGSL's `round`), and `floor(x / scale + 8.5)` for q4 as in ggml's Q4_0.
 */
export function transcodeKernel(dtype: TranscodeDtype, output: TranscodeOutput): Kernel {
  return {
    label: `transcode ${dtype} to ${output}`,
    bindings: ['uniform', 'read', 'read_write'],
    wgsl: `
struct Params {
  count: u32, outCols: u32, srcCols: u32, firstCol: u32,
  padIn: u32, channels: u32, taps: u32, dstWord: u32,
  groupsX: u32, contiguous: u32, unusedA: u32, unusedB: u32,
}
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> src: array<u32>;
@group(0) @binding(2) var<storage, read_write> dst: array<u32>;

fn element(i: u32) -> f32 {
  ${ELEMENT[dtype]}
}

fn value(e: u32) -> f32 {
  if (e >= p.count) { return 0.0; }
  if (p.contiguous != 0u) { return element(e); }
  let row = e / p.outCols;
  let c = e % p.outCols;
  let channel = c % p.padIn;
  if (channel >= p.channels) { return 0.0; }
  return element(row * p.srcCols + p.firstCol + channel * p.taps + c / p.padIn);
}

// The value of largest magnitude of a block, with its sign.
fn peak(start: u32) -> f32 {
  var found = 0.0;
  for (var k = 0u; k < 32u; k++) {
    let x = value(start + k);
    if (abs(x) > abs(found)) { found = x; }
  }
  return found;
}

fn half(x: f32) -> f32 { return clamp(x, -65504.0, 65504.0); }

@compute @workgroup_size(${WORKGROUP})
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  let i = (group.y * p.groupsX + group.x) * ${WORKGROUP}u + lane;
  let first = i * ${SPAN[output]}u;
  if (first >= p.count) { return; }
${BODY[output]}
}
`,
  };
}

const ELEMENT: Record<TranscodeDtype, string> = {
  F32: 'return bitcast<f32>(src[i]);',
  F16: 'return unpack2x16float(src[i / 2u])[i % 2u];',
  BF16: 'return bitcast<f32>((src[i / 2u] >> ((i % 2u) * 16u)) << 16u);',
};

const Q8_SCALE = 'abs(peak(first)) / 127.0';
const Q4_SCALE = 'peak(first) / -8.0';

const quantise = (scale: string, words: number, code: string): string => `
  let scale = ${scale};
  let inverse = select(0.0, 1.0 / scale, scale != 0.0);
  for (var w = 0u; w < ${words}u; w++) {
    var word = 0u;
    for (var k = 0u; k < ${32 / words}u; k++) {
      let x = value(first + w * ${32 / words}u + k) * inverse;
      word |= ${code} << (k * ${words}u);
    }
    dst[p.dstWord + i * ${words}u + w] = word;
  }`;

const scales = (scale: string): string => `
  let even = ${scale};
  let odd = ${scale.replace('first', 'first + 32u')};
  dst[p.dstWord + i] = pack2x16float(vec2(half(even), half(odd)));`;

const BODY: Record<TranscodeOutput, string> = {
  f32: '  dst[p.dstWord + i] = bitcast<u32>(value(first));',
  f16: '  dst[p.dstWord + i] = pack2x16float(vec2(half(value(first)), half(value(first + 1u))));',
  // Eight words of four bytes, four words of eight nibbles: the shift is 8 or 4 bits, as many as there are words.
  q8: quantise(Q8_SCALE, 8, '(u32(i32(clamp(round(x), -127.0, 127.0))) & 0xffu)'),
  q4: quantise(Q4_SCALE, 4, 'u32(clamp(floor(x + 8.5), 0.0, 15.0))'),
  'q8-scales': scales(Q8_SCALE),
  'q4-scales': scales(Q4_SCALE),
};
