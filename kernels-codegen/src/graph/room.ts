// Room for adapters in a program: y = x·Wᵀ + (scale ∘ x·downᵀ)·upᵀ beside each linear layer (LoRA, Hu et al. 2021, arXiv:2106.09685).
// down, up and scale are ports: another adapter or another scale is other data for the same program.

/**
 * Ranks of the paths beside a program's linear layers.
 *
 * A number has room for any adapters whose ranks add up to it: every layer gets that rank, and layers in which the checkpoint
 * stacks several (q, k and v) that many times, because adapters may have been trained on them apart. A record gives each
 * layer's own rank, by its name; layers it does not name get none. Ranks are multiples of {@link RANK_UNIT}.
 */
export type AdapterRoom = number | Readonly<Record<string, number>>;

/** Factors are read four values at a time, and a matmul's tiles are multiples of eight along k. */
export const RANK_UNIT = 8;

/** Where a program takes one module's factors; a fact of the program, in `facts.adapters`. */
export interface ModuleRoom {
  /** The layer's name. */
  module: string;
  rank: number;
  /** Input features of the layer. */
  cols: number;
  /** Port `[rank, cols]`. */
  down: string;
  /** Ports `[end − first, rank]`: each holds some of the layer's output features, all together every one that the program computes. */
  up: { port: string; rows: [first: number, end: number] }[];
  /** Port `[1, rank]`, f32: multiplies `x·downᵀ`. */
  scale: string;
}

/** The rank a layer gets. */
export function rankOf(room: AdapterRoom | undefined, module: string, stacked: number): number {
  if (room === undefined) return 0;
  return typeof room === 'number' ? room * stacked : Object.hasOwn(room, module) ? room[module]! : 0;
}
