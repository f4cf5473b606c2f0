// WGSL that turns checkpoint bytes into a program's weight format, on the GPU, once, while loading.
// JavaScript never touches single elements: a 12 B model would take minutes there.

import { STORED_FORMATS, type WeightFormat } from '../program/formats.ts';
import type { Kernel } from '../program/types.ts';
import { SEEN } from './seen.ts';
import { Q4_WIDTHS, quantiseFunctions, quantiseText } from './transcode-quantise.ts';
import { levelsWgsl } from './types/floats.ts';
import { BYTE_READERS, isLossless, type SourceType } from './types/source-type.ts';

const WORKGROUP = 64;

/**
 * The values of the uniform buffer, each a u32, in this order. A chunk is whole rows of the source matrix.
 *
 * Output element `e` of the chunk is row `e / outCols`, column `c = e % outCols`; with `tap = c / padIn` and
 * `channel = c % padIn` its source element is `first + row · srcCols + channel · taps + tap`, or zero when
 * `channel ≥ channels`. A plain matrix has `taps = 1` and `padIn = channels = outCols`.
 */
export interface TranscodeParams {
  /** Output elements of the chunk. */
  count: number;
  outCols: number;
  srcCols: number;
  /** Source element of the chunk's first output. */
  first: number;
  padIn: number;
  channels: number;
  taps: number;
  /** Output element where the chunk starts in the stored matrix: a multiple of 64, or of 256 with groups. */
  start: number;
  /** Words of the stored matrix where its sections start; unused ones are 0. */
  sections: readonly number[];
  /** With `checked`: the weight's word. */
  slot?: number;
}

/** Elements each invocation reads: a word of output, or two blocks, whose f16 scales share a word. */
export function spanOf({ type, format }: TranscodeSpec): number {
  if (format === 'e4m3' || format === 'e5m2') return 4;
  if (type.reader.kind === 'element' && format === 'f32') return 1;
  return type.reader.kind === 'element' && format === 'f16' ? 2 : 64;
}

/** A grid over `count` elements, folded into two dimensions at WebGPU's limit of 65535 workgroups. */
export function transcodeGrid(count: number, spec: TranscodeSpec): [x: number, y: number] {
  const groups = Math.ceil(count / spanOf(spec) / WORKGROUP);
  const x = Math.min(groups, 32768);
  return [x, Math.ceil(groups / x)];
}

/** Packs {@link TranscodeParams} for the uniform binding; `groupsX` is the grid's width. */
export function packParams(p: TranscodeParams, groupsX: number): Uint32Array<ArrayBuffer> {
  const { count, outCols, srcCols, first, padIn, channels, taps, start } = p;
  // Whole rows in the file's order, nearly every weight: no divisions, which cost more than the memory.
  const contiguous = Number(outCols === srcCols && padIn === channels && taps === 1);
  const [a = 0, b = 0, c = 0, d = 0] = p.sections.map((byte) => byte / 4);
  return new Uint32Array([
    ...[count, outCols, srcCols, first],
    ...[padIn, channels, taps, start],
    ...[groupsX, contiguous, p.slot ?? 0, Q4_WIDTHS.count],
    ...[a, b, c, d],
  ]);
}

/** One transcode: from which element type to which format. */
export interface TranscodeSpec {
  type: SourceType;
  format: WeightFormat;
  /** The tensor's rows have scales of their own, in a fourth binding. */
  scaled: boolean;
  /** Notes in a last binding, a word for each weight at {@link TranscodeParams.slot}, what it saw: see {@link SEEN}. */
  checked?: boolean;
}

/**
 * Bindings: params (uniform), source words (read), the whole stored matrix (read_write), and with `scaled` an f32 for each row
 * of the chunk (read).
 *
 * Values are widened to f32; `load` fills `x` with 32 of them from a multiple of 32 on. f16 is written by `pack2x16float`, so `shader-f16` is not needed, after a clamp to ±65504:
 * packing a larger value gives any result. q8 and q4 are made as `transcode-quantise.ts` says. A format that holds the type without loss gets its codes and scales bit for bit.
 */
