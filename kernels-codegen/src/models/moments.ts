// The mean of a whole tensor, read out of what a group norm would apply to it.
// Apart from the models, because whoever reads it back must not load the compiler for it.

/** Columns of one group: a workgroup has to read whole groups, and FLUX's rows are wider. */
const GROUP_COLUMNS = 64;

/** Groups that `columns` columns are taken in: of equal width, at most {@link GROUP_COLUMNS}. */
export function momentGroups(columns: number): number {
  let groups = Math.ceil(columns / GROUP_COLUMNS);
  while (columns % groups !== 0) groups++;
  return groups;
}

/** Of a `moments` output `[2, columns]`: 1/√(variance + ε) of each column's group, then −mean/√(variance + ε). */
export function meanIn(moments: ArrayLike<number>, columns: number): number {
  let sum = 0;
  for (let i = 0; i < columns; i++) sum -= moments[columns + i]! / moments[i]!;
  return sum / columns;
}
