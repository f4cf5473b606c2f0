// Maps a flat list of independent items to a dispatch grid, for kernels whose work has no natural two dimensions.
// One grid dimension holds 65535 workgroups: 1024² pixels × 128 channels need twice that, so the grid folds.

import type { TargetProfile } from '../targets/types.ts';
import { LITERALS, type Sizes } from './sizes.ts';

export interface FlatGrid {
  workgroups: [number, number, number];
  invocations: number;
  /** Text of `main` up to its opening brace, then the statements that define `item: u32` and leave when past the end. */
  open: string;
}

/** One invocation an item; `items` ≥ 1. Folded rows of the grid are equally long, so at most one row is partly idle. */
export function flatGrid(items: number, target: TargetProfile, sizes: Sizes = LITERALS): FlatGrid {
  const { maxComputeInvocationsPerWorkgroup, maxComputeWorkgroupSizeX, maxComputeWorkgroupsPerDimension } =
    target.limits;
  const invocations = Math.min(256, maxComputeInvocationsPerWorkgroup, maxComputeWorkgroupSizeX);
  const groups = Math.ceil(items / invocations);
  const y = Math.ceil(groups / maxComputeWorkgroupsPerDimension);
  const x = Math.ceil(groups / y);
  const lines = [
    `@compute @workgroup_size(${invocations})`,
    'fn main(@builtin(local_invocation_index) lane: u32, @builtin(workgroup_id) group: vec3<u32>) {',
    `let item = ${y === 1 ? 'group.x' : `(group.y * ${sizes.of('grid_width', x)} + group.x)`} * ${invocations}u + lane;`,
  ];
  if (x * y * invocations !== items) lines.push(`if (item >= ${sizes.of('items', items)}) { return; }`);
  return { workgroups: [x, y, 1], invocations, open: lines.join('\n') };
}
