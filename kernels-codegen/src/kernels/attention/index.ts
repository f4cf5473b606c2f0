// Attention: softmax(scale · QKᵀ + bias) · V for every head, with no score matrix in memory.
// Here is the choice of variant and tile for a target; the specification and the variants are beside it.

import type { TargetProfile } from '../../targets/types.ts';
import type { KernelSource } from '../kernel.ts';
import { chooseDirect, type DirectAttention, directAttention } from './direct.ts';
import { matrixAttention } from './matrix.ts';
import { chooseMatrix, type MatrixAttention } from './matrix-layout.ts';
import { type AttentionSpec, validateAttention } from './spec.ts';
import { chooseTiled, type TiledAttention, tiledAttention } from './tiled.ts';

export type { AttentionSpec } from './spec.ts';

export type AttentionSchedule = DirectAttention | TiledAttention | MatrixAttention;

/**
 * One kernel for attention over all heads: online softmax (Milakov & Gimelshein 2018), blocked as in FlashAttention
 * (Dao et al. 2022). Softmax statistics and accumulators are f32 in every variant.
 * Bindings: q, k, v, bias if any, out.
 *
 * @throws KontextError `program-invalid` for shapes that do not agree or a schedule the target cannot hold
 */
export function attention(
  spec: AttentionSpec,
  target: TargetProfile,
  schedule: AttentionSchedule = chooseAttentionSchedule(spec, target),
): KernelSource {
  validateAttention(spec);
  switch (schedule.variant) {
    case 'direct':
      return directAttention(spec, target, schedule);
    case 'tiled':
      return tiledAttention(spec, target, schedule);
    case 'matrix':
      return matrixAttention(spec, target, schedule);
    default:
      throw schedule satisfies never;
  }
}

/** Variant and tile sizes for a shape on a target. */
export function chooseAttentionSchedule(spec: AttentionSpec, target: TargetProfile): AttentionSchedule {
  return target.software ? chooseDirect(spec, target) : (chooseMatrix(spec, target) ?? chooseTiled(spec, target));
}
