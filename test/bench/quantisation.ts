// What block quantisation loses: `npm run bench:quantisation` compares quantisers on three kinds of weights, and `-- --kinds` tells which
// kinds of the demo model's matrices cost its edits most, each alone in q4.

import { readBuffer } from '../../runtime/src/execute/ports.ts';
import { openDevice } from '../../runtime/src/index.ts';
import {
  columnsUnit,
  NIBBLE_LEVELS,
  storedBits,
  storedLayout,
  type WeightFormat,
} from '../../runtime/src/program/formats.ts';
import { WeightStore } from '../../runtime/src/weights/store.ts';
import { fromRgb } from '../../sdk/src/image/pixels.ts';
import { type Model, openModel } from '../../sdk/src/model/open.ts';
import { demoModel, type PixelImage } from '../../sdk/src/node.ts';
import { EDIT_KINDS, render, SCENE_SIZE, sampleEdit, seededRandom } from '../quality/scenes.ts';
import { pipelineContext, runRequest } from '../support/pipeline-context.ts';
import { absmaxQ4, levelsQ4, minimumQ4K, type Quantiser, relativeError, searchedQ4 } from '../support/quantisers.ts';
import { storedValues } from '../support/stored.ts';
import { f32Tensor, memorySource } from '../support/weights.ts';

const random = seededRandom(20261125);
const gpu = await openDevice();
const model = await openModel(demoModel());
console.log(gpu.report.description || gpu.report.device);
try {
  await (process.argv.includes('--kinds') ? kinds() : quantisers());
} finally {
  await model.close();
  gpu.destroy();
}
process.exit(0);

async function quantisers(): Promise<void> {
  const normal = () => Math.sqrt(-2 * Math.log(1 - random())) * Math.cos(2 * Math.PI * random());
  const heavy = () => normal() / Math.sqrt((normal() ** 2 + normal() ** 2 + normal() ** 2 + normal() ** 2) / 4);
  const count = 2 ** 17;
  const sets = {
    normal: Float64Array.from({ length: count }, normal),
    'heavy-tailed (Student’s t, 4)': Float64Array.from({ length: count }, heavy),
    'demo transformer': await demoWeights(2 ** 19),
  };
  const all: [string, number, number, Quantiser][] = [
    ['Q4_0 (absmax)', 4.5, 32, absmaxQ4],
    ['q4, in float64', 4.5, 32, searchedQ4],
    ['IQ4_NL’s levels, searched', 4.5, 32, levelsQ4(NIBBLE_LEVELS)],
    ['Q4_K’s kind (scale and minimum, searched)', 4.625, 256, minimumQ4K],
  ];
  console.log(`\n| quantiser | bits | ${Object.keys(sets).join(' | ')} |\n| --- | --- |${' --- |'.repeat(3)}`);
  const row = (name: string, bits: number, errors: number[]) =>
    console.log(`| ${name} | ${bits} | ${errors.map((error) => `${(100 * error).toFixed(2)} %`).join(' | ')} |`);
  for (const [name, bits, size, quantise] of all) {
    row(
      name,
      bits,
      Object.values(sets).map((values) => relativeError(values, size, quantise)),
    );
  }
  for (const format of ['q4', 'q8'] as const) {
    const errors: number[] = [];
    for (const values of Object.values(sets)) errors.push(await onGpu(values, format));
    row(`${format}, as the GPU stores it`, storedBits(format), errors);
  }
}

/** Matrices of the blocks, `count` elements of them. */
async function demoWeights(count: number): Promise<Float64Array> {
  const { weights } = model.parts.transformer;
  const out = new Float64Array(count);
  let at = 0;
  for (const [name, { type, shape, bytes }] of weights.tensors) {
    if (at >= count || shape.length !== 2 || shape[1]! % 32 !== 0 || !type || type.reader.kind !== 'element') continue;
    const values = type.reader.decode(await weights.read(name, 0, bytes));
    out.set(values.subarray(0, count - at), at);
    at += values.length;
  }
  return out.subarray(0, Math.min(at, count));
}

