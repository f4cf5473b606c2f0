// The profile that suites of matrix kernels test with: the adapter's own shapes within WebGPU's default limits.

import { BASELINE_LIMITS, type TargetLimits, type TargetProfile } from '../../kernels-codegen/src/targets/types.ts';
import { reportAdapter } from '../../runtime/src/gpu/report.ts';
import type { TestDevice } from './gpu.ts';

/**
 * Undefined where the adapter has no f16 matrices with f32 results: then there is nothing to test.
 * @throws where `KONTEXT_REQUIRE_MATRIX` says that there must be
 */
export function matrixTarget({ adapter }: TestDevice, limits: Partial<TargetLimits> = {}): TargetProfile | undefined {
  const { subgroupSize, subgroupMatrixConfigs: subgroupMatrix } = reportAdapter(adapter);
  if (subgroupMatrix.some((c) => c.componentType === 'f16' && c.resultType === 'f32')) {
    return {
      name: 'test',
      tier: 'subgroup-matrix',
      limits: { ...BASELINE_LIMITS, ...limits },
      subgroupSize,
      subgroupMatrix,
    };
  }
  if (process.env.KONTEXT_REQUIRE_MATRIX) throw new Error('this run requires f16 matrices with f32 results');
  return undefined;
}
