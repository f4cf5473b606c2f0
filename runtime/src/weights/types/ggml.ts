// ggml's quantised blocks, read alike by CPU and GPU: codes, a scale and a minimum for each 16 elements.
// Layouts were taken from ggml's block definitions (https://github.com/ggml-org/ggml, ggml-common.h) and are held to ggml's own values.
//
// Each type is written twice, in TypeScript and in WGSL; tests compare both with the same data.

import { halfToFloat } from '../../half.ts';
import type { WeightFormat } from '../../program/formats.ts';
import { BF16, F16, F32 } from './floats.ts';
import type { BlockReader, QuantBlock, SourceType } from './source-type.ts';

const half = (bytes: DataView, at: number): number => halfToFloat(bytes.getUint16(at, true));

function blockType(
  name: string,
  elements: number,
  bytes: number,
  stored: WeightFormat,
  read: BlockReader['read'],
  wgsl: string,
  more: Pick<BlockReader, 'levels' | 'words'> = {},
): SourceType {
  return { name, elements, bytes, stored, reader: { kind: 'block', wgsl, read, ...more } };
}

/** One scale (and minimum) for all 32 elements, with the block's own f16 as they are. */
function plain(out: QuantBlock, d: number, minimum?: number): void {
  out.d = d;
  // value = d · code + minimum in the file. Without one, zero is subtracted, which leaves the sign of zeros.
  out.dMin = minimum === undefined ? 0 : -minimum;
  out.scales = [1, 1];
  out.minimums = [1, 1];
}

const PLAIN = 'scales = vec2<i32>(1); minimums = vec2<i32>(1); dMin = 0.0;';

/** Sixteen bytes at `qs`: the low nibbles are elements 0 … 15, the high ones 16 … 31. */
function splitNibbles(bytes: DataView, qs: number, codes: Int32Array, zero: number): void {
  for (let k = 0; k < 16; k++) {
    const byte = bytes.getUint8(qs + k);
    codes[k] = (byte & 15) - zero;
    codes[k + 16] = (byte >> 4) - zero;
  }
}

const splitNibblesWgsl = (qs: string, zero: number): string => `
  for (var w = 0u; w < 4u; w++) {
    let word = wordAt(${qs} + 4u * w);
    for (var k = 0u; k < 4u; k++) {
      let byte = (word >> (8u * k)) & 0xffu;
      codes[4u * w + k] = i32(byte & 15u) - ${zero};
      codes[4u * w + k + 16u] = i32(byte >> 4u) - ${zero};
    }
  }`;

/** Words of the stored nibbles from sixteen bytes whose low nibbles are elements 0 … 15. */
const splitNibbleWords = (qs: string): string => `
  for (var w = 0u; w < 2u; w++) {
    let a = wordAt(${qs} + 8u * w);
    let b = wordAt(${qs} + 8u * w + 4u);
    word[w] = nibbles(a) | (nibbles(b) << 16u);
    word[w + 2u] = nibbles(a >> 4u) | (nibbles(b >> 4u) << 16u);
  }`;

export const Q4_0 = blockType(
  'Q4_0',
  32,
  18,
  'q4',
  (bytes, at, _part, out) => {
    plain(out, half(bytes, at));
    splitNibbles(bytes, at + 2, out.codes, 8);
  },
  `${PLAIN} d = halfAt(at);${splitNibblesWgsl('at + 2u', 8)}`,
  { words: `${PLAIN} d = halfAt(at);${splitNibbleWords('at + 2u')}` },
);

export const Q4_1 = blockType(
  'Q4_1',
  32,
  20,
  'q4m',
  (bytes, at, _part, out) => {
    plain(out, half(bytes, at), half(bytes, at + 2));
    splitNibbles(bytes, at + 4, out.codes, 0);
  },
  `${PLAIN} d = halfAt(at); dMin = -halfAt(at + 2u);${splitNibblesWgsl('at + 4u', 0)}`,
  { words: `${PLAIN} d = halfAt(at); dMin = -halfAt(at + 2u);${splitNibbleWords('at + 4u')}` },
);

