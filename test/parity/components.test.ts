// Every component on the GPU against the reference implementation, in every tier the adapter offers.
// Intermediates are compared in order, so the first failing label names the first wrong layer.
// Adapters that run on the CPU get kernels of their own, alike in tiers subgroups and subgroup-matrix, in f16 as in f32; a sample runs the kernels that GPUs
// get, all of them with KONTEXT_GPU_KERNELS=1 (`npm run test:gpu-kernels`, and `npm run test:matrix` on matrix instructions).
import { afterAll, describe, expect, it } from 'vitest';
import { type CompileRequest, compile } from '../../kernels-codegen/src/compile.ts';
import { targetFor } from '../../kernels-codegen/src/targets/profiles.ts';
import { hasTier, type TargetProfile, type Tier } from '../../kernels-codegen/src/targets/types.ts';
import { bflNaming, Executable, fileBytes, openDevice, openSafetensors, WeightStore } from '../../runtime/src/index.ts';
import { memoryBytes } from '../../runtime/src/weights/bytes.ts';
import { compareCase, fixturePath, type ReferenceCase, tapsOf } from '../support/cases.ts';
import { diffusersVaeFile, vaeCases } from '../support/cases-autoencoder.ts';
import { clipCases, t5Cases } from '../support/cases-text.ts';
import { denoiseCase, modulationCase, TRANSFORMERS } from '../support/cases-transformer.ts';

/** Relative L2 bounds by tier, about twice what is measured; f32 differs from the reference by summation order only. */
const TOLERANCE: Record<Tier, number> = { f32: 6e-6, f16: 2.5e-3, subgroups: 2.5e-3, 'subgroup-matrix': 2.5e-3 };
/** Sums of 16 products in f16 round each product's layer by 6e-4 more; the autoencoder's encoder, with the most layers, shows 2.7e-3. */
const PACKED_TOLERANCE = 4e-3;

// A CPU's driver compiles a GPU's tiles on their first dispatch, on a busy machine for minutes: that is no hang.
const gpu = await openDevice({ hangMs: 1_500_000 });
const stores = new Map<string, WeightStore>();
const offered = (['f32', 'f16', 'subgroups', 'subgroup-matrix'] as const).filter((tier) =>
  hasTier(targetFor(gpu.report), tier),
);
/** Kernels are those of the adapter, or those that a GPU of this tier gets. */
interface Variant {
  tier: Tier;
  asGpu: boolean;
  /** Sums of 16 products in f16, as AMD, Intel and Qualcomm have them. */
  packed: boolean;
}
const { software } = targetFor(gpu.report);
const all = process.env.KONTEXT_GPU_KERNELS === '1' || process.env.KONTEXT_REQUIRE_MATRIX === '1';
const best = offered.includes('subgroups') ? 'subgroups' : 'f16';
const own = offered.filter((tier) => !software || tier === 'f32' || tier === best);
const variants: Variant[] = [
  ...(software && all ? [] : own.map((tier) => ({ tier, asGpu: false, packed: false }))),
  ...(software && all ? offered.map((tier) => ({ tier, asGpu: true, packed: false })) : []),
  ...(software && all && best !== 'f16' ? [{ tier: best, asGpu: true, packed: true } satisfies Variant] : []),
];

function targetOf({ tier, asGpu, packed }: Variant): TargetProfile {
  const { software: _, ...target } = targetFor(gpu.report, 'auto', tier);
  if (packed) return { ...target, packedSums: true };
  return asGpu || !software ? target : { ...target, software };
}

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

async function run(c: ReferenceCase, variant: Variant): Promise<Map<string, Float32Array>> {
  const request: CompileRequest = { ...c.request, target: targetOf(variant), taps: tapsOf(c) };
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

const check = (c: ReferenceCase, actual: Map<string, Float32Array>, { tier, packed }: Variant): void =>
  compareCase(c, (label) => actual.get(label), packed ? PACKED_TOLERANCE : TOLERANCE[tier]);

// A software driver compiles each kernel for seconds on its first dispatch; the work itself takes milliseconds.
describe.each(variants)(
  "tier $tier, a GPU's kernels: $asGpu, sums in f16: $packed",
  { timeout: all ? 1_800_000 : 300_000 },
  (variant) => {
    it.each(TRANSFORMERS)('transformer %s %s #%i', async (fixture, file, index) => {
      const modulation = modulationCase(fixture, file, index);
      const rows = await run(modulation, variant);
      check(modulation, rows, variant);
      const denoise = denoiseCase(fixture, file, index);
      denoise.inputs.modulation = rows.get('modulation')!;
      check(denoise, await run(denoise, variant), variant);
    });

    it.each([...t5Cases('t5-padded'), ...t5Cases('t5-masked')])('T5 $name', async (c) => {
      check(c, await run(c, variant), variant);
    });

    it.each([...clipCases('clip-eos-legacy'), ...clipCases('clip-eos-id')])('CLIP $name', async (c) => {
      check(c, await run(c, variant), variant);
    });

    it.each([...vaeCases('vae-bfl'), ...vaeCases('vae-diffusers')])('VAE $name', async (c) => {
      check(c, await run(c, variant), variant);
    });
  },
);

// One small component: a CPU's driver takes minutes for the tiles of the others.
describe.runIf(software && !all)("a sample on a GPU's kernels", { timeout: 300_000 }, () => {
  it.each<Tier>(['f32', offered.at(-1)!])('modulation in tier %s', async (tier) => {
    const c = modulationCase(...TRANSFORMERS[0]!);
    const variant: Variant = { tier, asGpu: true, packed: false };
    check(c, await run(c, variant), variant);
  });

  it.runIf(hasTier({ tier: best }, 'f16'))('CLIP with sums in f16', async () => {
    const [c] = clipCases('clip-eos-id') as [ReferenceCase];
    const variant: Variant = { tier: best, asGpu: true, packed: true };
    const { kernels } = compile({ ...c.request, target: targetOf(variant) } as CompileRequest);
    expect(kernels.some(({ label }) => label.startsWith('matmul packed'))).toBe(true);
    check(c, await run(c, variant), variant);
  });
});

it('raised no WebGPU error outside its scopes', () => {
  expect(gpu.uncapturedErrors).toEqual([]);
});
