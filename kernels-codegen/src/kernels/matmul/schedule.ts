// Chooses how a matmul is split over a GPU: which variant, and its tile sizes.
// A schedule is data, so a measured one from a target's profile replaces the estimate without touching a kernel.

import { KontextError } from '../../../../runtime/src/errors.ts';
import { isQuantised } from '../../../../runtime/src/program/formats.ts';
import { hasTier, type TargetProfile, unitsOf } from '../../targets/types.ts';
import { sameSchedule, tunedSchedule } from '../../tune/tuned.ts';
import { matrices, measuredMatrices } from '../matrix/candidates.ts';
import { type MatrixSchedule, matrixTile, matrixWorkgroupBytes } from '../matrix/schedule.ts';
import { maySumPacked, type PackableLayer, packed, packedSumsOf } from '../packed.ts';
import { type DirectSchedule, directCandidates, directMisfit, directSchedule } from './direct.ts';
import { matrixConfig } from './matrix.ts';
import { SKINNY_ROWS, type SkinnySchedule, skinnyWorkgroupBytes } from './skinny.ts';
import { describeMatmul, halvesOf, type MatmulSpec, matmulFlops, tileElement } from './spec.ts';
import { type TiledSchedule, tiledWorkgroupBytes } from './tiled.ts';

export type MatmulSchedule = TiledSchedule | SkinnySchedule | DirectSchedule | MatrixSchedule;

/**
 * Key of a spec in `TargetProfile.tuned.matmul`; what a shape was measured for holds with an adapter beside it. Products of normalised rows have
 * more to choose from, where the target's sums may be packed.
 */
export const matmulShapeKey = (spec: MatmulSpec, target: TargetProfile): string =>
  `${describeMatmul({ ...spec, beside: undefined, heads: undefined })}${packedSumsOf(target, layerOf(spec)) === 'never' ? '' : ' normed'} ${tileElement(spec, target)}`;

const layerOf = (spec: MatmulSpec): PackableLayer => ({ normalised: spec.normalised, halves: halvesOf(spec) });

/** The profile's measured schedule for this shape, else the best by estimate that fits the target's limits. */
export function chooseMatmulSchedule(spec: MatmulSpec, target: TargetProfile): MatmulSchedule {
  const tuned = tunedSchedule(target, 'matmul', matmulShapeKey(spec, target), () => matmulCandidates(spec, target));
  if (tuned) return tuned;
  const candidates = candidatesFor(spec, target);
  const fitting = candidates.filter((s) => !misfit(spec, target, s));
  if (!fitting.length) checkMatmulSchedule(spec, target, candidates[0]!);
  return fitting.reduce((best, s) => (estimate(spec, target, s) < estimate(spec, target, best) ? s : best));
}

/** Throws `limit-too-small` when `schedule` exceeds what the target offers, `program-invalid` when it contradicts the spec. */
export function checkMatmulSchedule(spec: MatmulSpec, target: TargetProfile, schedule: MatmulSchedule): void {
  const why = misfit(spec, target, schedule);
  if (why) throw new KontextError(why.code, `matmul ${describeMatmul(spec)} on ${target.name}: ${why.message}`);
}

const tile = (threadsM: number, threadsN: number, rows: number, cols: number, tileK: number): TiledSchedule => ({
  variant: 'tiled',
  threadsM,
  threadsN,
  rows,
  cols,
  tileK,
});

/** From the most reuse to the least; the narrow ones are for outputs of few columns (latents, RGB). */
export const MATMUL_TILES: readonly TiledSchedule[] = [
  tile(16, 16, 8, 8, 16),
  tile(16, 16, 8, 4, 32),
  tile(16, 16, 8, 4, 16),
  tile(16, 16, 4, 4, 32),
  tile(16, 16, 4, 4, 16),
  tile(8, 16, 4, 4, 32),
  tile(8, 8, 4, 4, 16),
  tile(32, 4, 4, 4, 16),
  tile(32, 1, 4, 4, 8),
];

