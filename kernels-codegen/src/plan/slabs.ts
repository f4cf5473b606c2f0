// Packs storages into slabs: few large buffers, reused over time.
// WebGPU refuses a dispatch that reads one range and writes another of the same buffer, so this is packing with a colouring rule.

import type { Storage } from './place.ts';

export interface SlabPlan {
  /** Bytes of each slab. */
  slabs: number[];
  at: Map<Storage, { slab: number; offset: number }>;
}

/** WebGPU's minimum alignment of storage binding offsets, bytes. */
export const ALIGNMENT = 256;
/** Bindings end on a multiple of this, so that vectors of four can be bound whatever the shape; bytes. */
export const BINDING_UNIT = 16;

export function storageBytes(s: Pick<Storage, 'rows' | 'cols' | 'type'>): number {
  return roundUp(s.rows * s.cols * (s.type === 'f16' ? 2 : 4), ALIGNMENT);
}

/**
 * Largest first, each where it makes the slabs grow least: first fit by size is within a few percent of the lower
 * bound on these graphs, whose big tensors are few and alike.
 *
 * @param conflicts pairs that one dispatch reads and writes: never in one slab
 * @param maxBytes largest buffer of the target
 */
export function packSlabs(
  storages: readonly Storage[],
  conflicts: ReadonlyMap<Storage, ReadonlySet<Storage>>,
  maxBytes: number,
): SlabPlan {
  const slabs: { bytes: number; items: { storage: Storage; offset: number; bytes: number }[] }[] = [];
  const at: SlabPlan['at'] = new Map();
  const bySize = [...storages].sort((a, b) => storageBytes(b) - storageBytes(a) || a.first - b.first);
  for (const storage of bySize) {
    const bytes = storageBytes(storage);
    const enemies = conflicts.get(storage);
    let best: { slab: number; offset: number; growth: number } | undefined;
    slabs.forEach((slab, i) => {
      if (slab.items.some((item) => enemies?.has(item.storage))) return;
      const offset = firstGap(slab.items, storage, bytes);
      const growth = Math.max(0, offset + bytes - slab.bytes);
      if (offset + bytes <= maxBytes && (!best || growth < best.growth)) best = { slab: i, offset, growth };
    });
    if (!best || best.growth >= bytes) {
      // Growing an old slab by the full size gains nothing over a new one, which keeps more choices open.
      best = { slab: slabs.length, offset: 0, growth: bytes };
      slabs.push({ bytes: 0, items: [] });
    }
    const slab = slabs[best.slab]!;
    slab.items.push({ storage, offset: best.offset, bytes });
    slab.bytes = Math.max(slab.bytes, best.offset + bytes);
    at.set(storage, { slab: best.slab, offset: best.offset });
  }
  return { slabs: slabs.map((s) => s.bytes), at };
}

/** Lowest offset where `storage` fits between those alive at the same time. */
function firstGap(
  items: readonly { storage: Storage; offset: number; bytes: number }[],
  storage: Storage,
  bytes: number,
): number {
  const alive = items
    .filter(({ storage: s }) => s.first <= storage.last && storage.first <= s.last)
    .sort((a, b) => a.offset - b.offset);
  let offset = 0;
  for (const item of alive) {
    if (item.offset - offset >= bytes) break;
    offset = Math.max(offset, item.offset + item.bytes);
  }
  return offset;
}

export function roundUp(value: number, multiple: number): number {
  return Math.ceil(value / multiple) * multiple;
}
