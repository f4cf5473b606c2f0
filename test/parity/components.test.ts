// Every component on the GPU against the reference implementation, in every tier the adapter offers.
// Intermediates are compared in order, so the first failing label names the first wrong layer.
import { afterAll, describe, expect, it } from 'vitest';
import { type CompileRequest, compile } from '../../kernels-codegen/src/compile.ts';
import { targetFor } from '../../kernels-codegen/src/targets/profiles.ts';
import { hasTier, type Tier } from '../../kernels-codegen/src/targets/types.ts';
import { bflNaming, Executable, fileBytes, openDevice, openSafetensors, WeightStore } from '../../runtime/src/index.ts';
import { memoryBytes } from '../../runtime/src/weights/bytes.ts';
import { compareCase, fixturePath, type ReferenceCase, tapsOf } from '../support/cases.ts';
import { diffusersVaeFile, vaeCases } from '../support/cases-autoencoder.ts';
import { clipCases, t5Cases } from '../support/cases-text.ts';
import { denoiseCase, modulationCase, TRANSFORMERS } from '../support/cases-transformer.ts';

/** Relative L2 bounds by tier; f32 differs from the reference by summation order only. */
const TOLERANCE: Record<Tier, number> = { f32: 2e-5, f16: 4e-3, subgroups: 4e-3, 'subgroup-matrix': 4e-3 };

const gpu = await openDevice();
const stores = new Map<string, WeightStore>();
const tiers = (['f32', 'f16', 'subgroups', 'subgroup-matrix'] as const).filter((tier) =>
  hasTier(targetFor(gpu.report), tier),
);

afterAll(() => gpu.destroy());

async function storeOf(fixture: string): Promise<WeightStore> {
  const known = stores.get(fixture);
  if (known) return known;
  const file = fixturePath(`${fixture}/weights.safetensors`).pathname;
  const source = await openSafetensors(
    fixture === 'vae-diffusers' ? memoryBytes(diffusersVaeFile(), fixture) : await fileBytes(file),
  );
  const store = new WeightStore(gpu, bflNaming(source));
  stores.set(fixture, store);
  return store;
}

async function run(c: ReferenceCase, tier: Tier): Promise<Map<string, Float32Array>> {
  const request: CompileRequest = { ...c.request, target: targetFor(gpu.report, 'auto', tier), taps: tapsOf(c) };
  const exe = await Executable.create(gpu, compile(request), { weights: await storeOf(c.fixture) });
  try {
    for (const [port, data] of Object.entries(c.inputs)) exe.write(port, data);
    await exe.run();
    const results = new Map<string, Float32Array>();
    for (const port of exe.program.ports) {
      if (port.direction !== 'in') results.set(port.name, (await exe.read(port.name, 'f32')) as Float32Array);
    }
    return results;
  } finally {
    exe.dispose();
  }
}

const check = (c: ReferenceCase, actual: Map<string, Float32Array>, tier: Tier): void =>
  compareCase(c, (label) => actual.get(label), TOLERANCE[tier]);

// A software driver compiles each kernel for seconds on its first dispatch; the work itself takes milliseconds.
describe.each(tiers)('tier %s', { timeout: 300_000 }, (tier) => {
  it.each(TRANSFORMERS)('transformer %s %s #%i', async (fixture, file, index) => {
    const modulation = modulationCase(fixture, file, index);
    const rows = await run(modulation, tier);
    check(modulation, rows, tier);
    const denoise = denoiseCase(fixture, file, index);
    denoise.inputs.modulation = rows.get('modulation')!;
    check(denoise, await run(denoise, tier), tier);
  });

  it.each([...t5Cases('t5-padded'), ...t5Cases('t5-masked')])('T5 $name', async (c) => {
    check(c, await run(c, tier), tier);
  });

  it.each([...clipCases('clip-eos-legacy'), ...clipCases('clip-eos-id')])('CLIP $name', async (c) => {
    check(c, await run(c, tier), tier);
  });

  it.each([...vaeCases('vae-bfl'), ...vaeCases('vae-diffusers')])('VAE $name', async (c) => {
    check(c, await run(c, tier), tier);
  });
});

it('raised no WebGPU error outside its scopes', () => {
  expect(gpu.uncapturedErrors).toEqual([]);
});
