// The conv2d family: 3×3 and 1×1 convolutions of NHWC images with normalisation on load and a fused epilogue.
// The one entry point; variants and the chooser lie beside it.

import type { TargetProfile } from '../../targets/types.ts';
import type { KernelSource } from '../kernel.ts';
import { matrixConfig } from '../matmul/matrix.ts';
import { directConv2d } from './direct.ts';
import { equivalentMatmul, matrixConv2d } from './matrix.ts';
import { type Conv2dSchedule, checkConv2dSchedule, chooseConv2dSchedule } from './schedule.ts';
import { type Conv2dSpec, checkConv2dSpec } from './spec.ts';
import { tiledConv2d } from './tiled.ts';

export { type Conv2dSchedule, chooseConv2dSchedule, conv2dCandidates, conv2dShapeKey } from './schedule.ts';
export type { Conv2dSpec } from './spec.ts';

/**
 * WGSL for {@link Conv2dSpec}.
 *
 * Bindings: the image, the weight (with its scales), the prologue's matrix if any, the epilogue's operands but the in-place
 * one, the output. Accumulates in f32 in every tier; packed schedules sum 16 products in f16 first.
 * @throws KontextError `program-invalid` for a contradictory spec, `limit-too-small` when the schedule does not fit
 */
export function conv2d(
  spec: Conv2dSpec,
  target: TargetProfile,
  schedule: Conv2dSchedule = chooseConv2dSchedule(spec, target),
): KernelSource {
  checkConv2dSpec(spec, target);
  checkConv2dSchedule(spec, target, schedule);
  switch (schedule.variant) {
    case 'tiled':
      return tiledConv2d(spec, target, schedule);
    case 'direct':
      return directConv2d(spec, target, schedule);
    case 'matrix': {
      const config = matrixConfig(equivalentMatmul(spec, target), target)!;
      return matrixConv2d(spec, target, schedule, config);
    }
    default:
      throw schedule satisfies never;
  }
}
