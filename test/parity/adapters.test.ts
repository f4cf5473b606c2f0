// Adapters of every key style on the small transformer, against the reference with W + scale · ΔW: beside the layers and merged.
import { afterAll, describe, expect, it } from 'vitest';
import { targetFor } from '../../kernels-codegen/src/targets/profiles.ts';
import { hasTier } from '../../kernels-codegen/src/targets/types.ts';
import { openDevice } from '../../runtime/src/index.ts';
import {
  type AdapterCase,
  AdapterRunner,
  formatsCase,
  loraCase,
  smallTransformer,
  targetOutput,
  testAdapter,
  transformerOnly,
  used,
} from '../support/adapters.ts';

// A busy machine compiles kernels for minutes.
const gpu = await openDevice({ hangMs: 1_500_000 });
const source = await smallTransformer();
const model = transformerOnly(source);
const f32 = new AdapterRunner(gpu, source, targetFor(gpu.report, 'f32'));
afterAll(() => gpu.destroy());

/** The fixtures' own bound, to which comes what the driver's functions are off without an adapter (4e-5 on lavapipe). */
const WORST = 1e-4;
const bounds = new Map<string, number>();
async function boundOf(c: AdapterCase): Promise<number> {
  const key = `${c.textTokens}`;
  const known = bounds.get(key);
  if (known !== undefined) return known;
  const off = worst(await f32.run(c, [], undefined), targetOutput(c, 'base'));
  expect(off).toBeLessThan(WORST);
  bounds.set(key, WORST + off);
  return WORST + off;
}
const worst = (a: Float32Array, b: Float32Array): number => {
  expect(a.length).toBe(b.length);
  return a.reduce((most, value, i) => Math.max(most, Math.abs(value - b[i]!)), 0);
};
const relativeRms = (a: Float32Array, b: Float32Array): number => {
  const sum = (f: (i: number) => number) => b.reduce((total, _, i) => total + f(i) ** 2, 0);
  return Math.sqrt(sum((i) => a[i]! - b[i]!) / sum((i) => b[i]!));
};

const UPDATE = [
  'peft',
  'peft_metadata',
  'kohya',
  'kohya_split_qkv',
  'diffusion_model_ab',
  'diffusion_model_updown',
  'onetrainer',
  'no_prefix',
];
/** [file, fixture, scale, output] */
const CASES: [file: string, scale: number, output: string][] = [
  ...UPDATE.map((name): [string, number, string] => [`formats/${name}.safetensors`, 1, 'update.scale_1']),
  ['formats/peft.safetensors', 0.5, 'update.scale_0.5'],
  ['formats/kohya.safetensors', -0.75, 'update.scale_-0.75'],
  ['formats/xlabs.safetensors', 1, 'xlabs.scale_1'],
  ['formats/xlabs.safetensors', 0.5, 'xlabs.scale_0.5'],
  ['formats/kohya_top_level.safetensors', 1, 'kohya_top_level.scale_1'],
  ['formats/lokr.safetensors', 1, 'lokr.scale_1'],
  ['formats/lokr.safetensors', 0.5, 'lokr.scale_0.5'],
  ['formats/loha.safetensors', 1, 'loha.scale_1'],
  ['formats/loha.safetensors', -0.5, 'loha.scale_-0.5'],
  ['formats/diff.safetensors', 1, 'diff.scale_1'],
  ['formats/diff.safetensors', 0.5, 'diff.scale_0.5'],
  ['formats/second.safetensors', 1, 'second.scale_1'],
  ['lora/lora_peft.safetensors', 1, 'peft.scale_1'],
  ['lora/lora_peft_alpha.safetensors', 0.5, 'peft_alpha.scale_0.5'],
  ['lora/lora_kohya.safetensors', 1, 'kohya.scale_1'],
  ['lora/lora_bfl.safetensors', 0.5, 'bfl.scale_0.5'],
  ['lora/lora_bfl.safetensors', 1, 'bfl.scale_1'],
  ['lora/lora_fal_kontext.safetensors', 1, 'fal_kontext.scale_1'],
  ['lora/lora_xlabs.safetensors', 1, 'xlabs.scale_1'],
];
const ROOM = 16;
const caseOf = (file: string): AdapterCase => (file.startsWith('lora/') ? loraCase(0) : formatsCase());

describe('adapters, float32', { timeout: 300_000 }, () => {
  it.each(CASES)('%s at %f', async (file, scale, output) => {
    const c = caseOf(file);
    const adapter = await testAdapter(file, model);
    expect(adapter.unused).toEqual([]);
    const want = targetOutput(c, output);
    expect(worst(want, targetOutput(c, 'base'))).toBeGreaterThan(20 * WORST);
    expect(worst(await f32.run(c, [used(adapter, scale)], ROOM), want)).toBeLessThan(await boundOf(c));
  });

  it.each([
    [0.8, 0.6],
    [1, -0.35],
  ])('two at once: %f and %f', async (one, two) => {
    const c = formatsCase();
    const uses = [
      used(await testAdapter('formats/peft.safetensors', model), one),
      used(await testAdapter('formats/second.safetensors', model), two),
    ];
    const want = targetOutput(c, `peft_${one}_second_${two}`);
    expect(worst(await f32.run(c, uses, ROOM), want)).toBeLessThan(await boundOf(c));
    expect(worst(await f32.run(c, uses, undefined), want)).toBeLessThan(await boundOf(c));
  });

  it.each([
    ['formats/peft.safetensors', 'update.scale_1'],
    ['formats/onetrainer.safetensors', 'update.scale_1'],
    ['formats/lokr.safetensors', 'lokr.scale_1'],
    ['formats/loha.safetensors', 'loha.scale_1'],
    ['lora/lora_bfl.safetensors', 'bfl.scale_1'],
  ])('%s merged gives the same', async (file, output) => {
    const c = caseOf(file);
    const uses = [used(await testAdapter(file, model), 1)];
    const merged = await f32.run(c, uses, undefined);
    expect(worst(merged, targetOutput(c, output))).toBeLessThan(await boundOf(c));
    expect(worst(merged, await f32.run(c, uses, ROOM))).toBeLessThan(1.5e-5);
  });

  it('gives the bits of no adapter at scale 0 and after one was used', async () => {
    const c = formatsCase();
    const base = await f32.run(c, [], undefined);
    const adapter = await testAdapter('formats/kohya.safetensors', model);
    await f32.run(c, [used(adapter, 1)], ROOM);
    expect(await f32.run(c, [used(adapter, 0)], ROOM)).toEqual(base);
    expect(await f32.run(c, [], ROOM)).toEqual(base);
  });
});

describe.runIf(hasTier(targetFor(gpu.report), 'f16'))('adapters, 16 bits', { timeout: 300_000 }, () => {
  it('holds the 16-bit bound, for factors of 16 bits too', async () => {
    const f16 = new AdapterRunner(gpu, source, targetFor(gpu.report, 'auto', 'f16'));
    const c = formatsCase();
    for (const [file, output] of [
      ['formats/kohya.safetensors', 'update.scale_1'],
      ['formats/loha.safetensors', 'loha.scale_1'],
    ] as const) {
      const uses = [used(await testAdapter(file, model), 1)];
      const want = targetOutput(c, output);
      expect(relativeRms(await f16.run(c, uses, ROOM), want)).toBeLessThan(1e-2);
      expect(relativeRms(await f16.run(c, uses, undefined), want)).toBeLessThan(1e-2);
    }
    await f16.dispose();
  });
});