/** Operations that a GPU with matrix instructions does in a millisecond without them. */
const LITTLE_WORK = 2 ** 34;

function skinny(spec: MatmulSpec, target: TargetProfile): SkinnySchedule {
  const subgroups = hasTier(target, 'subgroups') && target.subgroupSize !== undefined;
  // 64 threads × 4 values along k: one step covers K = 256, the narrowest embedder.
  const threads = spec.weight.cols <= 128 ? 32 : 64;
  return { variant: 'skinny', threads, subgroups };
}

function candidatesFor(spec: MatmulSpec, target: TargetProfile): readonly MatmulSchedule[] {
  // Also where a CPU's driver has matrix instructions: they take it half a minute to compile and run no faster.
  if (target.software) return [directSchedule(spec.m, spec.n, spec.weight.cols, target)];
  if (spec.m <= SKINNY_ROWS) return [skinny(spec, target)];
  const config = matrixConfig(spec, target);
  // Beside matrices f32 operands are those of a program's inputs: too little work for a text that takes longer to compile than to run.
  if (!config && hasTier(target, 'subgroup-matrix') && matmulFlops(spec) < LITTLE_WORK) {
    return MATMUL_TILES.filter((s) => s.rows * s.cols <= 16);
  }
  const tiles = packedSumsOf(target, layerOf(spec)) === 'chosen' ? MATMUL_TILES.map(packed) : MATMUL_TILES;
  // AMD's units hold as many waves either way, and half the text is half the compiler's work. Of stored blocks a step has fewer than eight subgroups have threads.
  const amd = target.fixedSubgroupSize === true && target.subgroupSize?.max === 32;
  // And their results pass by half rows of a head.
  const eight = amd && !spec.heads && !isQuantised(spec.weight.format);
  return config ? [...matrices(config, target.subgroupSize!.max, eight), ...tiles] : tiles;
}

/** What measuring may choose from: every schedule that the target can hold, the estimate's among them. */
export function matmulCandidates(spec: MatmulSpec, target: TargetProfile): MatmulSchedule[] {
  const estimated = candidatesFor(spec, target);
  const config = matrixConfig(spec, target);
  const matrix =
    config && estimated.some((s) => s.variant === 'matrix') ? measuredMatrices(config, target.subgroupSize!.max) : [];
  const wider = estimated.flatMap((s) =>
    s.variant === 'skinny' ? [32, 64, 128, 256].map((threads) => ({ ...s, threads })) : [],
  );
  const direct = target.software ? directCandidates(spec.m, target) : [];
  // All tiles, also where the estimate has to choose among the small ones.
  const tiles = target.software || spec.m <= SKINNY_ROWS ? [] : MATMUL_TILES;
  const either = packedSumsOf(target, layerOf(spec)) !== 'never' ? [...tiles, ...tiles.map(packed)] : tiles;
  const all = [...estimated, ...matrix, ...wider, ...direct, ...either].filter((s) => !misfit(spec, target, s));
  return all.filter((s, i) => all.findIndex((other) => sameSchedule(s, other)) === i);
}

/**
 * Relative time: padded arithmetic, plus traffic through the tiles (the reciprocal edges; 16 multiply-adds for one
 * element moved is about where GPUs balance), times the idle share when there are fewer than two workgroups for
 * each of the target's units. Matrix instructions do at least four times the arithmetic (2.5 to 8 in published measurements), packed sums nearly twice.
 */
function estimate(spec: MatmulSpec, target: TargetProfile, s: MatmulSchedule): number {
  if (s.variant !== 'tiled' && s.variant !== 'matrix') return 0;
  const matrix = s.variant === 'matrix';
  const { tileM, tileN } = matrix
    ? matrixTile(s, matrixConfig(spec, target)!)
    : { tileM: s.threadsM * s.rows, tileN: s.threadsN * s.cols };
  const [groupsM, groupsN] = [Math.ceil(spec.m / tileM), Math.ceil(spec.n / tileN)];
  const padded = groupsM * tileM * groupsN * tileN;
  const traffic = (matrix ? 0.25 : s.packed ? 0.6 : 1) + 16 * (1 / tileM + 1 / tileN) + 1 / s.tileK;
  return padded * traffic * Math.max(1, (2 * unitsOf(target)) / (groupsM * groupsN));
}

