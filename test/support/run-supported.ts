// Runs a kernel, or skips the current test, visibly, when the adapter lacks a feature the kernel says it needs.
// Lets one list of cases serve adapters with and without f16; on lavapipe nothing is skipped.

import { TestRunner } from 'vitest';
import type { KernelSource } from '../../kernels-codegen/src/kernels/kernel.ts';
import { runKernel, type TestDevice } from './gpu.ts';

/** As {@link runKernel}, inside a test. */
export function runSupported(
  gpu: TestDevice,
  kernel: KernelSource,
  buffers: readonly ArrayBufferView[],
): ReturnType<typeof runKernel> {
  const missing = (kernel.needs.features ?? []).filter((f) => !gpu.device.features.has(f as GPUFeatureName));
  if (missing.length) TestRunner.getCurrentTest()!.context.skip(`adapter without ${missing.join(', ')}`);
  return runKernel(gpu, kernel, buffers);
}
