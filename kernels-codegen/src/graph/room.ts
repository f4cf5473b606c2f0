// Room for adapters in a program: y = x·Wᵀ + (scale ∘ x·downᵀ)·upᵀ beside each linear layer (LoRA, Hu et al. 2021, arXiv:2106.09685).
// down, up and scale are ports: another adapter or another scale is other data for the same program.

/**
 * Ranks of the paths beside a program's linear layers.
 *
 * A number has room for any adapters whose ranks add up to it: every layer gets that rank, and layers in which the checkpoint
 * stacks several (q, k and v) that many times, because adapters may have been trained on them apart. A record gives each
 * layer's own rank, by its name; layers it does not name get none. Ranks are multiples of `RANK_UNIT`.
 */
export type AdapterRoom = number | Readonly<Record<string, number>>;

/** The rank a layer gets. */
export function rankOf(room: AdapterRoom | undefined, module: string, stacked: number): number {
  if (room === undefined) return 0;
  return typeof room === 'number' ? room * stacked : Object.hasOwn(room, module) ? room[module]! : 0;
}
