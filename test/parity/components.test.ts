// Every component on the GPU against the reference implementation, in every tier the adapter offers.
// Intermediates are compared in order, so the first failing label names the first wrong layer.
import { afterAll, describe, expect, it } from 'vitest';
import { type CompileRequest, compile } from '../../kernels-codegen/src/compile.ts';
import { targetFor } from '../../kernels-codegen/src/targets/profiles.ts';
import { hasTier, type Tier } from '../../kernels-codegen/src/targets/types.ts';
import { bflNaming, Executable, fileBytes, openDevice, openSafetensors, WeightStore } from '../../runtime/src/index.ts';
import {
  clipCases,
  denoiseCase,
  errorOf,
  fixturePath,
  modulationCase,
  type ReferenceCase,
  t5Cases,
  vaeCases,
} from '../support/cases.ts';

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
  const source = await openSafetensors(await fileBytes(fixturePath(`${fixture}/weights.safetensors`).pathname));
  const store = new WeightStore(gpu, bflNaming(source));
  stores.set(fixture, store);
  return store;
}

async function run(c: ReferenceCase, tier: Tier, fixture = c.fixture): Promise<Map<string, Float32Array>> {
  const request: CompileRequest = { ...c.request, target: targetFor(gpu.report, 'auto', tier), taps: c.taps };
  const exe = await Executable.create(gpu, compile(request), { weights: await storeOf(fixture) });
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

function check(c: ReferenceCase, actual: Map<string, Float32Array>, tolerance: number): void {
  for (const [label, values] of Object.entries(c.expected)) {
    const rows = c.request.component === 't5' ? c.request.tokens : 1;
    const length = c.validRows ? (values.length / rows) * c.validRows : values.length;
    const { relative } = errorOf(actual.get(label)!.subarray(0, length), values.subarray(0, length));
    expect(relative, `${c.name}: ${label}`).toBeLessThan(tolerance);
  }
}

const transformers: [string, string, number][] = [
  ['transformer-bfl-small', 'io.safetensors', 0],
  ['transformer-bfl-small', 'io.safetensors', 1],
  ['transformer-bfl-small', 'io_t2i.safetensors', 0],
  ['transformer-bfl-headdim128', 'io.safetensors', 0],
  ['transformer-bfl-noguidance', 'io.safetensors', 0],
];

// A software driver compiles each kernel for seconds on its first dispatch; the work itself takes milliseconds.
describe.each(tiers)('tier %s', { timeout: 300_000 }, (tier) => {
  it.each(transformers)('transformer %s %s #%i', async (fixture, file, index) => {
    const modulation = modulationCase(fixture, file, index);
    const rows = await run(modulation, tier);
    check(modulation, rows, TOLERANCE[tier]);
    const denoise = denoiseCase(fixture, file, index);
    denoise.inputs.modulation = rows.get('modulation')!;
    check(denoise, await run(denoise, tier), TOLERANCE[tier]);
  });

  it('transformer under diffusers names', async () => {
    const named = 'transformer-diffusers-small';
    const modulation = modulationCase('transformer-bfl-small', 'io.safetensors', 0);
    const rows = await run(modulation, tier, named);
    check(modulation, rows, TOLERANCE[tier]);
    const denoise = denoiseCase('transformer-bfl-small', 'io.safetensors', 0);
    denoise.inputs.modulation = rows.get('modulation')!;
    check(denoise, await run(denoise, tier, named), TOLERANCE[tier]);
  });

  it.each([...t5Cases('t5-padded'), ...t5Cases('t5-masked')])('T5 $name', async (c) => {
    check(c, await run(c, tier), TOLERANCE[tier]);
  });

  it.each([...clipCases('clip-eos-legacy'), ...clipCases('clip-eos-id')])('CLIP $name', async (c) => {
    check(c, await run(c, tier), TOLERANCE[tier]);
  });

  it.each(vaeCases())('VAE $name', async (c) => {
    check(c, await run(c, tier), TOLERANCE[tier]);
  });
});

it('raised no WebGPU error outside its scopes', () => {
  expect(gpu.uncapturedErrors).toEqual([]);
});
