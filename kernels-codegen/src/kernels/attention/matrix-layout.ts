// Tile sizes of attention on matrix instructions: what they take, what they must fulfil, which a target gets.

import { KontextError } from '../../../../runtime/src/errors.ts';
import type { SubgroupMatrixConfig } from '../../../../runtime/src/program/types.ts';
import { hasTier, type TargetProfile } from '../../targets/types.ts';
import { biasBytes } from './matrix-bias.ts';
import type { AttentionSpec } from './spec.ts';

export interface MatrixAttention {
  variant: 'matrix';
  config: SubgroupMatrixConfig;
  /** Subgroups in a workgroup, each with its own queries, or its own columns of them. */
  subgroups: number;
  /** Subgroups that share queries: each has a part of the head's columns, for heads whose output one cannot hold. 1 when left out. */
  slices?: number;
  /** Matrices of `config.m` queries a subgroup. */
  blocks: number;
  /** Keys in a tile; a multiple of the config's m, n and k. */
  tileK: number;
  /**
   * Scores are K·Qᵀ: a lane of AMD's has eight keys of one query then and stores them together, where it had eight queries of one key, each
   * with an address. Needs matrices with as many rows as columns.
   */
  turned?: true;
}

/** 16 bytes between rows in workgroup memory beyond the row's own: shifts rows by four banks. */
const PAD = 1;
/** Of the scores: stores of matrices and reads of vectors meet no bank twice. */
const SCORE_PAD = 8;

/** A schedule for the matrix variant, or nothing where another variant serves the shape better or more exactly. */
export function chooseMatrix(spec: AttentionSpec, target: TargetProfile): MatrixAttention | undefined {
  return matrixAttentions(spec, target)[0];
}

/** Every schedule the target can hold, the likely best first. */
export function matrixAttentions(spec: AttentionSpec, target: TargetProfile): MatrixAttention[] {
  // 16 queries × 128 columns of output are 64 registers a lane of 32, beside as many of queries: wider heads are sliced.
  const slices = [1, 2, 4].find((count) => spec.size <= 128 * count);
  if (!hasTier(target, 'subgroup-matrix') || !target.subgroupSize || !slices) return [];
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
    // Twice the queries share what staging costs. AMD's units hold as many waves either way; where memory decides how many
    // workgroups are resident (NVIDIA), two of four subgroups hide more than one of eight.
    const many = target.fixedSubgroupSize && spec.q.rows >= 1024;
    const turned = target.fixedSubgroupSize && config.m === config.n ? { turned: true as const } : {};
    const blocks = Math.max(1, Math.min(Math.floor(16 / config.m), Math.floor(max / config.m)));
    for (const subgroups of many ? [8, 4, 2, 1] : [4, 2, 1]) {
      // Keys by 32: their memory lets another workgroup in, which is worth more than fewer steps.
      for (const tileK of [32, 64, 16]) {
        if (subgroups % slices !== 0) continue;
        const sliced = slices > 1 ? { slices } : {};
        const schedule: MatrixAttention = { variant: 'matrix', config, subgroups, ...sliced, blocks, tileK, ...turned };
        if (!problemOf(layout(spec, target, schedule), schedule, target)) found.push(schedule);
      }
    }
  }
  return found;
}

export interface Layout {
  tileQ: number;
  /** Head size, filled with zeros to whole matrices: to an even number of them where V's rows share lines, to as many in each slice. */
  padded: number;
  threads: number;
  slices: number;
  /** Threads that share a query in the softmax; with slices, some have no part in it. */
  share: number;
  /** Elements of an operand in 16 bytes. */
  unit: number;
  /**
   * Rows of scores and of values in workgroup memory; `folded`: the second half of the queries lies beside the first. With slices,
   * each slice's part of all scores comes after the one before.
   */
  folded: boolean;
  scoreRows: number;
  valueRows: number;
  /** 16 bytes between rows: keys [key][d], scores [query][key]. */
  keyStride: number;
  scoreStride: number;
  /** 16 bytes of each query, and slice, that are staged at a time, and between their rows. */
  queryVectors: number;
  queryStride: number;
  /** Vectors of four between rows of values [d][key] and of weights [query][key]. */
  valueStride: number;
  weightStride: number;
  lanes: { min: number; max: number };
  bytes: number;
}

export function layout(spec: AttentionSpec, target: TargetProfile, s: MatrixAttention): Layout {
  const { m, n, k, componentType } = s.config;
  const lanes = target.subgroupSize ?? { min: 0, max: 0 };
  const element = componentType === 'f16' ? 2 : 4;
  const unit = 16 / element;
  const slices = s.slices ?? 1;
  // Two halves of whole matrices where V's rows share lines: see valueRows.
  const edge = slices > 1 ? slices * Math.max(n, k) : Math.max(unit === 8 ? 2 * n : n, k);
  const padded = Math.ceil(spec.size / edge) * edge;
  const tileQ = (s.subgroups / slices) * s.blocks * m;
  const threads = s.subgroups * lanes.max;
  const keyStride = padded / unit + PAD;
  // Two rows share a line where they can: half the padding, 32 KiB in all for the common tile.
  const valueRows = unit === 8 ? padded / 2 : padded;
  const valueStride = ((padded / valueRows) * s.tileK + PAD * unit) / 4;
  const weightStride = ((s.tileK / unit + PAD) * unit) / 4;
  const folded = slices === 1 && s.subgroups % 2 === 0;
  const scoreRows = folded ? tileQ / 2 : tileQ * slices;
  const scoreStride = ((folded ? 2 : 1) * s.tileK + SCORE_PAD) / 4;
  // Whole matrices of the queries' columns beside each other, where the scores will lie.
  const columns = k / unit;
  const most = Math.floor((scoreRows * scoreStride) / tileQ) - PAD;
  const queryVectors = Math.min(padded / unit / slices, Math.floor(most / slices / columns) * columns);
  return {
    tileQ,
    padded,
    queryVectors,
    queryStride: queryVectors * slices + PAD,
    threads,
    slices,
    share: Math.min(threads / tileQ, slices > 1 ? s.tileK / 4 : threads),
    keyStride,
    valueStride,
    scoreStride,
    folded,
    scoreRows,
    valueRows,
    unit,
    weightStride,
    lanes,
    bytes:
      16 * (s.tileK * keyStride + scoreRows * scoreStride) +
      4 * element * (valueRows * valueStride + tileQ * weightStride) +
      biasBytes(spec, tileQ, s.tileK) +
      4,
  };
}

function problemOf(l: Layout, s: MatrixAttention, target: TargetProfile): string | undefined {
  const { maxComputeInvocationsPerWorkgroup: most, maxComputeWorkgroupStorageSize: room } = target.limits;
  const { m, n, k, resultType } = s.config;
  if (l.lanes.min < 1) return 'the target names no subgroup size.';
  if (resultType !== 'f32') return 'the matrix configuration must have f32 results.';
  if (l.threads > most) return `${l.threads} threads; the target allows ${most}.`;
  if (l.bytes > room) return `${l.bytes} bytes of workgroup memory; the target has ${room}. Use a smaller tileK.`;
  if (k % l.unit !== 0) return `a matrix ${m}×${n}×${k} has rows that do not start on 16 bytes.`;
  if (s.subgroups % l.slices !== 0) return `${s.subgroups} subgroups do not split into ${l.slices} slices.`;
  if (l.queryVectors < 1) return `${l.tileQ} queries do not fit where their scores of ${s.tileK} keys lie.`;
  if (s.turned && m !== n) return `a matrix ${m}×${n}×${k} cannot be turned.`;
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