export function transcodeKernel(spec: TranscodeSpec): Kernel {
  const { type, format, scaled, checked = false } = spec;
  const { reader } = type;
  const block = reader.kind === 'block';
  const scale = scaled ? ' * rowScales[e / p.outCols]' : '';
  const element = (index: string) => (checked ? `watched(element(${index})${scale})` : `element(${index})${scale}`);
  return {
    label: `transcode ${type.name}${scaled ? ' scaled' : ''} to ${format}`,
    bindings: [
      'uniform',
      'read',
      'read_write',
      ...(scaled ? (['read'] as const) : []),
      ...(checked ? (['read_write'] as const) : []),
    ],
    wgsl: `
struct Params {
  count: u32, outCols: u32, srcCols: u32, first: u32,
  padIn: u32, channels: u32, taps: u32, start: u32,
  groupsX: u32, contiguous: u32, slot: u32, tries: u32,
  at: vec4<u32>,
}
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> src: array<u32>;
@group(0) @binding(2) var<storage, read_write> dst: array<u32>;
${scaled ? '@group(0) @binding(3) var<storage, read> rowScales: array<f32>;' : ''}
${checked ? watchText(scaled ? 4 : 3) : ''}
${block ? blockText(spec) : `${reader.declarations ?? ''}\nfn element(i: u32) -> f32 { return ${reader.wgsl}; }`}

fn value(e: u32) -> f32 {
  if (e >= p.count) { return 0.0; }
  if (p.contiguous != 0u) { return ${element('p.first + e')}; }
  let row = e / p.outCols;
  let c = e % p.outCols;
  let channel = c % p.padIn;
  if (channel >= p.channels) { return 0.0; }
  return ${element('p.first + row * p.srcCols + channel * p.taps + c / p.padIn')};
}

var<private> x: array<f32, 32>;

fn load(e: u32) {
  ${block ? 'if (p.contiguous != 0u && (p.first & 31u) == 0u) { if (e < p.count) { loadBlock(p.first + e); } return; }' : ''}
  for (var k = 0u; k < 32u; k++) { x[k] = value(e + k); }
}

fn half(v: f32) -> f32 { return clamp(v, -65504.0, 65504.0); }
${quantiseFunctions(format)}

@compute @workgroup_size(${WORKGROUP})
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  let i = (group.y * p.groupsX + group.x) * ${WORKGROUP}u + lane;
  let first = i * ${spanOf(spec)}u;
  if (first >= p.count) { return; }
  let e = p.start + first;
${body(spec)}
${checked ? '  note(seen);' : ''}
}
`,
  };
}

/** Blocks of codes: `block` fills the private variables, `loadBlock` the values, `element` reads one for odd layouts. */
function blockText(spec: TranscodeSpec): string {
  const { type, checked = false } = spec;
  const { reader } = type;
  if (reader.kind !== 'block') return '';
  const words = isLossless(spec) && reader.words;
  const code = reader.levels ? 'levels[codes[k]]' : 'f32(codes[k])';
  return `${BYTE_READERS}
${reader.levels ? levelsWgsl('levels') : ''}
var<private> codes: array<i32, 32>;
var<private> d: f32;
var<private> dMin: f32;
var<private> scales: vec2<i32>;
var<private> minimums: vec2<i32>;
${words ? `var<private> word: array<u32, 8>;\nfn words(at: u32, part: u32) {\n${words}\n}` : ''}
fn block(at: u32, part: u32) {
${reader.wgsl}
}
fn blockOf(i: u32) {
  ${words ? 'words' : 'block'}(i / ${type.elements}u * ${type.bytes}u, i % ${type.elements}u / 32u);
  ${checked ? 'watch(d); watch(dMin);' : ''}
}
fn code(k: u32) -> f32 {
  let h = k / 16u;
  return (d * f32(scales[h])) * ${code} - dMin * f32(minimums[h]);
}
fn loadBlock(i: u32) {
  blockOf(i);
  for (var k = 0u; k < 32u; k++) { x[k] = code(k); }
}
fn element(i: u32) -> f32 {
  blockOf(i);
  return code(i % 32u);
}`;
}

/** The notes, and `note`, which sets bits there. It reads first: nearly every invocation finds its bits there already. */
export const notesText = (binding: number): string => `
@group(0) @binding(${binding}) var<storage, read_write> notes: array<atomic<u32>>;
fn note(bits: u32) {
  if ((bits & ~atomicLoad(&notes[p.slot])) != 0u) { atomicOr(&notes[p.slot], bits); }
}`;

/** Bits, not comparisons: a driver may assume that floats are finite. */
const watchText = (binding: number): string => `${notesText(binding)}
var<private> seen: u32;
fn watch(v: f32) {
  let bits = bitcast<u32>(v) & 0x7fffffffu;
  if (bits >= 0x7f800000u) { seen |= ${SEEN.notFinite}u; }
  if (bits != 0u) { seen |= ${SEEN.notZero}u; }
}
fn watched(v: f32) -> f32 {
  watch(v);
  return v;
}`;

