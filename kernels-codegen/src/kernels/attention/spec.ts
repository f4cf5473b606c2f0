// What attention computes, apart from how: shapes, masks, cost and their checks.
// A file of its own so that the variants can read it without knowing the family that chooses among them.

import { KontextError } from '../../../../runtime/src/errors.ts';
import { bytesOf, type MatrixView } from '../kernel.ts';

export interface AttentionSpec {
  heads: number;
  /** Head size. */
  size: number;
  /** `[queries, heads·size]`; head h is columns `h·size … (h + 1)·size − 1`. May be a rectangle of a wide qkv buffer. */
  q: MatrixView;
  /** `[keys, heads·size]`. */
  k: MatrixView;
  /** `[keys, heads·size]`. */
  v: MatrixView;
  /** `[queries, heads·size]`. */
  out: MatrixView;
  /** Factor of the scores, usually 1/√size. */
  scale: number;
  /** Query i sees keys 0 … i only. */
  causal: boolean;
  /** T5's relative positions: f32 `[2·queries − 1, heads]`, added to the scaled score; key − query = d is row d + queries − 1. */
  bias?: { /** elements of the binding */ length: number; offset: number; rowStride: number; queries: number };
  /** Keys from here on are ignored; all count by default. */
  validKeys?: number;
}

/** Throws `program-invalid` for shapes that do not agree. */
export function validateAttention({ heads, size, q, k, v, out, bias, validKeys }: AttentionSpec): void {
  const fail = (what: string): never => {
    throw new KontextError('program-invalid', `attention: ${what}`);
  };
  const cols = heads * size;
  for (const [name, m] of Object.entries({ q, k, v, out })) {
    if (m.cols !== cols) fail(`${name} has ${m.cols} columns, not ${heads} heads × ${size}.`);
  }
  if (k.rows !== v.rows) fail(`${k.rows} keys but ${v.rows} values.`);
  if (q.rows !== out.rows) fail(`${q.rows} queries but ${out.rows} rows of output.`);
  if (validKeys !== undefined && (validKeys < 1 || validKeys > k.rows)) {
    fail(`validKeys is ${validKeys}; it must be 1 … ${k.rows}.`);
  }
  if (bias) {
    if (q.rows !== bias.queries || k.rows !== bias.queries) {
      fail(`the bias table is for ${bias.queries} positions, the matrices have ${q.rows} and ${k.rows}.`);
    }
    if (bias.length < bias.offset + (2 * bias.queries - 2) * bias.rowStride + heads)
      fail('the bias table is too short.');
  }
}

/** Keys that count. */
export const keysOf = (spec: AttentionSpec): number => spec.validKeys ?? spec.k.rows;

/** Multiply-adds as two operations each: two products of size `size` for every query and key that is not masked. */
export function attentionFlops(spec: AttentionSpec): number {
  const keys = keysOf(spec);
  const queries = spec.q.rows;
  const seen = spec.causal
    ? Array.from({ length: queries }, (_, i) => Math.min(i + 1, keys)).reduce((a, b) => a + b, 0)
    : queries * keys;
  return 4 * seen * spec.heads * spec.size;
}

/** Bytes of q, k, v, bias and out, each once. */
export function attentionBytes({ heads, q, k, v, out, bias }: AttentionSpec): number {
  const matrices = [q, k, v, out].reduce((sum, m) => sum + m.rows * m.cols * bytesOf(m.type), 0);
  return matrices + (bias ? 4 * (2 * bias.queries - 1) * heads : 0);
}