/** The fifth bits: bit k of a word for element k. */
function fifthBits(bits: number, codes: Int32Array): void {
  for (let k = 0; k < 32; k++) codes[k]! += ((bits >>> k) & 1) << 4;
}

const FIFTH_BITS = `
  for (var k = 0u; k < 32u; k++) { codes[k] += i32(((bits >> k) & 1u) << 4u); }`;

export const Q5_0 = blockType(
  'Q5_0',
  32,
  22,
  'q6',
  (bytes, at, _part, out) => {
    plain(out, half(bytes, at));
    splitNibbles(bytes, at + 6, out.codes, 16);
    fifthBits(bytes.getUint32(at + 2, true), out.codes);
  },
  `${PLAIN} d = halfAt(at); let bits = wordAt(at + 2u);${splitNibblesWgsl('at + 6u', 16)}${FIFTH_BITS}`,
);

export const Q5_1 = blockType(
  'Q5_1',
  32,
  24,
  'q6m',
  (bytes, at, _part, out) => {
    plain(out, half(bytes, at), half(bytes, at + 2));
    splitNibbles(bytes, at + 8, out.codes, 0);
    fifthBits(bytes.getUint32(at + 4, true), out.codes);
  },
  `${PLAIN} d = halfAt(at); dMin = -halfAt(at + 2u); let bits = wordAt(at + 4u);${splitNibblesWgsl('at + 8u', 0)}${FIFTH_BITS}`,
);

export const Q8_0 = blockType(
  'Q8_0',
  32,
  34,
  'q8',
  (bytes, at, _part, out) => {
    plain(out, half(bytes, at));
    for (let k = 0; k < 32; k++) out.codes[k] = bytes.getInt8(at + 2 + k);
  },
  `${PLAIN} d = halfAt(at);
  for (var w = 0u; w < 8u; w++) {
    let word = wordAt(at + 2u + 4u * w);
    for (var k = 0u; k < 4u; k++) { codes[4u * w + k] = bitcast<i32>(word << (24u - 8u * k)) >> 24u; }
  }`,
  { words: `${PLAIN} d = halfAt(at); for (var w = 0u; w < 8u; w++) { word[w] = wordAt(at + 2u + 4u * w); }` },
);

/** Byte `k` of a run, shifted and masked, for 32 elements in order. */
const eachByte = (from: string, statement: string): string => `
  for (var w = 0u; w < 8u; w++) {
    let word = wordAt(${from} + 4u * w);
    for (var b = 0u; b < 4u; b++) {
      let byte = (word >> (8u * b)) & 0xffu;
      let k = 4u * w + b;
      ${statement}
    }
  }`;

export const Q2_K = blockType(
  'Q2_K',
  256,
  84,
  'q3k',
  (bytes, at, part, out) => {
    out.d = half(bytes, at + 80);
    out.dMin = half(bytes, at + 82);
    const pair = [bytes.getUint8(at + 2 * part), bytes.getUint8(at + 2 * part + 1)] as const;
    out.scales = [pair[0] & 15, pair[1] & 15];
    out.minimums = [pair[0] >> 4, pair[1] >> 4];
    const qs = at + 16 + 32 * (part >> 2);
    for (let k = 0; k < 32; k++) out.codes[k] = (bytes.getUint8(qs + k) >> (2 * (part & 3))) & 3;
  },
  `d = halfAt(at + 80u); dMin = halfAt(at + 82u);
  let pair = vec2<i32>(i32(byteAt(at + 2u * part)), i32(byteAt(at + 2u * part + 1u)));
  scales = pair & vec2<i32>(15); minimums = pair >> vec2<u32>(4u);
  let shift = 2u * (part & 3u);${eachByte('at + 16u + 32u * (part / 4u)', 'codes[k] = i32((byte >> shift) & 3u);')}`,
);

