// The portable matmul on SwiftShader, the adapter of headless browsers: no f16, subgroups of four.
// Skipped without its driver file, which Debian's chromium package contains; a process of its own, as drivers are chosen once.
import { existsSync } from 'node:fs';
import { beforeAll, describe, expect, it } from 'vitest';
import { targetByName } from '../../kernels-codegen/src/targets/profiles.ts';
import { BASELINE_LIMITS, type TargetProfile } from '../../kernels-codegen/src/targets/types.ts';
import { openTestDevice, type TestDevice } from '../support/gpu.ts';
import { describeShape, FEW_ROWS, FULL, matmulSpec } from '../support/matmul-shapes.ts';
import { checkMatmul, matmulTolerance } from '../support/oracle-matmul.ts';

const driver = process.env.SWIFTSHADER_ICD ?? '/usr/lib/chromium/vk_swiftshader_icd.json';

describe.skipIf(!existsSync(driver))('matmul on SwiftShader', () => {
  let gpu: TestDevice;
  beforeAll(async () => {
    process.env.VK_DRIVER_FILES = driver;
    gpu = await openTestDevice();
  });

  it('is SwiftShader', () => {
    expect(gpu.adapter.info.architecture).toBe('swiftshader');
    expect(gpu.adapter.features.has('shader-f16')).toBe(false);
  });

  const run = (shape: (typeof FULL)[number], target: TargetProfile): Promise<void> => {
    const spec = matmulSpec(shape);
    return checkMatmul(gpu, spec, target, matmulTolerance(spec, 0));
  };
  it.each([...FULL, ...FEW_ROWS].map((s) => [describeShape(s), s] as const))('%s', (_, s) =>
    run(s, targetByName('swiftshader')),
  );
  // What a device of the same features on a real GPU would get.
  const baseline: TargetProfile = { name: 'baseline', tier: 'f32', limits: BASELINE_LIMITS };
  it.each([FULL[1]!, FULL[5]!, FEW_ROWS[2]!].map((s) => [describeShape(s), s] as const))('as on a GPU: %s', (_, s) =>
    run(s, baseline),
  );
});
