// T5's gated products beyond f16's range: weights scaled so that f32 computes the same, and f16 must as well.
// The published encoder has such products, and a clipped one would only show as a worse picture.
import { afterAll, expect, it } from 'vitest';
import { type CompileRequest, compile } from '../../kernels-codegen/src/compile.ts';
import { targetFor } from '../../kernels-codegen/src/targets/profiles.ts';
import { bflNaming, Executable, openDevice, WeightStore } from '../../runtime/src/index.ts';
import { relativeError } from '../bench/timed-kernel.ts';
import { fixturePath } from '../support/cases.ts';
import { t5Cases } from '../support/cases-text.ts';
import { floatTensor, readSafetensors } from '../support/safetensors.ts';
import { f32Tensor, memorySource } from '../support/weights.ts';

const gpu = await openDevice();
afterAll(() => gpu.destroy());

const smallest = t5Cases('t5-padded').reduce((a, b) =>
  b.inputs.embeddings!.length < a.inputs.embeddings!.length ? b : a,
);

/** The encoder's output with `wi_1` times `factor` and `wo` divided by it; f16 where the adapter has it. */
async function hidden(factor: number): Promise<Float32Array> {
  const stored = readSafetensors(fixturePath(`${smallest.fixture}/weights.safetensors`));
  const tensors = Object.fromEntries(
    [...stored.keys()].map((name) => {
      const values = floatTensor(stored, name);
      const by = name.endsWith('wi_1.weight') ? factor : name.endsWith('wo.weight') ? 1 / factor : 1;
      return [name, f32Tensor(stored.get(name)!.shape, (i) => values[i]! * by)];
    }),
  );
  const store = new WeightStore(gpu, bflNaming(await memorySource(tensors)));
  const program = compile({ ...smallest.request, target: targetFor(gpu.report) } as CompileRequest);
  const exe = await Executable.create(gpu, program, { weights: store });
  exe.write('embeddings', smallest.inputs.embeddings!);
  await exe.run();
  const result = (await exe.read('hidden', 'f32')) as Float32Array;
  exe.dispose();
  return result;
}

// Without room for them the result is 0.11 off.
it('keeps products above 65504', { timeout: 300_000 }, async () => {
  const plain = await hidden(1);
  expect(relativeError(await hidden(2 ** 14), plain)).toBeLessThan(3e-3);
});
