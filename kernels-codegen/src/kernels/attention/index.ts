// Attention: softmax(scale · QKᵀ + bias) · V for every head, with no score matrix in memory.
// Here is the choice of variant and tile for a target; the specification and the variants are beside it.

import type { TargetProfile } from '../../targets/types.ts';
import { sameSchedule, tunedSchedule } from '../../tune/tuned.ts';
import type { KernelSource } from '../kernel.ts';
import { chooseDirect, type DirectAttention, directAttention, directAttentions } from './direct.ts';
import { matrixAttention } from './matrix.ts';
import { chooseMatrix, type MatrixAttention, matrixAttentions } from './matrix-layout.ts';
import { type AttentionSpec, keysOf, validateAttention } from './spec.ts';
import { chooseTiled, type TiledAttention, tiledAttention, tiledAttentions } from './tiled.ts';

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

/** Key of a spec in `TargetProfile.tuned.attention`. */
export function attentionShapeKey(spec: AttentionSpec): string {
  const notes = [
    `${spec.heads}×${spec.size}`,
    `${spec.q.rows}×${keysOf(spec)}`,
    spec.causal ? 'causal' : '',
    spec.bias ? 'bias' : '',
    spec.q.type,
  ];
  return notes.filter(Boolean).join(' ');
}

/** What measuring may choose from: every schedule that the target can hold, the estimate's among them. */
export function attentionCandidates(spec: AttentionSpec, target: TargetProfile): AttentionSchedule[] {
  const others = target.software
    ? directAttentions(spec, target)
    : [...matrixAttentions(spec, target), ...tiledAttentions(spec, target)];
  const first = estimated(spec, target);
  return [first, ...others.filter((s) => !sameSchedule(s, first))];
}

/** Variant and tile sizes for a shape on a target: as measured, else as estimated. */
export function chooseAttentionSchedule(spec: AttentionSpec, target: TargetProfile): AttentionSchedule {
  const key = attentionShapeKey(spec);
  return tunedSchedule(target, 'attention', key, () => attentionCandidates(spec, target)) ?? estimated(spec, target);
}

function estimated(spec: AttentionSpec, target: TargetProfile): AttentionSchedule {
  return target.software ? chooseDirect(spec, target) : (chooseMatrix(spec, target) ?? chooseTiled(spec, target));
}
