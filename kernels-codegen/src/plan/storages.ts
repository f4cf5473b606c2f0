// What the planner asks of a placed graph: which storages there are, and which may not share a buffer.

import type { Node } from '../graph/graph.ts';
import { reads } from '../graph/graph.ts';
import { groupNormPartialShape } from '../kernels/group-norm.ts';
import type { MatrixView } from '../kernels/kernel.ts';
import type { place, Storage } from './place.ts';

/** Scratch memory that a node's kernels need beside its output. */
export function scratchShape(node: Node): { rows: number; cols: number } | undefined {
  if (node.op.kind !== 'groupNorm') return undefined;
  const x = node.inputs[0]!;
  const view: MatrixView = { type: 'f32', rows: x.rows, cols: x.cols, rowStride: x.cols, offset: 0 };
  return groupNormPartialShape({ x: view, groups: node.op.groups });
}

export function storagesOf(placement: ReturnType<typeof place>): Storage[] {
  const all = new Set(placement.scratch.values());
  for (const { storage } of placement.homes.values()) if (storage.port === undefined) all.add(storage);
  return [...all];
}

/** Pairs of storages that one dispatch reads and writes. */
export function conflictsOf(placement: ReturnType<typeof place>): Map<Storage, Set<Storage>> {
  const conflicts = new Map<Storage, Set<Storage>>();
  const add = (a: Storage, b: Storage): void => {
    for (const [x, y] of [
      [a, b],
      [b, a],
    ] as const) {
      const list = conflicts.get(x);
      if (list) list.add(y);
      else conflicts.set(x, new Set([y]));
    }
  };
  for (const node of placement.steps) {
    const written = placement.homes.get(node.output)!.storage;
    const scratch = placement.scratch.get(node);
    if (scratch) add(scratch, written);
    for (const t of reads(node)) {
      const read = placement.homes.get(t)?.storage;
      if (read && read !== written) add(read, written);
      if (read && scratch) add(read, scratch);
    }
  }
  return conflicts;
}