export const Q3_K = blockType(
  'Q3_K',
  256,
  110,
  'q3k',
  (bytes, at, part, out) => {
    out.d = half(bytes, at + 108);
    out.dMin = 0;
    const scale = (i: number) => {
      const low = i < 8 ? bytes.getUint8(at + 96 + i) & 15 : bytes.getUint8(at + 88 + i) >> 4;
      return (low | (((bytes.getUint8(at + 104 + (i & 3)) >> (2 * (i >> 2))) & 3) << 4)) - 32;
    };
    out.scales = [scale(2 * part), scale(2 * part + 1)];
    out.minimums = [0, 0];
    const qs = at + 32 + 32 * (part >> 2);
    for (let k = 0; k < 32; k++) {
      const low = (bytes.getUint8(qs + k) >> (2 * (part & 3))) & 3;
      out.codes[k] = low - ((bytes.getUint8(at + k) >> part) & 1 ? 0 : 4);
    }
  },
  `d = halfAt(at + 108u); dMin = 0.0; minimums = vec2<i32>(0);
  for (var h = 0u; h < 2u; h++) {
    let i = 2u * part + h;
    let low = select(byteAt(at + 88u + i) >> 4u, byteAt(at + 96u + i) & 15u, i < 8u);
    scales[h] = i32(low | (((byteAt(at + 104u + (i & 3u)) >> (2u * (i / 4u))) & 3u) << 4u)) - 32;
  }
  let shift = 2u * (part & 3u);${eachByte('at + 32u + 32u * (part / 4u)', 'codes[k] = i32((byte >> shift) & 3u) - 4;')}${eachByte('at', 'codes[k] += i32(((byte >> part) & 1u) << 2u);')}`,
);

/** The packed 6-bit scales and minimums of Q4_K and Q5_K, twelve bytes at `at`. */
function sixBitPairs(bytes: DataView, at: number, part: number, out: QuantBlock): void {
  const byte = (i: number) => bytes.getUint8(at + i);
  const [scale, minimum] =
    part < 4
      ? [byte(part) & 63, byte(part + 4) & 63]
      : [(byte(part + 4) & 15) | ((byte(part - 4) >> 6) << 4), (byte(part + 4) >> 4) | ((byte(part) >> 6) << 4)];
  out.scales = [scale, scale];
  out.minimums = [minimum, minimum];
}

const SIX_BIT_PAIRS = `
  if (part < 4u) {
    scales = vec2<i32>(i32(byteAt(at + 4u + part) & 63u));
    minimums = vec2<i32>(i32(byteAt(at + 8u + part) & 63u));
  } else {
    let both = byteAt(at + 8u + part);
    scales = vec2<i32>(i32((both & 15u) | ((byteAt(at + part) >> 6u) << 4u)));
    minimums = vec2<i32>(i32((both >> 4u) | ((byteAt(at + 4u + part) >> 6u) << 4u)));
  }`;

export const Q4_K = blockType(
  'Q4_K',
  256,
  144,
  'q4k',
  (bytes, at, part, out) => {
    out.d = half(bytes, at);
    out.dMin = half(bytes, at + 2);
    sixBitPairs(bytes, at + 4, part, out);
    const qs = at + 16 + 32 * (part >> 1);
    for (let k = 0; k < 32; k++) out.codes[k] = (bytes.getUint8(qs + k) >> (4 * (part & 1))) & 15;
  },
  `d = halfAt(at); dMin = halfAt(at + 2u);${SIX_BIT_PAIRS}
  let shift = 4u * (part & 1u);${eachByte('at + 16u + 32u * (part / 2u)', 'codes[k] = i32((byte >> shift) & 15u);')}`,
  {
    words: `d = halfAt(at); dMin = halfAt(at + 2u);${SIX_BIT_PAIRS}
  let shift = 4u * (part & 1u);
  let qs = at + 16u + 32u * (part / 2u);
  for (var w = 0u; w < 4u; w++) {
    word[w] = nibbles(wordAt(qs + 8u * w) >> shift) | (nibbles(wordAt(qs + 8u * w + 4u) >> shift) << 16u);
  }`,
  },
);

