// The matmul family: every linear layer and 1×1 convolution, with dequantisation on load and a fused epilogue.
// The one entry point; variants and the chooser lie beside it.

import { KontextError } from '../../../../runtime/src/errors.ts';
import type { TargetProfile } from '../../targets/types.ts';
import type { KernelSource } from '../kernel.ts';
import { directMatmul } from './direct.ts';
import { headsMisfit } from './heads.ts';
import { matrixConfig, matrixMatmul } from './matrix.ts';
import { checkMatmulSchedule, chooseMatmulSchedule, type MatmulSchedule } from './schedule.ts';
import { skinnyMatmul } from './skinny.ts';
import { buffersOf, checkMatmulSpec, describeMatmul, type MatmulSpec } from './spec.ts';
import { tiledMatmul } from './tiled.ts';

export { chooseMatmulSchedule, type MatmulSchedule, matmulCandidates, matmulShapeKey } from './schedule.ts';
export type { MatmulSpec } from './spec.ts';

/** Why the schedule cannot normalise the heads that the spec asks for; undefined where it can. */
function normMisfit(spec: MatmulSpec, target: TargetProfile, schedule: MatmulSchedule): string | undefined {
  if (schedule.variant !== 'matrix') return `the ${schedule.variant} variant normalises no heads`;
  return headsMisfit(spec, target, schedule, matrixConfig(spec, target)!);
}

/** True when the kernel that a target gets for the spec can normalise its heads: elsewhere that is a pass of its own. */
export function normsHeads(spec: MatmulSpec, target: TargetProfile): boolean {
  if (spec.heads!.size % 4 || buffersOf(spec) > target.limits.maxStorageBuffersPerShaderStage) return false;
  return !normMisfit(spec, target, chooseMatmulSchedule(spec, target));
}

/**
 * WGSL for `out = epilogue(Σ_s a_s · bᵀ)`, see {@link MatmulSpec}.
 *
 * Bindings: each segment's `a`, the weight (with its scales), both of `beside` if any, with `heads` the scales of q and k and the table if any, the epilogue's
 * operands but the in-place one, the output.
 * Accumulates in f32 in every tier; packed schedules sum 16 products in f16 first.
 * @throws KontextError `program-invalid` for a contradictory spec or schedule, `limit-too-small` when the schedule does not fit
 */
export function matmul(
  spec: MatmulSpec,
  target: TargetProfile,
  schedule: MatmulSchedule = chooseMatmulSchedule(spec, target),
): KernelSource {
  checkMatmulSpec(spec, target);
  checkMatmulSchedule(spec, target, schedule);
  const misfit = spec.heads && normMisfit(spec, target, schedule);
  if (misfit) throw new KontextError('program-invalid', `matmul ${describeMatmul(spec)} on ${target.name}: ${misfit}`);
  switch (schedule.variant) {
    case 'tiled':
      return tiledMatmul(spec, target, schedule);
    case 'skinny':
      return skinnyMatmul(spec, target, schedule);
    case 'matrix':
      // The check above guarantees both.
      return matrixMatmul(spec, target, schedule, matrixConfig(spec, target)!);
    case 'direct':
      return directMatmul(spec, target, schedule);
    default:
      throw schedule satisfies never;
  }
}
