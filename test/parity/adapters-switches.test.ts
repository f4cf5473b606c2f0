// A hundred switches between adapters and a hundred changes of strength: GPU memory as after the first, nothing loaded, no kernel compiled.
// Buffers and shaders are counted at the device, so that nothing the engine fails to account for is missed.
import { readFileSync } from 'node:fs';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { AdapterOptions } from '../../sdk/src/kontext/types.ts';
import { Kontext } from '../../sdk/src/node.ts';
import { adapterFile } from '../support/adapters.ts';
import { caughtGpu } from '../support/caught-gpu.ts';
import { countedFiles } from '../support/counted-files.ts';
import { rawTensors, renamedTensors, safetensors } from '../support/model-files.ts';
import { pipelineFile, pipelineModel } from '../support/pipeline-model.ts';
import { type Watched, watchDevice } from '../support/watched-device.ts';

const TIMEOUT = 600_000;
const whole = readFileSync(adapterFile('formats/pipeline_kohya.safetensors'));
/** Of other layers each: another room, and another program. */
const partOf = (prefix: string) =>
  safetensors(renamedTensors(rawTensors(whole), (name) => (name.startsWith(prefix) ? name : undefined)));
const request = {
  image: pipelineFile('input_1.png'),
  prompt: 'a glass fish on a windowsill',
  steps: 1,
  seed: 5,
  size: { width: 64, height: 48 },
  maxArea: 3072,
  autoResize: false,
  maxSequenceLength: 32,
  output: 'latents',
} as const;

/** Bytes read of the model's files. */
let read = 0;
const counted = () =>
  countedFiles(
    pipelineModel(),
    (name) => name.endsWith('.safetensors'),
    (bytes) => {
      read += bytes;
    },
  );

let kontext: Kontext;
let watched: Watched;
beforeAll(async () => {
  const { gpu, device } = caughtGpu();
  const adapters = [
    { name: 'double', source: partOf('lora_unet_double_blocks_0_img_attn') },
    { name: 'single', source: partOf('lora_unet_single_blocks_0_linear') },
  ];
  // A busy machine compiles kernels for minutes.
  kontext = await Kontext.load(counted(), {
    precision: 'f32',
    memory: 'resident',
    device: { gpu, hangMs: 1_500_000 },
    adapters,
  });
  watched = watchDevice(device()!);
}, TIMEOUT);
afterAll(() => kontext.close());

const run = async (adapters: AdapterOptions[]) => {
  const { latents, memory } = await kontext.edit({ ...request, adapters });
  const { weightBytes, adapterBytes, activationBytes } = memory;
  return { latents: latents[0]!, use: { ...watched.live(), weightBytes, adapterBytes, activationBytes } };
};

describe('adapters changed again and again', { timeout: TIMEOUT }, () => {
  it.each<[string, number, AdapterOptions[][]]>([
    ['between two of the load', 100, [[{ name: 'double', scale: 0.8 }], [{ name: 'single', scale: 0.8 }]]],
    ['between one of the request, opened again each time, and none', 20, [[{ source: whole, scale: 0.8 }], []]],
  ])('%s, %d times: memory stays, and so do the results', async (_, switches, kinds) => {
    const first = [await run(kinds[0]!), await run(kinds[1]!), await run(kinds[0]!), await run(kinds[1]!)].slice(2);
    expect(first[0]!.latents).not.toEqual(first[1]!.latents);
    expect(first[0]!.use.adapterBytes).not.toBe(first[1]!.use.adapterBytes);
    const [bytes, shaders] = [read, watched.shaders()];
    for (let i = 0; i < switches; i++) {
      const { latents, use } = await run(kinds[i % 2]!);
      expect(use, `switch ${i + 1}`).toEqual(first[i % 2]!.use);
      expect(latents).toEqual(first[i % 2]!.latents);
    }
    expect(read).toBe(bytes);
    expect(watched.shaders()).toBe(shaders);
  });

  it('strengths: nothing is read, compiled or allocated', async () => {
    const at = (scale: number) => [{ name: 'single', scale }];
    const first = await run(at(0.8));
    const [bytes, shaders] = [read, watched.shaders()];
    for (let i = 1; i <= 100; i++) {
      const { use, latents } = await run(at(i / 100 - 0.5 || 1));
      expect(use, `change ${i}`).toEqual(first.use);
      expect(latents).not.toEqual(first.latents);
    }
    expect((await run(at(0.8))).latents).toEqual(first.latents);
    expect(read).toBe(bytes);
    expect(watched.shaders()).toBe(shaders);
  });
});
