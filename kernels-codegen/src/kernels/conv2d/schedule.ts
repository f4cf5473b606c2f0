// Chooses how a convolution is split over a GPU.
// A schedule is data, so a measured one from a target's profile replaces the estimate without touching a kernel.

import { KontextError } from '../../../../runtime/src/errors.ts';
import { hasTier, type TargetProfile } from '../../targets/types.ts';
import { sameSchedule, tunedSchedule } from '../../tune/tuned.ts';
import { type DirectSchedule, directCandidates, directMisfit, directSchedule } from '../matmul/direct.ts';
import { checkMatmulSchedule, chooseMatmulSchedule, matmulCandidates } from '../matmul/schedule.ts';
import type { MatrixSchedule } from '../matrix/schedule.ts';
import { maySumPacked, type PackableLayer, packed, packedSumsOf } from '../packed.ts';
import { equivalentMatmul } from './matrix.ts';
import { type Conv2dSpec, conv2dElement, conv2dHalves, describeConv2d } from './spec.ts';
import { type TiledConv2dSchedule, tiledConv2dWorkgroupBytes } from './tiled.ts';

export type Conv2dSchedule = TiledConv2dSchedule | DirectSchedule | MatrixSchedule;

/** Key of a spec in `TargetProfile.tuned.conv2d`. */
export const conv2dShapeKey = (spec: Conv2dSpec, target: TargetProfile): string =>
  `${describeConv2d(spec)}${packedSumsOf(target, layerOf(spec)) === 'never' ? '' : ' normed'} ${conv2dElement(spec, target)}`;

const layerOf = (spec: Conv2dSpec): PackableLayer => ({
  normalised: spec.prologue ? true : spec.normalised,
  halves: conv2dHalves(spec),
});

/** The profile's measured schedule for this shape, else the best by estimate that fits the target's limits. */
export function chooseConv2dSchedule(spec: Conv2dSpec, target: TargetProfile): Conv2dSchedule {
  const tuned = tunedSchedule(target, 'conv2d', conv2dShapeKey(spec, target), () => conv2dCandidates(spec, target));
  if (tuned) return tuned;
  if (target.software) return directSchedule(spec.out.rows, spec.cout, spec.weight.cols, target);
  if (hasTier(target, 'subgroup-matrix')) {
    const same = chooseMatmulSchedule(equivalentMatmul(spec, target), target);
    if (same.variant === 'matrix') return same;
  }
  const packs = packedSumsOf(target, layerOf(spec)) === 'chosen';
  const fitting = (packs ? CONV2D_TILES.map(packed) : CONV2D_TILES).filter((s) => !misfit(spec, target, s));
  if (!fitting.length) checkConv2dSchedule(spec, target, CONV2D_TILES.at(-1)!);
  return fitting.reduce((best, s) => (estimate(spec, s) < estimate(spec, best) ? s : best));
}

/** What measuring may choose from: every schedule that the target can hold, the estimate's among them. */
export function conv2dCandidates(spec: Conv2dSpec, target: TargetProfile): Conv2dSchedule[] {
  if (target.software) {
    const m = spec.out.rows;
    const all = [directSchedule(m, spec.cout, spec.weight.cols, target), ...directCandidates(m, target)];
    return all.filter((s, i) => !misfit(spec, target, s) && all.findIndex((other) => sameSchedule(s, other)) === i);
  }
  const matrices = hasTier(target, 'subgroup-matrix')
    ? matmulCandidates(equivalentMatmul(spec, target), target).filter((s) => s.variant === 'matrix')
    : [];
  const tiles =
    packedSumsOf(target, layerOf(spec)) !== 'never' ? [...CONV2D_TILES, ...CONV2D_TILES.map(packed)] : CONV2D_TILES;
  return [...matrices, ...tiles.filter((s) => !misfit(spec, target, s))];
}

