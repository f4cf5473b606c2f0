// A weight so large that sums overflow: the error names the network, the step and the layer in which numbers stopped being finite.
// (Weights that are NaN or infinite themselves never come so far: damaged-weights.test.ts.)
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type KontextDevice, openDevice } from '../../runtime/src/index.ts';
import type { ByteSource } from '../../runtime/src/weights/byte-source.ts';
import type { Work } from '../../sdk/src/kontext/parts.ts';
import { ProgressTracker } from '../../sdk/src/kontext/progress.ts';
import { decodeTiled, encodeTiled } from '../../sdk/src/kontext/tiling.ts';
import type { RequestOptions } from '../../sdk/src/kontext/types.ts';
import type { ModelFiles } from '../../sdk/src/model/files.ts';
import { openModel } from '../../sdk/src/model/open.ts';
import { pipelineContext, runRequest } from '../support/pipeline-context.ts';
import { pipelineModel } from '../support/pipeline-model.ts';

let gpu: KontextDevice;
beforeAll(async () => {
  gpu = await openDevice();
});
afterAll(() => {
  expect(gpu.uncapturedErrors).toEqual([]);
  gpu.destroy();
});

/** The tiny model with the first 64 values of a tensor at bfloat16's largest. */
function overflowing(folder: string, tensor: string): ModelFiles {
  const files = pipelineModel();
  const changed = async (source: ByteSource): Promise<ByteSource> => {
    const bytes = new Uint8Array(await source.read(0, source.size));
    const length = Number(new DataView(bytes.buffer, bytes.byteOffset).getBigUint64(0, true));
    const header = JSON.parse(new TextDecoder().decode(bytes.subarray(8, 8 + length)));
    const at = 8 + length + header[tensor].data_offsets[0];
    for (let i = 0; i < 128; i += 2) bytes.set([0x7f, 0x7f], at + i);
    return {
      name: source.name,
      size: source.size,
      read: async (start, end) => bytes.slice(start, end),
      close: () => source.close(),
    };
  };
  return {
    ...files,
    open: async (name, signal) => {
      const source = await files.open(name, signal);
      return source && name.startsWith(`${folder}/`) && name.endsWith('.safetensors') ? changed(source) : source;
    },
  };
}

const image = { width: 64, height: 64, data: new Uint8ClampedArray(64 * 64 * 4).map((_, i) => (i * 37) % 251) };
async function failure(folder: string, tensor: string, options: Partial<RequestOptions> = {}) {
  const model = await openModel(overflowing(folder, tensor));
  const context = await pipelineContext(gpu, model);
  const request = { image, prompt: 'grey', steps: 2, seed: 1, maxSequenceLength: 24, autoResize: false, size: 'input' };
  const error = await runRequest(context, { ...request, output: 'latents', ...options } as never).then(
    () => undefined,
    (error: unknown) => error,
  );
  for (const part of ['clip', 't5', 'transformer', 'vae'] as const) await context.parts.release(part);
  await model.close();
  return error;
}

const TRANSFORMER = 'the transformer';
describe('numbers that stop being finite', { timeout: 600_000 }, () => {
  it.each<[string, string, { part: string; layer: RegExp; kind?: string; step?: number }, Partial<RequestOptions>?]>([
    [
      'text_encoder_2',
      'encoder.block.1.layer.1.DenseReluDense.wo.weight',
      { part: 'the text encoder T5', layer: /^encoder\.block\.1$/, kind: 'matmul' },
    ],
    [
      'text_encoder',
      'text_model.encoder.layers.1.mlp.fc1.weight',
      { part: 'the text encoder CLIP', layer: /^text_model\.encoder\.layers\.1/, kind: 'matmul' },
    ],
    [
      'vae',
      'encoder.mid_block.resnets.0.conv1.weight',
      { part: 'the autoencoder’s encoder', layer: /^encoder\.mid\.block_1\./, kind: 'conv2d' },
    ],
    [
      'transformer',
      'transformer_blocks.0.norm1.linear.weight',
      { part: TRANSFORMER, layer: /^double_blocks\.0\.img_mod\.lin/, kind: 'matmul', step: 1 },
    ],
    [
      'transformer',
      'transformer_blocks.0.ff.net.2.weight',
      { part: TRANSFORMER, layer: /^double_blocks\.0\.img$/, kind: 'matmul', step: 1 },
    ],
    [
      'transformer',
      'single_transformer_blocks.1.proj_mlp.weight',
      { part: TRANSFORMER, layer: /^single_blocks\.1/, kind: 'matmul', step: 1 },
    ],
    [
      'transformer',
      'single_transformer_blocks.1.proj_mlp.weight',
      { part: TRANSFORMER, layer: /^single_blocks\.1/, kind: 'matmul', step: 1 },
      { cache: { kind: 'first-block' }, negativePrompt: 'x', trueCfgScale: 2 },
    ],
    [
      'transformer',
      'transformer_blocks.0.ff.net.2.weight',
      { part: TRANSFORMER, layer: /^double_blocks\.0\.img$/, kind: 'matmul', step: 1 },
      { cache: { kind: 'first-block' } },
    ],
    [
      'vae',
      'decoder.mid_block.resnets.0.conv1.weight',
      { part: 'the autoencoder’s decoder', layer: /^decoder\.mid\.block_1\./, kind: 'conv2d' },
      { output: 'image' } as never,
    ],
  ])('%s: %s', async (folder, tensor, { layer, ...details }, options) => {
    const error = await failure(folder, tensor, options);
    expect(error).toMatchObject({ code: 'weights-invalid', details });
    const { message, details: told } = error as { message: string; details: { layer: string } };
    expect(told.layer).toMatch(layer);
    expect(message).toContain(`beginning with ${told.layer}`);
    expect(gpu.memory.bytes).toBeLessThan(1e6);
  });

  it.each([
    ['encoder', 'encoder.mid_block.resnets.0.conv1.weight', /^encoder\.mid\.block_1\./],
    ['decoder', 'decoder.mid_block.resnets.0.conv1.weight', /^decoder\.mid\.block_1\./],
  ] as const)('in a tile of the autoencoder: %s', async (network, tensor, layer) => {
    const model = await openModel(overflowing('vae', tensor));
    const { parts } = await pipelineContext(gpu, model);
    const work: Work = { signal: new AbortController().signal, tracker: new ProgressTracker(() => {}), loadMs: 0 };
    const tiling = { tile: 48, overlap: 16 };
    const latents = new Float32Array(4 * 4 * 64).map((_, i) => Math.sin(i));
    const running =
      network === 'encoder'
        ? encodeTiled(parts, image, tiling, work)
        : decodeTiled(parts, latents, { width: 64, height: 64 }, tiling, work);
    const error = await running.then(
      () => undefined,
      (error: unknown) => error,
    );
    await parts.release('vae');
    await model.close();
    expect(error).toMatchObject({
      code: 'weights-invalid',
      message: expect.stringContaining('in the tile at 0, 0, beginning with'),
      details: { part: `the autoencoder’s ${network}`, layer: expect.stringMatching(layer), kind: 'conv2d' },
    });
    expect(gpu.memory.bytes).toBeLessThan(1e6);
  });
});
