// What every attention variant emits alike: bindings with loads and stores of any view, and the finished score.
// Kept apart so that alignment, ragged edges, bias and masks mean the same in each variant.

import type { BindingAccess } from '../../../../runtime/src/program/types.ts';
import { floatLiteral } from '../../expr/expr.ts';
import { type MatrixView, viewLength } from '../kernel.ts';
import { unpackHalves } from '../words.ts';
import { type AttentionSpec, keysOf } from './spec.ts';

/** Scores are kept in units of log₂ e: GPUs have exp2, and exp is that with a multiplication. */
const LOG2_E = Math.LOG2E;

/** Score of a masked key, and the maximum before the first key: its exp2 against any real score is 0. */
export const MASKED = '-3.0e38';

export interface EmittedViews {
  declarations: string;
  /**
   * `load_q`, `load_k`, `load_v (row, d, head) -> vec4<staged>` and `store_out(row, d, head, vec4<f32>)`, where `d`
   * counts vectors of four in the head. Loads give 0 outside; `store_out` must be called inside.
   */
  functions: string;
  bindings: BindingAccess[];
}

/** Whether a view's rows are 16-byte aligned halves. */
const isOctets = (m: MatrixView, size: number): boolean =>
  m.type === 'f16' && [m.offset, m.rowStride, size].every((n) => n % 8 === 0);

/**
 * With `bytes16` also functions `read_q`, `read_k`, `read_v (row, more, d, head)`: the 16 bytes of `row + more` with number `d` in the head, as they
 * lie in workgroup memory. One load where the view starts on 16 bytes, which a page's bounds checks leave whole; `more` apart, so that addresses
 * differ by constants.
 *
 * @param reach vectors of a head and rows that the kernel asks for: a guard is emitted only where that leaves the view
 * @param words read f16 as 32-bit words and unpack them: a CPU's driver gathers 16-bit values one at a time
 */
export function declareViews(
  spec: AttentionSpec,
  staged: 'f32' | 'f16',
  reach: { tileQ: number; tileK: number; d4: number; v4: number },
  words = false,
  bytes16 = false,
): EmittedViews {
  const { q, k, v, out, bias, size } = spec;
  const keys = keysOf(spec);
  const bindings: BindingAccess[] = [];
  const declarations: string[] = [];
  const declare = (name: string, access: 'read' | 'read_write', element: string, length: number): void => {
    declarations.push(
      `@group(0) @binding(${bindings.length}) var<storage, ${access}> ${name}: array<${element}, ${length}>;`,
    );
    bindings.push(access);
  };
  const packed = (m: MatrixView): boolean => words && m.type === 'f16' && isVector(m, size);
  const declareView = (name: string, access: 'read' | 'read_write', m: MatrixView): void => {
    const vector = isVector(m, size);
    if (bytes16 && access === 'read' && isOctets(m, size)) {
      declare(name, access, 'vec4<u32>', Math.ceil(viewLength(m) / 8));
      return;
    }
    const element = packed(m) && access === 'read' ? 'vec2<u32>' : vector ? `vec4<${m.type}>` : m.type;
    declare(name, access, element, Math.ceil(viewLength(m) / (vector ? 4 : 1)));
  };
  const load = (name: string, m: MatrixView, rows: number, tile: number, d4: number): string => {
    const outside = [
      rows % tile ? `row >= ${rows}u` : '',
      d4 * 4 >= size + 4 ? `d >= ${Math.ceil(size / 4)}u` : '',
    ].filter(Boolean);
    const guard = outside.length ? `if (${outside.join(' || ')}) { return vec4<${staged}>(); }\n  ` : '';
    const vector = `${name}[${address(m, size, 4)}]`;
    const text = isVector(m, size)
      ? `return ${packed(m) ? unpackHalves(vector) : `vec4<${staged}>(${vector})`};`
      : `let at = ${address(m, size, 1)};
  var value = vec4<${staged}>();
  ${[...'xyzw'].map((c, e) => `${inside(size, e)}{ value.${c} = ${staged}(${name}[at + ${e}u]); }`).join(' ')}
  return value;`;
    return `fn load_${name}(row: u32, d: u32, head: u32) -> vec4<${staged}> {\n  ${guard}${text}\n}`;
  };
  /** As {@link load}, 16 bytes of what workgroup memory holds. */
  const read = (name: string, m: MatrixView, rows: number, tile: number, d4: number): string => {
    const head = `fn read_${name}(row: u32, more: u32, d: u32, head: u32) -> ${staged === 'f16' ? 'vec4<u32>' : 'vec4<f32>'}`;
    if (staged === 'f32')
      return `${load(name, m, rows, tile, d4)}\n${head} { return load_${name}(row + more, d, head); }`;
    if (!isOctets(m, size)) {
      return `${load(name, m, rows, tile, d4)}
${head} { return vec4<u32>(bitcast<vec2<u32>>(load_${name}(row + more, d * 2u, head)), bitcast<vec2<u32>>(load_${name}(row + more, d * 2u + 1u, head))); }`;
    }
    const outside = [rows % tile ? `row + more >= ${rows}u` : '', d4 * 4 >= size + 8 ? `d >= ${size / 8}u` : ''].filter(
      Boolean,
    );
    const guard = outside.length ? `if (${outside.join(' || ')}) { return vec4<u32>(); } ` : '';
    const [stride, first] = [m.rowStride / 8, m.offset / 8];
    return `${head} { ${guard}return ${name}[row * ${stride}u + d + (head * ${size / 8}u + ${first}u + more * ${stride}u)]; }`;
  };
  const input = bytes16 ? read : load;
  declareView('q', 'read', q);
  declareView('k', 'read', k);
  declareView('v', 'read', v);
  if (bias) declare('bias', 'read', 'f32', bias.length);
  declareView('out', 'read_write', out);

  const convert = (text: string): string =>
    out.type === 'f16' ? `vec4<f16>(clamp(${text}, vec4<f32>(-65504.0), vec4<f32>(65504.0)))` : text;
  const store = isVector(out, size)
    ? `out[${address(out, size, 4)}] = ${convert('value')};`
    : `let at = ${address(out, size, 1)};
  let stored = ${convert('value')};
  ${[...'xyzw'].map((c, e) => `${inside(size, e)}{ out[at + ${e}u] = stored.${c}; }`).join(' ')}`;
  return {
    declarations: declarations.join('\n'),
    functions: [
      input('q', q, q.rows, reach.tileQ, reach.d4),
      input('k', k, keys, reach.tileK, reach.d4),
      input('v', v, keys, reach.tileK, reach.v4),
      `fn store_out(row: u32, d: u32, head: u32, value: vec4<f32>) {\n  ${store}\n}`,
    ].join('\n'),
    bindings,
  };
}