function misfit(
  spec: MatmulSpec,
  target: TargetProfile,
  s: MatmulSchedule,
): { code: 'limit-too-small' | 'program-invalid'; message: string } | undefined {
  const { limits } = target;
  const config = matrixConfig(spec, target);
  if (s.variant === 'matrix' && !config) {
    return { code: 'program-invalid', message: 'no matrix shape of the target has f32 results for these types' };
  }
  const threads = invocations(target, s);
  const allowed = Math.min(limits.maxComputeInvocationsPerWorkgroup, limits.maxComputeWorkgroupSizeX);
  if (threads > allowed) return { code: 'limit-too-small', message: `${threads} invocations, the limit is ${allowed}` };
  const bytes = workgroupBytes(spec, target, s);
  const memory = limits.maxComputeWorkgroupStorageSize;
  if (bytes > memory) {
    return { code: 'limit-too-small', message: `${bytes} bytes of workgroup memory, the limit is ${memory}` };
  }
  switch (s.variant) {
    case 'tiled':
      if (s.cols % 4 || s.tileK % 4)
        return { code: 'program-invalid', message: 'cols and tileK must be multiples of 4' };
      if (Math.ceil(spec.n / (s.threadsN * s.cols)) > limits.maxComputeWorkgroupsPerDimension) {
        return { code: 'limit-too-small', message: 'too many column blocks for one dispatch; use a wider tile' };
      }
      if (s.packed && !maySumPacked(target, layerOf(spec))) {
        return { code: 'program-invalid', message: 'packed sums need f16 operands, the left one from a norm' };
      }
      return undefined;
    case 'skinny':
      if (spec.m > SKINNY_ROWS) return { code: 'program-invalid', message: `at most ${SKINNY_ROWS} rows` };
      if (s.threads & (s.threads - 1) || s.threads < spec.m) {
        return { code: 'program-invalid', message: `threads must be a power of two, at least ${spec.m}` };
      }
      if (s.subgroups && !(hasTier(target, 'subgroups') && target.subgroupSize)) {
        return { code: 'program-invalid', message: 'subgroups need a target of that tier with its subgroup sizes' };
      }
      return undefined;
    case 'matrix':
      if (s.tileK % 8 || s.tileK % config!.k || s.tilesN % s.storeTiles) {
        return {
          code: 'program-invalid',
          message: `tileK must be a multiple of 8 and ${config!.k}, storeTiles divide tilesN`,
        };
      }
      return undefined;
    case 'direct': {
      const message = directMisfit(target, s);
      return message ? { code: 'program-invalid', message } : undefined;
    }
    default:
      throw s satisfies never;
  }
}

function invocations(target: TargetProfile, s: MatmulSchedule): number {
  switch (s.variant) {
    case 'tiled':
      return s.threadsM * s.threadsN;
    case 'matrix':
      return s.subgroupsM * s.subgroupsN * target.subgroupSize!.max;
    default:
      return s.threads;
  }
}

function workgroupBytes(spec: MatmulSpec, target: TargetProfile, s: MatmulSchedule): number {
  switch (s.variant) {
    case 'tiled':
      return tiledWorkgroupBytes(s, s.packed ? 'f16' : tileElement(spec, target));
    case 'skinny':
      return skinnyWorkgroupBytes(s, spec.m, target);
    case 'matrix':
      return matrixWorkgroupBytes(s, matrixConfig(spec, target)!);
    case 'direct':
      return 0;
    default:
      throw s satisfies never;
  }
}
