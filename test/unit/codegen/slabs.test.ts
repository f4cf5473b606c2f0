// The memory planner, by its properties: whatever the storages, no two live ones overlap, and no dispatch reads and writes one slab.
import { describe, expect, it } from 'vitest';
import type { Storage } from '../../../kernels-codegen/src/plan/place.ts';
import { ALIGNMENT, packSlabs, storageBytes } from '../../../kernels-codegen/src/plan/slabs.ts';
import { random } from '../../support/random.ts';

function problem(seed: number): { storages: Storage[]; conflicts: Map<Storage, Set<Storage>> } {
  const r = random(seed);
  const steps = 5 + Math.floor(r() * 60);
  const storages = Array.from({ length: 2 + Math.floor(r() * 40) }, (): Storage => {
    const first = Math.floor(r() * steps);
    const last = Math.min(steps, first + Math.floor(r() * 12));
    const [rows, cols] = [1 + Math.floor(r() * 300), 1 + Math.floor(r() * 300)];
    return { rows, cols, type: r() < 0.5 ? 'f16' : 'f32', first, last };
  });
  const conflicts = new Map(storages.map((s) => [s, new Set<Storage>()]));
  for (const a of storages) {
    for (const b of storages) {
      const alive = a.first <= b.last && b.first <= a.last;
      if (a === b || !alive || r() > 0.15) continue;
      conflicts.get(a)!.add(b);
      conflicts.get(b)!.add(a);
    }
  }
  return { storages, conflicts };
}

describe('packSlabs', () => {
  it.each(Array.from({ length: 200 }, (_, seed) => seed))(
    'problem %i: live storages are apart and enemies never share a slab',
    (seed) => {
      const { storages, conflicts } = problem(seed);
      const plan = packSlabs(storages, conflicts, 2 ** 31);
      for (const a of storages) {
        const x = plan.at.get(a)!;
        expect(x.offset % ALIGNMENT).toBe(0);
        expect(x.offset + storageBytes(a)).toBeLessThanOrEqual(plan.slabs[x.slab]!);
        for (const b of storages) {
          if (a === b) continue;
          const y = plan.at.get(b)!;
          if (conflicts.get(a)!.has(b)) expect(x.slab).not.toBe(y.slab);
          const alive = a.first <= b.last && b.first <= a.last;
          if (x.slab !== y.slab || !alive) continue;
          const apart = x.offset + storageBytes(a) <= y.offset || y.offset + storageBytes(b) <= x.offset;
          expect(apart, `seed ${seed}`).toBe(true);
        }
      }
    },
  );

  it('reuses memory that is no longer needed', () => {
    const chain = Array.from(
      { length: 10 },
      (_, i): Storage => ({ rows: 64, cols: 64, type: 'f32', first: i, last: i + 1 }),
    );
    const conflicts = new Map(
      chain.map((s, i) => [s, new Set([chain[i - 1], chain[i + 1]].filter((x) => x !== undefined))]),
    );
    const plan = packSlabs(chain, conflicts, 2 ** 31);
    expect(plan.slabs).toEqual([64 * 64 * 4, 64 * 64 * 4]);
  });

  it('opens a new slab rather than exceed the largest buffer', () => {
    const both = [0, 1].map((): Storage => ({ rows: 64, cols: 64, type: 'f32', first: 0, last: 1 }));
    expect(packSlabs(both, new Map(), 64 * 64 * 4).slabs).toHaveLength(2);
  });
});