function body(spec: TranscodeSpec): string {
  const { type, format } = spec;
  if (isLossless(spec))
    return type.reader.kind === 'block' ? repack(format, type.reader.words !== undefined) : copyBytes(spec);
  switch (format) {
    case 'f32':
      return type.reader.kind === 'element'
        ? '  dst[p.at[0] + e] = bitcast<u32>(value(first));'
        : values(
            'for (var k = 0u; k < min(32u, p.count - at); k++) { dst[p.at[0] + p.start + at + k] = bitcast<u32>(x[k]); }',
          );
    case 'f16':
      return type.reader.kind === 'element'
        ? '  dst[p.at[0] + e / 2u] = pack2x16float(vec2(half(value(first)), half(value(first + 1u))));'
        : values(`for (var k = 0u; k < min(32u, p.count - at); k += 2u) {
      dst[p.at[0] + (p.start + at + k) / 2u] = pack2x16float(vec2(half(x[k]), half(x[k + 1u])));
    }`);
    case 'q8':
    case 'q4':
      return `
  var pair = vec2<f32>();${values(quantiseText(format))}
  dst[p.at[1] + e / 64u] = pack2x16float(pair);`;
    default:
      throw new Error(`no transcode from ${type.name} to ${format}`);
  }
}

/** Runs `text` with the values of each of the two blocks in `x`; `at` is the block's first element in the chunk. */
const values = (text: string): string => `
  for (var b = 0u; b < 2u; b++) {
    let at = first + 32u * b;
    if (at >= p.count) { break; }
    load(at);
    ${text}
  }`;

/** 8-bit floats: the bytes as they are, and the row's scale once. */
const copyBytes = ({ checked }: TranscodeSpec): string => `
  ${checked ? 'for (var k = 0u; k < min(4u, p.count - first); k++) { watch(element(p.first + first + k)); }' : ''}
  dst[p.at[0] + e / 4u] = src[(p.first + first) / 4u];
  if (e % p.outCols == 0u) { dst[p.at[1] + e / p.outCols] = bitcast<u32>(rowScales[first / p.outCols]); }`;

/** Codes and scales of ggml's blocks into a stored format, none of them changed. */
function repack(format: WeightFormat, ready: boolean): string {
  const { codes, scales, zero } = STORED_FORMATS[format];
  const sections = codes === 'six' ? 2 : 1;
  const word = (perWord: number, bits: number, code: string, at: number) => `
    for (var w = 0u; w < ${32 / perWord}u; w++) {
      var word = 0u;
      for (var k = 0u; k < ${perWord}u; k++) { word |= (${code}) << (k * ${bits}u); }
      dst[p.at[${at}] + (p.start + at) / ${perWord}u + w] = word;
    }`;
  const code = (perWord: number) => `u32(codes[w * ${perWord}u + k]${zero ? ` + ${zero}` : ''})`;
  const count = codes === 'byte' ? 8 : 4;
  const text = [
    ready
      ? `for (var w = 0u; w < ${count}u; w++) { dst[p.at[0] + (p.start + at) / ${32 / count}u + w] = word[w]; }`
      : codes === 'byte'
        ? word(4, 8, `${code(4)} & 0xffu`, 0)
        : word(8, 4, `${code(8)} & 15u`, 0),
    codes === 'six' ? word(16, 2, `${code(16)} >> 4u`, 1) : '',
    scales === 'half' ? 'pair[b] = d;' : '',
    scales === 'pair' ? `dst[p.at[${sections}] + (p.start + at) / 32u] = pack2x16float(vec2(d, -dMin));` : '',
    scales === 'group32' ? 'groups |= (u32(scales.x & 0xff) | (u32(minimums.x & 0xff) << 8u)) << (16u * b);' : '',
    scales === 'group16'
      ? `dst[p.at[${sections}] + (p.start + at) / 32u] = u32(scales.x & 0xff) | (u32(minimums.x & 0xff) << 8u)
      | (u32(scales.y & 0xff) << 16u) | (u32(minimums.y & 0xff) << 24u);`
      : '',
    scales === 'group32' || scales === 'group16'
      ? `if ((p.start + at) % 256u == 0u) { dst[p.at[${sections + 1}] + (p.start + at) / 256u] = pack2x16float(vec2(d, dMin)); }`
      : '',
  ];
  return `
  ${scales === 'half' ? 'var pair = vec2<f32>();' : ''}${scales === 'group32' ? 'var groups = 0u;' : ''}
  for (var b = 0u; b < 2u; b++) {
    let at = first + 32u * b;
    if (at >= p.count) { break; }
    blockOf(p.first + at);${text.filter(Boolean).join('\n    ')}
  }
  ${scales === 'half' ? `dst[p.at[${sections}] + e / 64u] = pack2x16float(pair);` : ''}${
    scales === 'group32' ? `dst[p.at[${sections}] + e / 64u] = groups;` : ''
  }`;
}
