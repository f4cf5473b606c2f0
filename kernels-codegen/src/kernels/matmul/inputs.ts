// Module-scope WGSL that reads a matmul's operands, four values along k at a time, zero beyond each segment's end.
// All alignment and raggedness along k ends here: the variants see whole vectors only.

import { hasTier, type TargetProfile } from '../../targets/types.ts';
import { LITERALS, type Sizes } from '../../wgsl/sizes.ts';
import { emitWeightLoader, type WeightLoader } from '../../wgsl/weights.ts';
import { type MatrixView, viewLength } from '../kernel.ts';
import { unpackHalves } from '../words.ts';
import { type MatmulSpec, type StoredMatrix, segmentsOf } from './spec.ts';

export interface MatmulInputs {
  declarations: string;
  segments: SegmentInput[];
  /** The same, those together whose columns of one weight are a whole: the first's `loadB` reads those of all. */
  parts: SegmentInput[][];
  /** Bindings used, all `read`: the segments, the weight, then the path beside it. */
  count: number;
}

export interface SegmentInput {
  cols: number;
  /** `vec4<element>`: a[row, k … k + 3]. WGSL u32 expressions; `k` a multiple of 4, `row` inside the matrix. */
  loadA(row: string, k: string): string;
  /** `vec4<element>`: b[row, kOffset + k … + 3], with the segment's own `k`. */
  loadB(row: string, k: string): string;
}

/**
 * @param element type of the loaded values
 * @param step the caller asks for `k` up to the next multiple of this beyond a segment's width
 * @param words read f16 as 32-bit words and unpack them: a CPU's driver gathers 16-bit values one at a time
 * @param sizes how the text gets what differs between shapes
 */
export function emitInputs(
  spec: MatmulSpec,
  target: TargetProfile,
  element: 'f32' | 'f16',
  step: number,
  words = false,
  sizes: Sizes = LITERALS,
): MatmulInputs {
  const text: string[] = [];
  const count = spec.segments.length;
  const main = weightLoader(spec.weight, count, 'b', target, element, words, sizes);
  const beside = spec.beside && weightLoader(spec.beside.weight, count + 2, 'c', target, element, words, sizes);
  const numbered = segmentsOf(spec).map((segment, s) => ({ ...segment, s }));
  const parts = joinSegments(numbered, step).map((group): SegmentInput[] => {
    const { s: number, first: from } = group[0]!;
    // The path beside comes after the main weight, with one of its own.
    const weight = number < count ? main : beside!;
    const cols = group.reduce((sum, { a }) => sum + a.cols, 0);
    const right = emitRight(weight, `b${number}`, from, cols, element, step, sizes);
    text.push(right.declarations);
    return group.map(({ a, first, s }) => {
      const left = emitLeft(a, `a${s}`, s < count ? s : count + 1, element, step, words, sizes);
      text.push(left.declarations);
      const loadB: SegmentInput['loadB'] = (row, k) =>
        right.load(row, first > from ? `${sizes.of(`b${s}_from`, first - from)} + ${k}` : k);
      return { cols: a.cols, loadA: left.load, loadB };
    });
  });
  const declarations = [main.declarations, ...(beside ? [beside.declarations] : []), ...text];
  return {
    declarations: declarations.join('\n'),
    parts,
    segments: parts.flat(),
    count: count + (beside ? 3 : 1),
  };
}

/** Text at module scope, and `vec4<element>` at a row and a multiple of four columns. */
export interface Loader {
  declarations: string;
  load(row: string, k: string): string;
}

/** The bound array of a right operand with a function that unpacks it. */
export const weightLoader = (
  weight: StoredMatrix,
  binding: number,
  name: string,
  target: TargetProfile,
  element: 'f32' | 'f16',
  words = false,
  sizes: Sizes = LITERALS,
): WeightLoader =>
  emitWeightLoader({ ...weight, binding, name, shaderF16: hasTier(target, 'f16') && !words, element, sizes });

