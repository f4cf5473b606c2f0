// Module-scope WGSL that reads a matmul's operands, four values along k at a time, zero beyond each segment's end.
// All alignment and raggedness along k ends here: the variants see whole vectors only.

import { hasTier, type TargetProfile } from '../../targets/types.ts';
import { emitWeightLoader, type WeightLoader } from '../../wgsl/weights.ts';
import { viewLength } from '../kernel.ts';
import { unpackHalves } from '../words.ts';
import { type MatmulSpec, type StoredMatrix, segmentsOf } from './spec.ts';

export interface MatmulInputs {
  declarations: string;
  segments: SegmentInput[];
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
 */
export function emitInputs(
  spec: MatmulSpec,
  target: TargetProfile,
  element: 'f32' | 'f16',
  step: number,
  words = false,
): MatmulInputs {
  const type = `vec4<${element}>`;
  const text: string[] = [];
  const loaderOf = (weight: StoredMatrix, binding: number, name: string): WeightLoader =>
    emitWeightLoader({ ...weight, binding, name, shaderF16: hasTier(target, 'f16') && !words, element });
  const count = spec.segments.length;
  const main = loaderOf(spec.weight, count, 'b');
  const beside = spec.beside && loaderOf(spec.beside.weight, count + 2, 'c');
  const segments = segmentsOf(spec).map(({ a, first }, s): SegmentInput => {
    // The path beside comes after the main weight, with one of its own.
    const [binding, weight] = s < count ? [s, main] : [count + 1, beside!];
    const guarded = a.cols % step !== 0;
    const wide = [a.cols, a.rowStride, a.offset].every((x) => x % 4 === 0);
    const packed = words && wide && a.type === 'f16';
    const stored = packed ? 'vec2<u32>' : wide ? `vec4<${a.type}>` : a.type;
    const length = wide ? Math.ceil(viewLength(a) / 4) : viewLength(a);
    text.push(`@group(0) @binding(${binding}) var<storage, read> a${s}: array<${stored}, ${length}>;`);
    const at = (k: string): string =>
      wide
        ? `a${s}[${a.offset / 4}u + row * ${a.rowStride / 4}u + ${k} / 4u]`
        : `a${s}[${a.offset}u + row * ${a.rowStride}u + ${k}]`;
    text.push(loader(`a${s}_load`, type, wide, guarded, a.cols, packed ? (k) => unpackHalves(at(k)) : at));

    const aligned = first % 4 === 0 && a.cols % 4 === 0;
    const bWide = aligned && weight.width === 4;
    const bAt = (k: string): string => {
      const column = first ? `${first}u + ${k}` : k;
      if (bWide || weight.width === 1) return weight.load('row', column);
      return `${weight.load('row', `(${column}) & ~3u`)}[(${column}) & 3u]`;
    };
    text.push(loader(`b${s}_load`, type, bWide, guarded, a.cols, bAt));
    return {
      cols: a.cols,
      loadA: (row, k) => `a${s}_load(${row}, ${k})`,
      loadB: (row, k) => `b${s}_load(${row}, ${k})`,
    };
  });
  const declarations = [main.declarations, ...(beside ? [beside.declarations] : []), ...text];
  return { declarations: declarations.join('\n'), segments, count: count + (beside ? 3 : 1) };
}

/** A function `(row, k) → type`; `at` gives the WGSL of a vector (`wide`) or one element, at a column. */
function loader(
  name: string,
  type: string,
  wide: boolean,
  guarded: boolean,
  cols: number,
  at: (k: string) => string,
): string {
  const lines: string[] = [];
  if (wide) {
    if (guarded) lines.push(`if (k >= ${cols}u) { return ${type}(); }`);
    lines.push(`return ${type}(${at('k')});`);
  } else {
    const scalar = type.slice(5, -1);
    lines.push(`var v = ${type}();`);
    for (let i = 0; i < 4; i++) {
      const k = i ? `(k + ${i}u)` : 'k';
      lines.push(`${guarded ? `if (${k} < ${cols}u) ` : ''}{ v[${i}] = ${scalar}(${at(k)}); }`);
    }
    lines.push('return v;');
  }
  return `fn ${name}(row: u32, k: u32) -> ${type} {\n  ${lines.join('\n  ')}\n}`;
}
