// Stores four neighbouring outputs of a matmul, or a convolution computed as one, through its epilogue.
// Where the output's alignment allows only single elements, or the block hangs over an edge, is decided here once.

import type { BindingAccess } from '../../../../runtime/src/program/types.ts';
import { LITERALS, type Sizes } from '../../wgsl/sizes.ts';
import { emitEpilogue, epilogueWidth } from '../epilogue.ts';
import type { MatmulSpec } from './spec.ts';

export interface MatmulOutput {
  declarations: string;
  bindings: BindingAccess[];
  /**
   * Statements that store outputs `[row, col … col + 3]`, where the WGSL names `row` and `col` (a multiple of 4) are in scope.
   * @param value WGSL expression of type vec4<f32>, evaluated up to four times
   */
  store(value: string, edges: Edges): string;
  /**
   * Statements before the results that lie in workgroup memory are stored, for outputs that need more of a row than four columns of it;
   * `thread`, `colBase` in scope. `store` is told then, as `resultRow`, which of the rows there it is given.
   */
  prepare?(results: StagedResults, edges: Edges): string;
}

/** Whether blocks hang over the output's last row or column. */
export interface Edges {
  raggedM: boolean;
  raggedN: boolean;
}

/** Results in `tiles`, f32 by four, on their way from matrices to the output. */
export interface StagedResults {
  /** WGSL index of vector number `col4` of a row, both counted in the workgroup's block. */
  at(row: string, col4: string): string;
  /** Text that adds zero to a loop's bound and hides it from drivers, which would unroll; may be empty. */
  open: string;
}

/** A statement where all conditions hold. */
export const insideOnly = (conditions: string[], body: string): string =>
  conditions.length ? `if (${conditions.join(' && ')}) {\n${body}\n}` : body;

/**
 * @param firstBinding number of the epilogue's first binding
 * @param sizes as {@link emitEpilogue} has them
 */
export function emitOutput(
  spec: Pick<MatmulSpec, 'm' | 'n' | 'epilogue' | 'out'>,
  firstBinding: number,
  sizes: Sizes = LITERALS,
): MatmulOutput {
  const width = epilogueWidth(spec.epilogue, spec.out);
  const epilogue = emitEpilogue(spec.epilogue, spec.out, firstBinding, width, sizes);
  return {
    declarations: epilogue.declarations,
    bindings: epilogue.bindings,
    store(value, { raggedM, raggedN }) {
      const rowInside = raggedM ? [`row < ${sizes.of('rows', spec.m)}`] : [];
      if (width === 4) {
        return insideOnly(
          raggedN ? [...rowInside, `col < ${sizes.of('columns', spec.n)}`] : rowInside,
          epilogue.store('row', 'col', value),
        );
      }
      const single = [0, 1, 2, 3].map((i) =>
        insideOnly(
          raggedN ? [`col + ${i}u < ${sizes.of('columns', spec.n)}`] : [],
          epilogue.store('row', `col + ${i}u`, `${value}[${i}]`),
        ),
      );
      return insideOnly(rowInside, single.join('\n'));
    },
  };
}
