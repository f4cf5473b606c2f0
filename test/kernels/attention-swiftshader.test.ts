// The portable attention on SwiftShader, the adapter of headless browsers: no f16, subgroups of four.
// Skipped without its driver file, which Debian's chromium package contains; a process of its own, as drivers are chosen once.
import { existsSync } from 'node:fs';
import { beforeAll, describe, expect, it } from 'vitest';
import { chooseTiled } from '../../kernels-codegen/src/kernels/attention/tiled.ts';
import { targetByName } from '../../kernels-codegen/src/targets/profiles.ts';
import { BASELINE_LIMITS, type TargetProfile } from '../../kernels-codegen/src/targets/types.ts';
import { openTestDevice, type TestDevice } from '../support/gpu.ts';
import { view } from '../support/views.ts';
import { type AttentionCase, checkAttention } from './attention-oracle.ts';

const driver = process.env.SWIFTSHADER_ICD ?? '/usr/lib/chromium/vk_swiftshader_icd.json';

describe.skipIf(!existsSync(driver))('attention on SwiftShader', { timeout: 300_000 }, () => {
  let gpu: TestDevice;
  beforeAll(async () => {
    process.env.VK_DRIVER_FILES = driver;
    gpu = await openTestDevice();
  });

  it('is SwiftShader', () => {
    expect(gpu.adapter.info.architecture).toBe('swiftshader');
  });

  const ragged: AttentionCase = { heads: 2, size: 32, queries: 40, keys: 70, type: 'f32' };
  const causal: AttentionCase = { heads: 2, size: 16, queries: 27, keys: 27, type: 'f32', causal: true, bias: true };
  it('ragged', () => checkAttention(gpu, targetByName('swiftshader'), ragged));
  it('causal with a bias', () => checkAttention(gpu, targetByName('swiftshader'), causal));
  // The GPU's kernel, with loops this driver cannot unroll. One case: its compiler took 4 GB and minutes for a tiled
  // kernel with loops of known length, and 7 GB for one with a bias, which is why such adapters get the direct kernel.
  const tiled = (c: AttentionCase): Promise<void> => {
    const target: TargetProfile = { name: 'baseline', tier: 'f32', limits: BASELINE_LIMITS, software: true };
    const m = (rows: number) => view('f32', rows, c.heads * c.size);
    const kv = m(c.keys);
    const spec = {
      heads: c.heads,
      size: c.size,
      q: m(c.queries),
      k: kv,
      v: kv,
      out: m(c.queries),
      scale: 1,
      causal: false,
    };
    return checkAttention(gpu, target, { ...c, schedule: chooseTiled(spec, target) });
  };
  it('tiled: ragged', () => tiled(ragged));
});
