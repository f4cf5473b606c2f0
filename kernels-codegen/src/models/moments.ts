// The mean of a whole tensor, read out of what a group norm with one group would apply to it.
// Apart from the models, because whoever reads it back must not load the compiler for it.

/** Of a `moments` output `[2, columns]`: scale 1/√(variance + ε), then shift −mean · scale; all columns are the same. */
export const meanIn = (moments: ArrayLike<number>, columns: number): number => -moments[columns]! / moments[0]!;