/** A left operand, zero from its last column to the next multiple of `step`. */
export function emitLeft(
  a: MatrixView,
  name: string,
  binding: number,
  element: 'f32' | 'f16',
  step: number,
  words = false,
  sizes: Sizes = LITERALS,
): Loader {
  const wide = [a.cols, a.rowStride, a.offset].every((x) => x % 4 === 0);
  const packed = words && wide && a.type === 'f16';
  const stored = packed ? 'vec2<u32>' : wide ? `vec4<${a.type}>` : a.type;
  const length = wide ? Math.ceil(viewLength(a) / 4) : viewLength(a);
  const offset = (unit: number): string => sizes.of(`${name}_offset`, a.offset / unit);
  const stride = (unit: number): string => sizes.of(`${name}_stride`, a.rowStride / unit);
  const at = (k: string): string =>
    wide
      ? `${name}[${offset(4)} + row * ${stride(4)} + ${k} / 4u]`
      : `${name}[${offset(1)} + row * ${stride(1)} + ${k}]`;
  const read = loader(
    `${name}_load`,
    `vec4<${element}>`,
    wide,
    a.cols % step === 0 ? undefined : sizes.of(`${name}_columns`, a.cols),
    packed ? (k) => unpackHalves(at(k)) : at,
  );
  return {
    declarations: `@group(0) @binding(${binding}) var<storage, read> ${name}: array<${stored}${sizes.length(length)}>;\n${read}`,
    load: (row, k) => `${name}_load(${row}, ${k})`,
  };
}

/** Columns `first … first + cols − 1` of a right operand, zero from there to the next multiple of `step`. */
export function emitRight(
  weight: WeightLoader,
  name: string,
  first: number,
  cols: number,
  element: 'f32' | 'f16',
  step: number,
  sizes: Sizes = LITERALS,
): Loader {
  const wide = first % 4 === 0 && cols % 4 === 0 && weight.width === 4;
  const at = (k: string): string => {
    const column = first ? `${sizes.of(`${name}_first`, first)} + ${k}` : k;
    if (wide || weight.width === 1) return weight.load('row', column);
    return `${weight.load('row', `(${column}) & ~3u`)}[(${column}) & 3u]`;
  };
  return {
    declarations: loader(
      `${name}_load`,
      `vec4<${element}>`,
      wide,
      cols % step === 0 ? undefined : sizes.of(`${name}_columns`, cols),
      at,
    ),
    load: (row, k) => `${name}_load(${row}, ${k})`,
  };
}

/**
 * Segments whose columns of one right operand a loop over k in steps may treat as one: none of its steps crosses from
 * one segment to the next. What does not depend on the left operand is then written, and read, without a branch.
 */
export function joinSegments<T extends { a: MatrixView; weight: StoredMatrix; first: number }>(
  segments: readonly T[],
  step: number,
): T[][] {
  const joined: T[][] = [];
  for (const segment of segments) {
    const group = joined.at(-1);
    const before = group?.at(-1);
    if (before?.weight === segment.weight && before.a.cols % step === 0) group!.push(segment);
    else joined.push([segment]);
  }
  return joined;
}

/** A function `(row, k) → type`, zero from `end` on; `at` gives the WGSL of a vector (`wide`) or one element, at a column. */
function loader(name: string, type: string, wide: boolean, end: string | undefined, at: (k: string) => string): string {
  const lines: string[] = [];
  if (wide) {
    if (end) lines.push(`if (k >= ${end}) { return ${type}(); }`);
    lines.push(`return ${type}(${at('k')});`);
  } else {
    const scalar = type.slice(5, -1);
    lines.push(`var v = ${type}();`);
    for (let i = 0; i < 4; i++) {
      const k = i ? `(k + ${i}u)` : 'k';
      lines.push(`${end ? `if (${k} < ${end}) ` : ''}{ v[${i}] = ${scalar}(${at(k)}); }`);
    }
    lines.push('return v;');
  }
  return `fn ${name}(row: u32, k: u32) -> ${type} {\n  ${lines.join('\n  ')}\n}`;
}
