// The count of values clipped to f16's range, on T5's gated products: scaled beyond the room they have, and as they are.
import { afterAll, describe, expect, it, vi } from 'vitest';
import { type CompileRequest, compile } from '../../kernels-codegen/src/compile.ts';
import { targetFor } from '../../kernels-codegen/src/targets/profiles.ts';
import { describeClipped } from '../../runtime/src/execute/clipped.ts';
import { bflNaming, Executable, openDevice, WeightStore } from '../../runtime/src/index.ts';
import { fixturePath } from '../support/cases.ts';
import { t5Cases } from '../support/cases-text.ts';
import { floatTensor, readSafetensors } from '../support/safetensors.ts';
import { f32Tensor, memorySource } from '../support/weights.ts';

const gpu = await openDevice();
afterAll(() => {
  expect(gpu.uncapturedErrors).toEqual([]);
  gpu.destroy();
});

const smallest = t5Cases('t5-padded').reduce((a, b) =>
  b.inputs.embeddings!.length < a.inputs.embeddings!.length ? b : a,
);
/** What `wo` reads, of the first block. */
const GATED = 'encoder.block.0.layer.1.DenseReluDense.gated / 64';

/** T5 with some weights multiplied, bound with the inputs written. Norms keep what is large out of the next block. */
async function encoder(
  factors: { wi_0?: number; wi_1?: number },
  precision: 'auto' | 'f32',
  taps: string[] = [],
): Promise<Executable> {
  const stored = readSafetensors(fixturePath(`${smallest.fixture}/weights.safetensors`));
  const tensors = Object.fromEntries(
    [...stored.keys()].map((name) => {
      const values = floatTensor(stored, name);
      const by = factors[/wi_[01](?=\.weight$)/.exec(name)?.[0] as 'wi_0' | 'wi_1'] ?? 1;
      return [name, f32Tensor(stored.get(name)!.shape, (i) => values[i]! * by)];
    }),
  );
  const weights = new WeightStore(gpu, bflNaming(await memorySource(tensors)));
  const program = compile({ ...smallest.request, target: targetFor(gpu.report, precision), taps } as CompileRequest);
  const executable = await Executable.create(gpu, program, { weights });
  executable.write('embeddings', smallest.inputs.embeddings!);
  return executable;
}

/** Sends products beyond 64 · 65504 and leaves weights and what is multiplied in range. */
const LARGE = { wi_0: 2 ** 13, wi_1: 2 ** 13 };
const f16 = gpu.report.features.includes('shader-f16');

describe.runIf(f16)('values clipped to f16', { timeout: 300_000 }, () => {
  it('are none in the plain encoder, whose result the counting leaves alone', async () => {
    await using executable = await encoder({}, 'auto');
    await executable.run();
    const plain = await executable.read('hidden');
    const { looked, layers } = await executable.countClipped();
    expect(layers).toEqual([]);
    expect(looked).toBeGreaterThan(10_000);
    expect(await executable.read('hidden')).toEqual(plain);
  });

  it('are counted in the layer that stores them, and twice the same', async () => {
    await using reference = await encoder(LARGE, 'f32', [GATED]);
    await reference.run();
    const values = (await reference.read(GATED)) as Float32Array;
    // Operands in f16 move a product by less than a hundredth; nearer ones may go either way.
    const beyond = values.filter((v) => Math.abs(v) > 65504 * 1.01).length;
    const near = values.filter((v) => Math.abs(v) > 65504 * 0.99).length;
    expect(beyond).toBeGreaterThan(0);

    await using executable = await encoder(LARGE, 'auto');
    const first = await executable.countClipped();
    const { layer, clipped } = first.layers[0]!;
    expect(layer).toMatch(/^encoder\.block\.0\.layer\.1\.DenseReluDense\./);
    expect(clipped).toBeGreaterThanOrEqual(beyond);
    expect(clipped).toBeLessThanOrEqual(near);
    // What a run leaves in memory is not counted by the next one.
    expect(await executable.countClipped()).toEqual(first);
    expect(first.layers.every(({ layer }) => layer.includes('DenseReluDense'))).toBe(true);
  });

  it('are found in weights', async () => {
    await using executable = await encoder({ wi_1: 2 ** 22 }, 'auto');
    const { layers } = await executable.countClipped();
    const weights = layers.filter(({ kind }) => kind === 'weight');
    expect(weights.map(({ layer }) => layer)).toContain('encoder.block.0.layer.1.DenseReluDense.wi_1.weight');
    expect(weights.every(({ layer }) => layer.endsWith('wi_1.weight'))).toBe(true);
  });

  it('are printed after a run with KONTEXT_DEBUG=clipped, layers of a kind together', async () => {
    const print = vi.spyOn(console, 'error').mockImplementation(() => {});
    vi.stubGlobal('KONTEXT_DEBUG', 'clipped');
    try {
      await using executable = await encoder(LARGE, 'auto');
      await executable.run();
      const text = print.mock.calls.flat().join('\n');
      expect(text).toMatch(/^t5 .*values in f16, clipped at ±65504:$/m);
      expect(text).toMatch(
        /^ {2}\d+ clipped in matmul encoder\.block\.\*\.layer\.\*\.DenseReluDense\.gated .*\(\d+, first /m,
      );
    } finally {
      vi.unstubAllGlobals();
      print.mockRestore();
    }
  });
});

it('says so when nothing was clipped', () => {
  expect(describeClipped('vae', { looked: 8, layers: [] })).toBe('vae: 8 values in f16, none clipped');
});
