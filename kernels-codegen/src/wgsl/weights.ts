// WGSL that reads a weight matrix `[rows, cols]` in any stored format, a few consecutive elements of a row at a time.
// One place knows the byte layouts of `WeightFormat`, so that every family dequantises alike.

import {
  columnsUnit,
  STORED_FORMATS,
  type StoredFormat,
  storedLayout,
  type WeightFormat,
} from '../../../runtime/src/program/formats.ts';
import { fp8Wgsl, levelsWgsl } from '../../../runtime/src/weights/types/floats.ts';
import { LITERALS, type Sizes } from './sizes.ts';

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
  /** How the text gets the matrix's sizes; literals by default. */
  sizes?: Sizes;
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

/** Bytes of a stored weight matrix, padded to four. */
export const weightBytes = (format: WeightFormat, rows: number, cols: number): number =>
  storedLayout(format, rows, cols).bytes;

/** Why a matrix of `cols` columns cannot be stored in this format; undefined when it can. */
export function formatProblem(format: WeightFormat, cols: number): string | undefined {
  const unit = columnsUnit(format);
  return cols % unit === 0 ? undefined : `${format} needs a multiple of ${unit} columns; store this weight as f16`;
}

/** Requires `cols` to be a multiple of the format's `columnsUnit`. */
export function emitWeightLoader(o: WeightLoaderOptions): WeightLoader {
  const { name, cols, sizes = LITERALS } = o;
  const width = cols % 4 === 0 ? 4 : 1;
  const type = width === 4 ? `vec4<${o.element}>` : o.element;
  const wide = width === 4 ? 'vec4<f32>' : 'f32';
  const elements = o.rows * cols;
  const bytes = weightBytes(o.format, o.rows, cols);
  const index = `row * ${sizes.of(`${name}_stride`, cols / width)} + col${width === 4 ? ' / 4u' : ''}`;
  const convert = (from: string, text: string): string => (from === type ? text : `${type}(${text})`);

  const finish = (array: string, body: string, before = ''): WeightLoader => ({
    declarations: `${before}@group(0) @binding(${o.binding}) var<storage, read> ${name}: ${array};
fn ${name}_load(row: u32, col: u32) -> ${type} {
${body}
}`,
    width,
    load: (row, col) => `${name}_load(${row}, ${col})`,
    bytes,
  });

  switch (o.format) {
    case 'f32':
      return finish(
        `array<${wide}${sizes.length(elements / width)}>`,
        `  return ${convert(wide, `${name}[${index}]`)};`,
      );
    case 'f16': {
      if (o.shaderF16) {
        const stored = width === 4 ? 'vec4<f16>' : 'f16';
        return finish(
          `array<${stored}${sizes.length(elements / width)}>`,
          `  return ${convert(stored, `${name}[${index}]`)};`,
        );
      }
      if (width === 4) {
        const text = 'vec4<f32>(unpack2x16float(words.x), unpack2x16float(words.y))';
        return finish(
          `array<vec2<u32>${sizes.length(elements / 4)}>`,
          `  let words = ${name}[${index}];\n  return ${convert(wide, text)};`,
        );
      }
      return finish(
        `array<u32${sizes.length(bytes / 4)}>`,
        `  let i = ${index};\n  return ${convert(wide, `unpack2x16float(${name}[i / 2u])[i % 2u]`)};`,
      );
    }
    default:
      // Blocks are parts of rows and all units are multiples of four, so four elements share a scale and `width` is 4 here.
      return finish(`array<u32${sizes.length(bytes / 4)}>`, `  let i = ${index};\n${unpack(o, convert)}`, unpackers(o));
  }
}

/** Functions and tables that {@link unpack} uses. */
function unpackers({ format, name }: WeightLoaderOptions): string {
  const { codes } = STORED_FORMATS[format];
  if (codes === 'level') return `${levelsWgsl(`${name}_levels`)}\n`;
  return codes === 'e4m3' || codes === 'e5m2' ? `${fp8Wgsl(codes, `${name}_${codes}`)}\n` : '';
}

