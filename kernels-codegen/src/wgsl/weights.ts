// WGSL that reads a weight matrix `[rows, cols]` in any stored format, a few consecutive elements of a row at a time.
// One place knows the byte layouts of `WeightFormat`, so that every family dequantises alike.

import type { WeightFormat } from '../../../runtime/src/program/types.ts';

export interface WeightLoaderOptions {
  format: WeightFormat;
  rows: number;
  cols: number;
  /** Number in group 0. */
  binding: number;
  /** Prefix of every name the loader declares, and the name of the bound array. */
  name: string;
  /** The module has `enable f16`: f16 weights are bound as `array<f16>` and not unpacked from words. */
  shaderF16: boolean;
  /** Type of the loaded values; `f16` needs `shaderF16`. */
  element: 'f32' | 'f16';
}

export interface WeightLoader {
  /** Module-scope text: the binding (access `read`) and a function. */
  declarations: string;
  /** Elements one {@link load} returns: 4 when every row starts on a multiple of four elements, else 1. */
  width: 1 | 4;
  /**
   * WGSL expression of type `element` or `vec4<element>` by `width`: elements `[row, col … col + width − 1]`.
   * @param row, col WGSL u32 expressions inside the matrix; `col` must be a multiple of `width`
   */
  load(row: string, col: string): string;
  /** Bytes of the bound matrix, scales included. */
  bytes: number;
}

/** Bytes of a stored weight matrix, as `WeightFormat` defines them, padded to four. */
export function weightBytes(format: WeightFormat, rows: number, cols: number): number {
  const elements = rows * cols;
  const raw = {
    f32: elements * 4,
    f16: elements * 2,
    q8: elements + elements / 16,
    q4: elements / 2 + elements / 16,
  }[format];
  return Math.ceil(raw / 4) * 4;
}

/** Requires `cols % 32 == 0` for `q8` and `q4`. */
export function emitWeightLoader(o: WeightLoaderOptions): WeightLoader {
  const { name, cols } = o;
  const width = cols % 4 === 0 ? 4 : 1;
  const type = width === 4 ? `vec4<${o.element}>` : o.element;
  const wide = width === 4 ? 'vec4<f32>' : 'f32';
  const elements = o.rows * cols;
  const bytes = weightBytes(o.format, o.rows, cols);
  const index = `row * ${cols / width}u + col${width === 4 ? ' / 4u' : ''}`;
  const convert = (from: string, text: string): string => (from === type ? text : `${type}(${text})`);

  const finish = (array: string, body: string): WeightLoader => ({
    declarations: `@group(0) @binding(${o.binding}) var<storage, read> ${name}: ${array};
fn ${name}_load(row: u32, col: u32) -> ${type} {
${body}
}`,
    width,
    load: (row, col) => `${name}_load(${row}, ${col})`,
    bytes,
  });

  switch (o.format) {
    case 'f32':
      return finish(`array<${wide}, ${elements / width}>`, `  return ${convert(wide, `${name}[${index}]`)};`);
    case 'f16': {
      if (o.shaderF16) {
        const stored = width === 4 ? 'vec4<f16>' : 'f16';
        return finish(`array<${stored}, ${elements / width}>`, `  return ${convert(stored, `${name}[${index}]`)};`);
      }
      if (width === 4) {
        const text = 'vec4<f32>(unpack2x16float(words.x), unpack2x16float(words.y))';
        return finish(
          `array<vec2<u32>, ${elements / 4}>`,
          `  let words = ${name}[${index}];\n  return ${convert(wide, text)};`,
        );
      }
      return finish(
        `array<u32, ${bytes / 4}>`,
        `  let i = ${index};\n  return ${convert(wide, `unpack2x16float(${name}[i / 2u])[i % 2u]`)};`,
      );
    }
    case 'q8':
    case 'q4': {
      // Blocks of 32 are whole rows' parts, so four elements share a scale and `width` is always 4 here.
      const perWord = o.format === 'q8' ? 4 : 8;
      // Sign extension by shifts: `unpack4xI8` is a language feature that not every implementation has.
      const values =
        o.format === 'q8'
          ? 'vec4<f32>(bitcast<vec4<i32>>(vec4<u32>(word) << vec4<u32>(24u, 16u, 8u, 0u)) >> vec4<u32>(24u))'
          : '(vec4<f32>((vec4<u32>(word >> (16u * (i % 2u))) >> vec4<u32>(0u, 4u, 8u, 12u)) & vec4<u32>(15u)) - vec4<f32>(8.0))';
      return finish(
        `array<u32, ${bytes / 4}>`,
        `  let i = ${index};
  let word = ${name}[${perWord === 4 ? 'i' : 'i / 2u'}];
  let block = i / 8u;
  let scale = unpack2x16float(${name}[${elements / perWord}u + block / 2u])[block % 2u];
  return ${convert(wide, `${values} * scale`)};`,
      );
    }
    default:
      throw o.format satisfies never;
  }
}