/**
 * Statement that turns the dot product in `name` into the final score, in units of log₂ e: scaled, biased, masked.
 * @param at WGSL expressions of the key's and the query's number, both possibly past the end in a ragged tile; and of the bias in
 *   units of log₂ e where the kernel has it at hand
 */
export function scoreText(
  spec: AttentionSpec,
  at: { name: string; key: string; query: string; raggedKeys: boolean; bias?: string },
): string {
  const { bias, causal, scale, q, k } = spec;
  const scaled = `${at.name} * ${floatLiteral(scale * LOG2_E)}`;
  // Positions past the end are held at the last one: they are masked or not stored, but may not read outside the table.
  const last = (text: string, count: number): string => `min(${text}, ${count - 1}u)`;
  const biased = at.bias
    ? `fma(${at.name}, ${floatLiteral(scale * LOG2_E)}, ${at.bias})`
    : bias
      ? `fma(bias[(${last(at.key, k.rows)} + ${bias.queries - 1}u - ${last(at.query, q.rows)}) * ${bias.rowStride}u + ${bias.offset}u + head], ${floatLiteral(LOG2_E)}, ${scaled})`
      : scaled;
  const outside = [
    at.raggedKeys ? `${at.key} >= ${keysOf(spec)}u` : '',
    causal ? `${at.key} > ${at.query}` : '',
  ].filter(Boolean);
  return `${at.name} = ${outside.length ? `select(${biased}, ${MASKED}, ${outside.join(' || ')})` : biased};`;
}

/** WGSL expression of the first key that a workgroup of `tileQ` queries from `first_query` on need not visit. */
export const endOfKeys = (spec: AttentionSpec, tileQ: number): string =>
  spec.causal ? `min(${keysOf(spec)}u, first_query + ${tileQ}u)` : `${keysOf(spec)}u`;

/** Every head of every row starts on a multiple of four elements. */
export const isVector = (m: MatrixView, size: number): boolean =>
  [m.offset, m.rowStride, size].every((n) => n % 4 === 0);

/** Index of vector `d` of `head` in `row`, in units of `per` elements. */
function address(m: MatrixView, size: number, per: 1 | 4): string {
  return `${m.offset / per}u + row * ${m.rowStride / per}u + head * ${size / per}u + d${per === 1 ? ' * 4u' : ''}`;
}

/** Condition for element `e` of a vector to lie in the head, empty when it always does. */
const inside = (size: number, e: number): string =>
  size % 4 === 0 || e === 0 ? '' : `if (d * 4u + ${e}u < ${size}u) `;
