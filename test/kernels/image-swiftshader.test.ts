// The image families on SwiftShader, the adapter of headless browsers: every case of their tests that needs no f16.
// Skipped without its driver file, which Debian's chromium package contains; a process of its own, as drivers are chosen once.
import { existsSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { openTestDevice } from '../support/gpu.ts';

const driver = process.env.SWIFTSHADER_ICD ?? '/usr/lib/chromium/vk_swiftshader_icd.json';

describe.skipIf(!existsSync(driver))('image families on SwiftShader', async () => {
  if (!existsSync(driver)) return;
  process.env.VK_DRIVER_FILES = driver;
  it('is SwiftShader, without f16', async () => {
    const { adapter } = await openTestDevice();
    expect(adapter.info.architecture).toBe('swiftshader');
    expect(adapter.features.has('shader-f16')).toBe(false);
  });
  await import('./pointwise.test.ts');
  await import('./gather.test.ts');
  await import('./rearrange.test.ts');
  await import('./group-norm.test.ts');
  await import('./conv2d.test.ts');
});
