// Plain element types of checkpoints: 32- and 16-bit floats, and the 8-bit ones with their scales kept beside.
// Without a scale an 8-bit float is its own value; W = scale · code otherwise, the scale of the tensor or of each row.

import { halfToFloat } from '../../half.ts';
import { NIBBLE_LEVELS } from '../../program/formats.ts';
import type { SourceType } from './source-type.ts';

/** Bytes may lie at any offset, and typed arrays of two and four bytes may not. */
const aligned = (bytes: Uint8Array): ArrayBuffer =>
  bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.byteLength) as ArrayBuffer;

export const F32: SourceType = {
  name: 'F32',
  elements: 1,
  bytes: 4,
  reader: {
    kind: 'element',
    wgsl: 'bitcast<f32>(src[i])',
    bits: { magnitude: 0x7fffffff, toInfinity: 0x00800000 },
    decode: (bytes) => new Float32Array(aligned(bytes)),
  },
};

export const F16: SourceType = {
  name: 'F16',
  elements: 1,
  bytes: 2,
  reader: {
    kind: 'element',
    wgsl: 'unpack2x16float(src[i / 2u])[i % 2u]',
    bits: { magnitude: 0x7fff7fff, toInfinity: 0x04000400 },
    pair: 'unpack2x16float(w)',
    decode: (bytes) => Float32Array.from(new Uint16Array(aligned(bytes)), halfToFloat),
  },
};

export const BF16: SourceType = {
  name: 'BF16',
  elements: 1,
  bytes: 2,
  reader: {
    kind: 'element',
    wgsl: 'bitcast<f32>((src[i / 2u] >> ((i % 2u) * 16u)) << 16u)',
    bits: { magnitude: 0x7fff7fff, toInfinity: 0x00800080 },
    pair: 'vec2<f32>(bitcast<f32>(w << 16u), bitcast<f32>(w & 0xffff0000u))',
    decode: (bytes) => {
      const bits = Uint32Array.from(new Uint16Array(aligned(bytes)), (b) => b << 16);
      return new Float32Array(bits.buffer);
    },
  },
};

/**
 * Mantissa bits and exponent bias of the two 8-bit formats; e4m3fn has NaN (0x7f, 0xff) and no infinity, e5m2 is the top of an f16.
 * Codes from `odd` on (without the sign) are no numbers.
 */
const FP8 = { e4m3: { mantissa: 3, bias: 7, odd: 0x7f }, e5m2: { mantissa: 2, bias: 15, odd: 0x7c } } as const;

/**
 * WGSL of `fn name(code: vec4<u32>) -> vec4<f32>` for four codes of an 8-bit float. Subnormals are multiplied out, because
 * GPUs may take f32's and f16's for zero. Codes that are no numbers give any: loading finds them before.
 */
export function fp8Wgsl(kind: 'e4m3' | 'e5m2', name: string): string {
  const { mantissa, bias } = FP8[kind];
  const rebias = ((127 - bias) << 23) >>> 0;
  return `fn ${name}(code: vec4<u32>) -> vec4<f32> {
  let m = code & vec4<u32>(0x7fu);
  let normal = bitcast<vec4<f32>>((m << vec4<u32>(${23 - mantissa}u)) + vec4<u32>(${rebias}u));
  let size = select(normal, vec4<f32>(m) * ${2 ** (1 - bias - mantissa)}, m < vec4<u32>(${1 << mantissa}u));
  return select(size, -size, code >= vec4<u32>(128u));
}`;
}

/** The 256 values of an 8-bit float. */
function fp8Values(kind: 'e4m3' | 'e5m2'): Float32Array {
  const { mantissa, bias } = FP8[kind];
  return Float32Array.from({ length: 256 }, (_, code) => {
    const [exponent, fraction] = [(code & 127) >> mantissa, code & ((1 << mantissa) - 1)];
    const sign = code & 128 ? -1 : 1;
    if (kind === 'e4m3' && (code & 127) === 127) return Number.NaN;
    if (kind === 'e5m2' && exponent === 31) return fraction ? Number.NaN : sign * Number.POSITIVE_INFINITY;
    if (exponent === 0) return sign * fraction * 2 ** (1 - bias - mantissa);
    return sign * (1 + fraction / (1 << mantissa)) * 2 ** (exponent - bias);
  });
}

function fp8(kind: 'e4m3' | 'e5m2', name: string): SourceType {
  let values: Float32Array | undefined;
  return {
    name,
    elements: 1,
    bytes: 1,
    stored: kind,
    reader: {
      kind: 'element',
      wgsl: 'fp8((src[i / 4u] >> ((i % 4u) * 8u)) & 0xffu)',
      // Bits of a NaN, for who watches bits; not a constant, which WGSL refuses.
      declarations: `${fp8Wgsl(kind, 'fp8Codes')}
fn fp8(code: u32) -> f32 {
  if ((code & 0x7fu) >= ${FP8[kind].odd}u) { return bitcast<f32>(0x7fc00000u | code); }
  return fp8Codes(vec4<u32>(code)).x;
}`,
      bits: { magnitude: 0x7f7f7f7f, toInfinity: kind === 'e4m3' ? 0x01010101 : 0x04040404 },
      decode: (bytes) => {
        values ??= fp8Values(kind);
        return Float32Array.from(bytes, (code) => values![code]!);
      },
    },
  };
}

export const F8_E4M3 = fp8('e4m3', 'F8_E4M3');
export const F8_E5M2 = fp8('e5m2', 'F8_E5M2');

/** By safetensors' names. */
export const FLOAT_TYPES: Readonly<Record<string, SourceType>> = { F32, F16, BF16, F8_E4M3, F8_E5M2 };

/** WGSL of the table behind IQ4_NL and IQ4_XS. */
export const levelsWgsl = (name: string): string =>
  `const ${name} = array<f32, 16>(${NIBBLE_LEVELS.map((level) => `${level}.0`).join(', ')});`;
