// Weights read 16 bytes at a time and kept as packed f16, for kernels whose tiles lie in workgroup memory as they are multiplied.
// A page's bounds checks may split a load of four halves into single ones; one of `vec4<u32>` they leave whole.

import { storedLayout, type WeightFormat } from '../../../runtime/src/program/formats.ts';

/** WGSL of 16 bytes: of the one value that has them, or of two `vec4<f16>` as `vec4<u32>`. */
export const sixteenOf = (values: readonly string[]): string =>
  values.length > 1 ? `vec4<u32>(${values.map((value) => `bitcast<vec2<u32>>(${value})`).join(', ')})` : values[0]!;

/** A stored matrix, bound as `array<vec4<u32>>` under `name`. */
export interface SixteenOptions {
  format: WeightFormat;
  rows: number;
  cols: number;
  binding: number;
  name: string;
}

/** A whole block of 32 stored values at a time: its codes and its scale are read once, by one thread. */
export interface BlockReader {
  declarations: string;
  /** WGSL types of `values`. */
  types: readonly string[];
  /** WGSL expressions that read what the block at `[row, col]` consists of; `col` a multiple of 32. */
  values(row: string, col: string): string[];
  /** Given names of those, WGSL of four `vec4<u32>`, each eight f16 values in order. */
  octets(names: readonly string[]): string[];
}

const binding = ({ binding, name }: SixteenOptions, bytes: number): string =>
  `@group(0) @binding(${binding}) var<storage, read> ${name}: array<vec4<u32>, ${bytes / 16}>;`;

/** Text that declares an f16 matrix and `<name>_read(row, more, col)`: eight values of `row + more`; none where rows start between 16 bytes. */
export function emitOctetReader(o: SixteenOptions): string | undefined {
  if (o.format !== 'f16' || o.cols % 8 !== 0) return undefined;
  return `${binding(o, o.rows * o.cols * 2)}
fn ${o.name}_read(row: u32, more: u32, col: u32) -> vec4<u32> {
  return ${o.name}[row * ${o.cols / 8}u + col / 8u + more * ${o.cols / 8}u];
}`;
}

/**
 * Codes become f16 without conversions: or-ed into the mantissa of 16, of which a difference leaves a 64th of the code exactly,
 * two at a time. The product with 64 times the scale is rounded once, as that of the f32 values was. The 64 are there because scales
 * of small weights are subnormal in f16, which devices may take for zero. Where 64 times the scale would exceed f16, codes are or-ed into
 * the mantissa of 1024 instead, which leaves them whole, and the scale is taken as it is.
 * A block's pairs lie apart in its words (nibbles 0 and 4, bytes 0 and 2) and are put in order afterwards.
 */
export function emitBlockReader(o: SixteenOptions): BlockReader | undefined {
  const { name, format } = o;
  const { bytes, sections } = storedLayout(format, o.rows, o.cols);
  if ((format !== 'q8' && format !== 'q4') || bytes % 16 !== 0) return undefined;
  const vectors = format === 'q8' ? 2 : 1;
  const half = (bits: string): string => `(bitcast<vec2<f16>>(${bits}) - zero) * scale`;
  // Of bytes the sign bit is turned over, so that all are above zero: 16 + 128/64 is zero, or 1024 + 128; of nibbles 16 + 8/64.
  const [small, large, smallZero, largeZero] =
    format === 'q8'
      ? ['0x4c804c80u', '0x64806480u', '18.0', '1152.0']
      : ['0x4c004c00u', '0x64006400u', '16.125', '1032.0'];
  const prepare = `let large = abs(stored) > 1023.0;
  let base = select(${small}, ${large}, large);
  let zero = vec2<f16>(select(${smallZero}h, ${largeZero}h, large));
  let scale = vec2<f16>(f16(select(64.0 * stored, stored, large)));`;
  const unpack =
    format === 'q8'
      ? `fn ${name}_quad(word: u32, base: u32, zero: vec2<f16>, scale: vec2<f16>) -> vec2<u32> {
  let even = ${half('(word & 0x00ff00ffu) ^ base')};
  let odd = ${half('((word >> 8u) & 0x00ff00ffu) ^ base')};
  return vec2<u32>(bitcast<u32>(vec2<f16>(even.x, odd.x)), bitcast<u32>(vec2<f16>(even.y, odd.y)));
}
fn ${name}_octet(words: vec2<u32>, stored: f32) -> vec4<u32> {
  ${prepare}
  return vec4<u32>(${name}_quad(words.x, base, zero, scale), ${name}_quad(words.y, base, zero, scale));
}`
      : `fn ${name}_octet(word: u32, stored: f32) -> vec4<u32> {
  ${prepare}
  let a = ${half('(word & 0x000f000fu) | base')};
  let b = ${half('((word >> 4u) & 0x000f000fu) | base')};
  let c = ${half('((word >> 8u) & 0x000f000fu) | base')};
  let d = ${half('((word >> 12u) & 0x000f000fu) | base')};
  return vec4<u32>(bitcast<u32>(vec2<f16>(a.x, b.x)), bitcast<u32>(vec2<f16>(c.x, d.x)), bitcast<u32>(vec2<f16>(a.y, b.y)), bitcast<u32>(vec2<f16>(c.y, d.y)));
}`;
  const scales = sections[1]! / 2;
  return {
    declarations: `${binding(o, bytes)}
${unpack}
fn ${name}_scale(row: u32, col: u32) -> f32 {
  let i = ${scales}u + row * ${o.cols / 32}u + col / 32u;
  return unpack2x16float(${name}[i / 8u][i / 2u % 4u] >> (16u * (i % 2u))).x;
}`,
    types: [...Array.from({ length: vectors }, () => 'vec4<u32>'), 'f32'],
    values: (row, col) => [
      ...Array.from(
        { length: vectors },
        (_, v) => `${name}[(${row}) * ${(o.cols * vectors) / 32}u + (${col}) / ${32 / vectors}u${v ? ` + ${v}u` : ''}]`,
      ),
      `${name}_scale(${row}, ${col})`,
    ],
    octets: (names) => {
      const scale = names[vectors]!;
      const parts =
        format === 'q8'
          ? [`${names[0]}.xy`, `${names[0]}.zw`, `${names[1]}.xy`, `${names[1]}.zw`]
          : [...'xyzw'].map((c) => `${names[0]}.${c}`);
      return parts.map((part) => `${name}_octet(${part}, ${scale})`);
    },
  };
}
