// The bias of relative positions in attention on matrix instructions: a step's share of the table, once for all queries.
// Read score by score from the table, whose rows lie a head apart, it was sixteen loads a thread between two barriers.

import { floatLiteral } from '../../expr/expr.ts';
import { type Copy, prefetch } from '../staging.ts';
import type { AttentionSpec } from './spec.ts';

export interface BiasTile {
  /** Bytes of workgroup memory. */
  bytes: number;
  /** Module-scope text. */
  declaration: string;
  /** Statements that declare the variables which hold what was read. */
  declare: string;
  /** Statements that read what the tile of keys from `bias_base` on needs; `first_query` and `head` in scope. */
  load: string;
  /** Statements that write it to workgroup memory. */
  store: string;
  /** Statement that defines where a thread's own begin: those of its first key. `part` and `query_row` in scope. */
  place: string;
  /** WGSL of the bias that is `ahead` keys beyond the thread's first, in units of log₂ e. */
  at(ahead: number): string;
}

/** Values a tile needs: one for each distance between its keys and the workgroup's queries. */
export const biasBytes = (spec: AttentionSpec, tileQ: number, tileK: number): number =>
  spec.bias ? 4 * (tileQ + tileK - 1) : 0;

export function emitBiasTile(spec: AttentionSpec, tileQ: number, tileK: number, threads: number): BiasTile | undefined {
  const { bias } = spec;
  if (!bias) return undefined;
  const count = tileQ + tileK - 1;
  const copy: Copy = {
    count,
    width: 1,
    item: ({ more }) => {
      // The first distance is that of the first key and the last query. Beyond the table's ends lie keys and queries that do not count.
      const first = bias.queries - tileQ + more;
      const row = `clamp(i32(bias_base + thread) - i32(first_query) + ${first}, 0, ${2 * bias.queries - 2})`;
      return {
        values: [`bias[u32(${row}) * ${bias.rowStride}u + ${bias.offset}u + head] * ${floatLiteral(Math.LOG2E)}`],
        store: ([v]) => `bias_tile[thread${more ? ` + ${more}u` : ''}] = ${v};`,
      };
    },
  };
  return {
    bytes: biasBytes(spec, tileQ, tileK),
    declaration: `var<workgroup> bias_tile: array<f32, ${count}>;`,
    ...prefetch(copy, threads, 'next_bias', 'f32'),
    place: `let bias_at = part * 4u + ${tileQ - 1}u - query_row;`,
    at: (ahead) => `bias_tile[bias_at + ${ahead}u]`,
  };
}