export const Q5_K = blockType(
  'Q5_K',
  256,
  176,
  'q6k',
  (bytes, at, part, out) => {
    out.d = half(bytes, at);
    out.dMin = half(bytes, at + 2);
    sixBitPairs(bytes, at + 4, part, out);
    const qs = at + 48 + 32 * (part >> 1);
    for (let k = 0; k < 32; k++) {
      const low = (bytes.getUint8(qs + k) >> (4 * (part & 1))) & 15;
      out.codes[k] = low | (((bytes.getUint8(at + 16 + k) >> part) & 1) << 4);
    }
  },
  `d = halfAt(at); dMin = halfAt(at + 2u);${SIX_BIT_PAIRS}
  let shift = 4u * (part & 1u);${eachByte('at + 48u + 32u * (part / 2u)', 'codes[k] = i32((byte >> shift) & 15u);')}${eachByte('at + 16u', 'codes[k] |= i32(((byte >> part) & 1u) << 4u);')}`,
);

export const Q6_K = blockType(
  'Q6_K',
  256,
  210,
  'q6k',
  (bytes, at, part, out) => {
    out.d = half(bytes, at + 208);
    out.dMin = 0;
    out.scales = [bytes.getInt8(at + 192 + 2 * part), bytes.getInt8(at + 193 + 2 * part)];
    out.minimums = [0, 0];
    const ql = at + 64 * (part >> 2) + 32 * (part & 1);
    const qh = at + 128 + 32 * (part >> 2);
    for (let k = 0; k < 32; k++) {
      const low = (bytes.getUint8(ql + k) >> (part & 2 ? 4 : 0)) & 15;
      out.codes[k] = (low | (((bytes.getUint8(qh + k) >> (2 * (part & 3))) & 3) << 4)) - 32;
    }
  },
  `d = halfAt(at + 208u); dMin = 0.0; minimums = vec2<i32>(0);
  let pair = shortAt(at + 192u + 2u * part);
  scales = vec2<i32>(bitcast<i32>(pair << 24u) >> 24u, bitcast<i32>(pair << 16u) >> 24u);
  let shift = 2u * (part & 2u);${eachByte('at + 64u * (part / 4u) + 32u * (part & 1u)', 'codes[k] = i32((byte >> shift) & 15u) - 32;')}
  let high = 2u * (part & 3u);${eachByte('at + 128u + 32u * (part / 4u)', 'codes[k] += i32(((byte >> high) & 3u) << 4u);')}`,
);

export const IQ4_NL = blockType(
  'IQ4_NL',
  32,
  18,
  'iq4',
  (bytes, at, _part, out) => {
    plain(out, half(bytes, at));
    splitNibbles(bytes, at + 2, out.codes, 0);
  },
  `${PLAIN} d = halfAt(at);${splitNibblesWgsl('at + 2u', 0)}`,
  { levels: true, words: `${PLAIN} d = halfAt(at);${splitNibbleWords('at + 2u')}` },
);

export const IQ4_XS = blockType(
  'IQ4_XS',
  256,
  136,
  'iq4k',
  (bytes, at, part, out) => {
    out.d = half(bytes, at);
    out.dMin = 0;
    const low = (bytes.getUint8(at + 4 + (part >> 1)) >> (4 * (part & 1))) & 15;
    const scale = (low | (((bytes.getUint16(at + 2, true) >> (2 * part)) & 3) << 4)) - 32;
    out.scales = [scale, scale];
    out.minimums = [0, 0];
    splitNibbles(bytes, at + 8 + 16 * part, out.codes, 0);
  },
  `d = halfAt(at); dMin = 0.0; minimums = vec2<i32>(0);
  let low = (byteAt(at + 4u + part / 2u) >> (4u * (part & 1u))) & 15u;
  scales = vec2<i32>(i32(low | (((shortAt(at + 2u) >> (2u * part)) & 3u) << 4u)) - 32);${splitNibblesWgsl('at + 8u + 16u * part', 0)}`,
  { levels: true },
);

/** By ggml's names; F32, F16 and BF16 are those of every other file. */
export const GGML_TYPES: Readonly<Record<string, SourceType>> = {
  F32,
  F16,
  BF16,
  Q4_0,
  Q4_1,
  Q5_0,
  Q5_1,
  Q8_0,
  Q2_K,
  Q3_K,
  Q4_K,
  Q5_K,
  Q6_K,
  IQ4_NL,
  IQ4_XS,
};