/** Statements that return elements `4i … 4i + 3`: their codes, then the scale of their block. */
function unpack(o: WeightLoaderOptions, convert: (from: string, text: string) => string): string {
  const { name, format, rows, cols, sizes = LITERALS } = o;
  const kind: StoredFormat = STORED_FORMATS[format];
  const words = storedLayout(format, rows, cols).sections.map((byte) => byte / 4);
  const starts = words.map((word, i) => sizes.of(`${name}_section${i}`, word));
  const sections = kind.codes === 'six' ? starts.slice(2) : starts.slice(1);
  const finish = (text: string): string => `  return ${convert('vec4<f32>', text)};`;
  const codes = `  let word = ${name}[${kind.codes === 'byte' || kind.codes === 'e4m3' || kind.codes === 'e5m2' ? 'i' : 'i / 2u'}];
${kind.codes === 'six' ? `  let high = ${name}[${starts[1]} + i / 4u];\n` : ''}`;
  const values = codeValues(kind, name);
  switch (kind.scales) {
    case 'half':
      return `${codes}  let block = i / 8u;
  let scale = unpack2x16float(${name}[${sections[0]} + block / 2u])[block % 2u];
${finish(`${values} * scale`)}`;
    case 'pair':
      return `${codes}  let pair = unpack2x16float(${name}[${sections[0]} + i / 8u]);
${finish(`${values} * pair.x + pair.y`)}`;
    case 'group32':
    case 'group16': {
      const group = kind.scales === 'group32' ? 'i / 8u' : 'i / 4u';
      // Two signed bytes, by shifts: `unpack4xI8` is a language feature that not every implementation has.
      return `${codes}  let group = ${group};
  let bytes = ${name}[${sections[0]} + group / 2u] >> (16u * (group % 2u));
  let signed = vec2<f32>(bitcast<vec2<i32>>(vec2<u32>(bytes) << vec2<u32>(24u, 16u)) >> vec2<u32>(24u));
  let scale = signed * unpack2x16float(${name}[${sections[1]} + i / 64u]);
${finish(`${values} * scale.x - scale.y`)}`;
    }
    case 'row':
      return `${codes}${finish(`${values} * bitcast<f32>(${name}[${sections[0]} + row])`)}`;
    default:
      throw new Error(`${format} has no scales`);
  }
}

/** Four codes as `vec4<f32>`, from `word` (and `high`), which hold those of element `4i`. */
function codeValues({ codes, zero }: StoredFormat, name: string): string {
  const nibbles = '((vec4<u32>(word >> (16u * (i % 2u))) >> vec4<u32>(0u, 4u, 8u, 12u)) & vec4<u32>(15u))';
  const minus = zero ? ` - vec4<f32>(${zero}.0)` : '';
  switch (codes) {
    // Sign extension by shifts: `unpack4xI8` is a language feature that not every implementation has.
    case 'byte':
      return 'vec4<f32>(bitcast<vec4<i32>>(vec4<u32>(word) << vec4<u32>(24u, 16u, 8u, 0u)) >> vec4<u32>(24u))';
    case 'nibble':
      return `(vec4<f32>${nibbles}${minus})`;
    case 'six':
      return `(vec4<f32>(${nibbles} | (((vec4<u32>(high >> (8u * (i % 4u))) >> vec4<u32>(0u, 2u, 4u, 6u)) & vec4<u32>(3u)) << vec4<u32>(4u)))${minus})`;
    case 'level': {
      const level = (shift: number): string => `${name}_levels[(word >> (16u * (i % 2u) + ${shift}u)) & 15u]`;
      return `vec4<f32>(${[0, 4, 8, 12].map(level).join(', ')})`;
    }
    case 'e4m3':
    case 'e5m2':
      return `${name}_${codes}((vec4<u32>(word) >> vec4<u32>(0u, 8u, 16u, 24u)) & vec4<u32>(0xffu))`;
    default:
      throw new Error(`${codes} needs no unpacking`);
  }
}