/** Throws `limit-too-small` when `schedule` exceeds what the target offers, `program-invalid` when it makes no sense. */
export function checkConv2dSchedule(spec: Conv2dSpec, target: TargetProfile, schedule: Conv2dSchedule): void {
  if (schedule.variant === 'matrix') {
    checkMatmulSchedule(equivalentMatmul(spec, target), target, schedule);
    return;
  }
  const why = misfit(spec, target, schedule);
  if (why) throw new KontextError(why.code, `conv2d ${describeConv2d(spec)} on ${target.name}: ${why.message}`);
}

const tile = (threadsM: number, threadsN: number, rows: number, cols: number, tileK: number): TiledConv2dSchedule => ({
  variant: 'tiled',
  threadsM,
  threadsN,
  rows,
  cols,
  tileK,
});

/** From the most reuse to the least; the narrow ones are for moments (32, 8) and images (3, 4), 12 for inputs of 4 channels. */
export const CONV2D_TILES: readonly TiledConv2dSchedule[] = [
  tile(16, 16, 8, 8, 16),
  tile(16, 16, 8, 8, 8),
  tile(16, 16, 8, 4, 16),
  tile(16, 16, 8, 4, 12),
  tile(16, 16, 4, 4, 16),
  tile(32, 8, 4, 4, 16),
  tile(32, 8, 4, 4, 12),
  tile(8, 8, 4, 4, 16),
  tile(8, 8, 4, 4, 12),
  tile(64, 1, 4, 4, 8),
  tile(16, 1, 4, 4, 16),
];

/**
 * Relative time: padded arithmetic along all three dimensions, plus traffic through the tiles (16 multiply-adds for
 * one element moved is about where GPUs balance; steps that straddle taps address every vector alone), times the idle
 * share when there are fewer workgroups than about 64 units can hold.
 */
function estimate(spec: Conv2dSpec, s: TiledConv2dSchedule): number {
  const [tileM, tileN] = [s.threadsM * s.rows, s.threadsN * s.cols];
  const [groupsM, groupsN] = [Math.ceil((spec.outHeight * spec.outWidth) / tileM), Math.ceil(spec.cout / tileN)];
  const k = Math.ceil(spec.weight.cols / s.tileK) * s.tileK;
  const addressing = spec.cin % s.tileK === 0 ? 16 : 24;
  const traffic = (s.packed ? 0.6 : 1) + addressing / tileN + 16 / tileM + 1 / s.tileK;
  return groupsM * tileM * groupsN * tileN * k * traffic * Math.max(1, 64 / (groupsM * groupsN));
}

function misfit(
  spec: Conv2dSpec,
  target: TargetProfile,
  s: TiledConv2dSchedule | DirectSchedule,
): { code: 'limit-too-small' | 'program-invalid'; message: string } | undefined {
  const { limits } = target;
  const threads = s.variant === 'tiled' ? s.threadsM * s.threadsN : s.threads;
  const allowed = Math.min(limits.maxComputeInvocationsPerWorkgroup, limits.maxComputeWorkgroupSizeX);
  if (threads > allowed) return { code: 'limit-too-small', message: `${threads} invocations, the limit is ${allowed}` };
  if (s.variant === 'direct') {
    const message = directMisfit(target, s);
    return message ? { code: 'program-invalid', message } : undefined;
  }
  if (s.cols % 4 || s.tileK % 4) return { code: 'program-invalid', message: 'cols and tileK must be multiples of 4' };
  if (s.packed && !maySumPacked(target, layerOf(spec))) {
    return { code: 'program-invalid', message: 'packed sums need f16 operands, the image from a norm' };
  }
  const bytes = tiledConv2dWorkgroupBytes(s, s.packed ? 'f16' : conv2dElement(spec, target));
  const memory = limits.maxComputeWorkgroupStorageSize;
  if (bytes > memory) {
    return { code: 'limit-too-small', message: `${bytes} bytes of workgroup memory, the limit is ${memory}` };
  }
  return undefined;
}
