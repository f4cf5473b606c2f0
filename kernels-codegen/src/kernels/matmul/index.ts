// The matmul family: every linear layer and 1×1 convolution, with dequantisation on load and a fused epilogue.
// The one entry point; variants and the chooser lie beside it.

import type { TargetProfile } from '../../targets/types.ts';
import type { KernelSource } from '../kernel.ts';
import { directMatmul } from './direct.ts';
import { matrixConfig, matrixMatmul } from './matrix.ts';
import { checkMatmulSchedule, chooseMatmulSchedule, type MatmulSchedule } from './schedule.ts';
import { skinnyMatmul } from './skinny.ts';
import { checkMatmulSpec, type MatmulSpec } from './spec.ts';
import { tiledMatmul } from './tiled.ts';

export { chooseMatmulSchedule, type MatmulSchedule, matmulCandidates, matmulShapeKey } from './schedule.ts';
export type { MatmulSpec } from './spec.ts';

/**
 * WGSL for `out = epilogue(Σ_s a_s · bᵀ)`, see {@link MatmulSpec}.
 *
 * Bindings: each segment's `a`, the weight (with its scales), both of `beside` if any, the epilogue's operands but the in-place one, the output.
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