/** Relative error of what the transcode kernel makes. */
async function onGpu(values: Float64Array, format: WeightFormat): Promise<number> {
  const shape: [number, number] = [values.length / 256, 256];
  const store = new WeightStore(gpu, await memorySource({ w: f32Tensor(shape, (i) => values[i]!) }));
  const { bytes } = storedLayout(format, ...shape);
  const request = { name: 'w', format, shape, layout: 'matrix', bytes } as const;
  const buffer = await store.get(request);
  const stored = await readBuffer(
    gpu,
    buffer,
    { name: 'w', direction: 'out', type: 'u32', shape: [bytes / 4], bytes },
    'bytes',
  );
  store.release(request, { free: true });
  await store.evict();
  const decoded = storedValues(format, ...shape, stored);
  let [left, all] = [0, 0];
  for (const [i, value] of values.entries()) {
    left += (value - decoded[i]!) ** 2;
    all += value ** 2;
  }
  return Math.sqrt(left / all);
}

async function kinds(): Promise<void> {
  const KINDS: Record<string, RegExp> = {
    'picture attention, qkv': /double.*img_attn\.qkv/,
    'text attention, qkv': /double.*txt_attn\.qkv/,
    'picture attention, out': /double.*img_attn\.proj/,
    'text attention, out': /double.*txt_attn\.proj/,
    'picture MLP, in': /double.*img_mlp\.0/,
    'text MLP, in': /double.*txt_mlp\.0/,
    'picture MLP, out': /double.*img_mlp\.2/,
    'text MLP, out': /double.*txt_mlp\.2/,
    'single blocks, qkv and MLP in': /single.*linear1/,
    'single blocks, attention and MLP out': /single.*linear2/,
    modulation: /_mod\.lin|modulation\.lin|adaLN/,
    embedders: /^(img|txt|time|vector)_in/,
    'last layer': /^final_layer\.linear/,
    'first block': /double_blocks\.0\./,
    'last block': /single_blocks\.3\./,
    everything: /./,
  };
  const requests = Array.from({ length: 6 }, (_, i) => sampleEdit(random, EDIT_KINDS[i % EDIT_KINDS.length]!)).map(
    ({ context, prompt }, seed) => ({
      prompt,
      seed,
      steps: 6,
      ...(context && { image: fromRgb(render(context), SCENE_SIZE, SCENE_SIZE) as PixelImage }),
    }),
  );
  const latentsOf = async (stored: Record<string, WeightFormat>) => {
    const { transformer } = model.parts;
    const changed: Model = { ...model, parts: { ...model.parts, transformer: { ...transformer, stored } } };
    const context = await pipelineContext(gpu, changed, 'f16');
    const results: Float32Array[] = [];
    for (const request of requests) results.push((await runRequest(context, request as never)).latents[0]!);
    return results;
  };
  const matrices = [...model.parts.transformer.weights.tensors].filter(
    ([name, { shape }]) => shape.length === 2 && name.endsWith('.weight') && shape[1]! % columnsUnit('q4') === 0,
  );
  const total = matrices.reduce((sum, [, { shape }]) => sum + shape[0]! * shape[1]!, 0);
  const exact = await latentsOf({});
  console.log(
    '\n| in q4 | share of the weights | relative L2 of the latents | squared, per share |\n| --- | --- | --- | --- |',
  );
  for (const [kind, pattern] of Object.entries(KINDS)) {
    const mine = matrices.filter(([name]) => pattern.test(name));
    const results = await latentsOf(Object.fromEntries(mine.map(([name]) => [name, 'q4' as const])));
    let [left, all] = [0, 0];
    for (const [i, latents] of results.entries()) {
      for (const [k, value] of latents.entries()) {
        left += (value - exact[i]![k]!) ** 2;
        all += exact[i]![k]! ** 2;
      }
    }
    const share = mine.reduce((sum, [, { shape }]) => sum + shape[0]! * shape[1]!, 0) / total;
    console.log(
      `| ${kind} | ${(100 * share).toFixed(1)} % | ${Math.sqrt(left / all).toFixed(4)} | ${((1e4 * left) / all / share).toFixed(2)} |`,
    );
  }
}
