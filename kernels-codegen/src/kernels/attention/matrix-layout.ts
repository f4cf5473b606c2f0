// Tile sizes of attention on matrix instructions: what they take, what they must fulfil, which a target gets.

import { KontextError } from '../../../../runtime/src/errors.ts';
import type { SubgroupMatrixConfig } from '../../../../runtime/src/program/types.ts';
import { hasTier, type TargetProfile } from '../../targets/types.ts';
import type { AttentionSpec } from './spec.ts';

export interface MatrixAttention {
  variant: 'matrix';
  config: SubgroupMatrixConfig;
  /** Subgroups in a workgroup, each with its own queries. */
  subgroups: number;
  /** Matrices of `config.m` queries a subgroup. */
  blocks: number;
  /** Keys in a tile; a multiple of the config's m, n and k. */
  tileK: number;
  /** Keep the next tile in registers while this one is multiplied. */
  prefetch: boolean;
}

/** Elements between rows in workgroup memory beyond the row's own: shifts rows by four banks. */
const PAD_BYTES = 16;
/** Of the scores: stores of matrices and reads of vectors meet no bank twice. */
const SCORE_PAD = 8;
/** Vectors a thread keeps for the next tile, at most. */
const MOST_PREFETCHED = 16;

/** A schedule for the matrix variant, or nothing where another variant serves the shape better or more exactly. */
export function chooseMatrix(spec: AttentionSpec, target: TargetProfile): MatrixAttention | undefined {
  return matrixAttentions(spec, target)[0];
}

/** Every schedule the target can hold, the likely best first. */
export function matrixAttentions(spec: AttentionSpec, target: TargetProfile): MatrixAttention[] {
  // Wider heads need more accumulators than a subgroup has registers: 16 queries × 128 are 64 a lane of 32.
  if (!hasTier(target, 'subgroup-matrix') || !target.subgroupSize || spec.size > 128) return [];
  const inputs = [spec.q, spec.k, spec.v];
  // f16 operands only for f16 inputs, and f32 results always: sums of thousands of values do not survive in f16.
  const usable = (target.subgroupMatrix ?? []).filter(
    (c) => c.resultType === 'f32' && (c.componentType === 'f32' || inputs.every((v) => v.type === 'f16')),
  );
  const rank = (c: SubgroupMatrixConfig): number => (c.componentType === 'f16' ? 4096 : 0) + c.m * c.n;
  const found: MatrixAttention[] = [];
  for (const config of usable.sort((a, b) => rank(b) - rank(a))) {
    if (spec.q.rows < config.m) continue;
    const { max } = target.subgroupSize;
    const blocks = Math.max(1, Math.min(Math.floor(16 / config.m), Math.floor(max / config.m)));
    for (const subgroups of [4, 2, 1]) {
      // Keys by 32: their memory lets another workgroup in, which is worth more than fewer steps.
      for (const tileK of [32, 64, 16]) {
        const vectors = (tileK * Math.ceil(spec.size / 16) * 16) / 4 / (subgroups * max);
        const prefetch = 2 * vectors <= MOST_PREFETCHED;
        const schedule: MatrixAttention = { variant: 'matrix', config, subgroups, blocks, tileK, prefetch };
        if (!problemOf(layout(spec, target, schedule), schedule, target)) found.push(schedule);
      }
    }
  }
  return found;
}

export interface Layout {
  tileQ: number;
  /** Head size, filled with zeros to whole matrices. */
  padded: number;
  threads: number;
  /** Threads that share a query in the softmax. */
  share: number;
  /** Vectors of four between rows: keys [key][d], values [d][key], scores and weights [query][key]. */
  keyStride: number;
  valueStride: number;
  scoreStride: number;
  /** Subgroups there may be. */
  flags: number;
  lanes: { min: number; max: number };
  bytes: number;
}

export function layout(spec: AttentionSpec, target: TargetProfile, s: MatrixAttention): Layout {
  const { m, n, k, componentType } = s.config;
  const lanes = target.subgroupSize ?? { min: 0, max: 0 };
  const element = componentType === 'f16' ? 2 : 4;
  const unit = Math.max(n, k);
  const padded = Math.ceil(spec.size / unit) * unit;
  const tileQ = s.subgroups * s.blocks * m;
  const threads = s.subgroups * lanes.max;
  const keyStride = (padded * element + PAD_BYTES) / (4 * element);
  const valueStride = (s.tileK * element + PAD_BYTES) / (4 * element);
  const scoreStride = (s.tileK + SCORE_PAD) / 4;
  const flags = threads / lanes.min;
  return {
    tileQ,
    padded,
    threads,
    share: threads / tileQ,
    keyStride,
    valueStride,
    scoreStride,
    flags,
    lanes,
    bytes: 4 * element * (s.tileK * keyStride + (padded + tileQ) * valueStride) + 16 * tileQ * scoreStride + 4 * flags,
  };
}

function problemOf(l: Layout, s: MatrixAttention, target: TargetProfile): string | undefined {
  const { maxComputeInvocationsPerWorkgroup: most, maxComputeWorkgroupStorageSize: room } = target.limits;
  const { m, n, k, resultType } = s.config;
  if (l.lanes.min < 1) return 'the target names no subgroup size.';
  if (resultType !== 'f32') return 'the matrix configuration must have f32 results.';
  if (l.threads > most) return `${l.threads} threads; the target allows ${most}.`;
  if (l.bytes > room) return `${l.bytes} bytes of workgroup memory; the target has ${room}. Use a smaller tileK.`;
  if ([m, n, k].some((d) => s.tileK % d !== 0)) return `tileK ${s.tileK} is no multiple of the matrix ${m}×${n}×${k}.`;
  if (l.share < 1 || l.lanes.min % l.share !== 0 || s.tileK % (4 * l.share) !== 0) {
    return `${l.threads} threads cannot share ${l.tileQ} queries evenly within subgroups of ${l.lanes.min}.`;
  }
  return undefined;
}

/** @throws KontextError `program-invalid` when the target cannot hold the schedule */
export function checkFits(l: Layout, s: MatrixAttention, target: TargetProfile): void {
  const problem = problemOf(l, s, target);
  if (problem) throw new KontextError('program-invalid', `attention schedule for ${target.name}: ${problem}`);
}
