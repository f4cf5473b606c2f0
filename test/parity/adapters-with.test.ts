// Adapters together with everything else of a request: masks, step caches, negative prompts, references, sessions.
// The same change as factors beside the layers and as differences in the weights: two ways that share neither programs nor weights.
import { readFileSync } from 'node:fs';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { EditRequest } from '../../sdk/src/kontext/types.ts';
import { Kontext } from '../../sdk/src/node.ts';
import { seededRandom } from '../quality/scenes.ts';
import { adapterFile } from '../support/adapters.ts';
import { drawnPicture } from '../support/drawn-picture.ts';
import { type RawTensors, rawTensors, renamedTensors, safetensors } from '../support/model-files.ts';
import { worstDifference } from '../support/pipeline-context.ts';
import { pipelineFile, pipelineModel } from '../support/pipeline-model.ts';
import { floatTensor, readSafetensors } from '../support/safetensors.ts';

const TIMEOUT = 600_000;
const file = adapterFile('formats/pipeline_kohya.safetensors');
const [WIDTH, HEIGHT] = [64, 48];
const picture = (at: (x: number, y: number) => number) => drawnPicture(WIDTH, HEIGHT, at);
const random = seededRandom(4);
const image = picture(() => random() * 256);
const mask = picture((x) => (x >= 32 ? 255 : 0));
const request = {
  image,
  prompt: 'a glass fish on a windowsill',
  steps: 4,
  seed: 5,
  size: { width: WIDTH, height: HEIGHT },
  maxArea: WIDTH * HEIGHT,
  autoResize: false,
  maxSequenceLength: 32,
  output: 'latents',
} as const;

const inTransformer = (name: string): string | undefined => (name.startsWith('lora_unet') ? name : undefined);
const factors = safetensors(renamedTensors(rawTensors(readFileSync(file)), inTransformer));

/** ΔW of every module, computed here, as differences. */
function differences(): Uint8Array<ArrayBuffer> {
  const read = readSafetensors(file);
  const all: RawTensors = new Map();
  for (const name of read.keys()) {
    if (!name.startsWith('lora_unet') || !name.endsWith('.lora_up.weight')) continue;
    const stem = name.replace('.lora_up.weight', '');
    const [up, down] = [floatTensor(read, name), floatTensor(read, `${stem}.lora_down.weight`)];
    const [rows, rank] = read.get(name)!.shape as [number, number];
    const cols = down.length / rank;
    const factor = floatTensor(read, `${stem}.alpha`)[0]! / rank;
    const delta = Float32Array.from({ length: rows * cols }, (_, i) => {
      let sum = 0;
      for (let r = 0; r < rank; r++) sum += up[Math.floor(i / cols) * rank + r]! * down[r * cols + (i % cols)]!;
      return factor * sum;
    });
    all.set(`${stem}.diff`, { dtype: 'F32', shape: [rows, cols], data: new Uint8Array(delta.buffer) });
  }
  return safetensors(all);
}

const CASES: [name: string, options: Partial<EditRequest>][] = [
  ['a first-block cache', { cache: { kind: 'first-block', threshold: 0.8 } }],
  ['a Taylor cache of every block', { cache: { kind: 'taylor', interval: 2, start: 1, lite: false } }],
  ['a region cache', { mask, maskMode: 'reference', cache: { kind: 'region', interval: 2, start: 1, margin: 0 } }],
  ['a mask, and a strength', { mask, strength: 0.6 }],
  ['a negative prompt', { negativePrompt: 'blurry', trueCfgScale: 2 }],
  ['a negative prompt in the attention', { negativePrompt: 'blurry', nagScale: 3 }],
  ['a second picture', { references: [pipelineFile('input_1.png')] }],
];

let kontext: Kontext;
beforeAll(async () => {
  kontext = await Kontext.load(pipelineModel(), {
    precision: 'f32',
    memory: 'resident',
    adapters: [
      { name: 'beside', source: factors },
      { name: 'within', source: differences() },
    ],
    // A busy machine compiles kernels for minutes.
    device: { hangMs: 1_500_000 },
  });
}, TIMEOUT);
afterAll(() => kontext.close());

describe('adapters together with', { timeout: TIMEOUT }, () => {
  it.each(CASES)('%s', async (_, options) => {
    const run = (name: string, scale: number) =>
      kontext.edit({ ...request, ...options, adapters: name === '' ? [] : [{ name, scale }] });
    const none = await run('', 1);
    const within = await run('within', 0.8);
    const beside = await run('beside', 0.8);
    const size = beside.latents[0]!.reduce((most, v) => Math.max(most, Math.abs(v)), 0);
    expect(worstDifference(beside.latents[0]!, none.latents[0]!) / size).toBeGreaterThan(1e-2);
    expect(worstDifference(beside.latents[0]!, within.latents[0]!) / size).toBeLessThan(1e-4);
    expect(beside.skipped).toBe(within.skipped);
    if (options.cache) expect(beside.skipped).toBeGreaterThan(0);
    expect((await run('beside', 0)).latents).toEqual(none.latents);
  });

  it('a session, its text and its second run', async () => {
    const { image: _, prompt, output: __, ...options } = { ...request, steps: 1 };
    const session = kontext.session(image);
    await session.edit(prompt, { ...options, adapters: [{ name: 'beside', scale: 0.5 }] });
    await session.edit('a wooden fish', { ...options, adapters: [{ source: file, scale: 1 }] });
    session.undo();
    await session.edit(prompt, { ...options, adapters: [] });
    const [half, other, none] = session.turns;
    expect([half!.resolved.adapters, other!.resolved.adapters, none!.resolved.adapters]).toEqual([
      [{ name: 'beside', scale: 0.5 }],
      [{ name: 'pipeline_kohya', scale: 1 }],
      undefined,
    ]);
    const replayed = await (await kontext.session(image).import(await session.export())).replay();
    expect(replayed.turns.map((turn) => turn.image.data)).toEqual(session.turns.map((turn) => turn.image.data));
    expect(half!.image.data).not.toEqual(none!.image.data);
  });
});
