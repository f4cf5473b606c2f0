// FLUX.1 Canny and Depth: checkpoints whose first layer also takes the latents of a control picture. None of their size is here, so one is
// made of the reference pipeline's by widening that layer, with weights for which the plain model says what must come out.
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { openDevice } from '../../runtime/src/index.ts';
import { TorchGenerator } from '../../sdk/src/host/random.ts';
import { decodeImage } from '../../sdk/src/image/node.ts';
import { LATENT_CHANNELS, pack } from '../../sdk/src/kontext/latents.ts';
import type { PipelineContext } from '../../sdk/src/kontext/pipeline.ts';
import { ProgressTracker } from '../../sdk/src/kontext/progress.ts';
import { encodeSampled, fitted } from '../../sdk/src/kontext/references.ts';
import { pixelNoise } from '../../sdk/src/kontext/stages/control.ts';
import { openModel } from '../../sdk/src/model/open.ts';
import { Kontext } from '../../sdk/src/node.ts';
import { pipelineContext, runRequest, worstDifference } from '../support/pipeline-context.ts';
import { pipelineFile, writePipelineModel } from '../support/pipeline-model.ts';

const TIMEOUT = 600_000;
const gpu = await openDevice();
const folder = mkdtempSync(join(tmpdir(), 'kontext-control-'));
afterAll(() => {
  expect(gpu.uncapturedErrors).toEqual([]);
  gpu.destroy();
  rmSync(folder, { recursive: true });
});

/** The pipeline's model with a first layer `[W | copies ? W : 0]` of 128 inputs. @returns its folder */
function widened(copies: boolean): string {
  const model = join(folder, copies ? 'twice' : 'ignoring');
  writePipelineModel(model);
  const path = join(model, 'transformer/diffusion_pytorch_model.safetensors');
  const file = readFileSync(path);
  const start = 8 + Number(file.readBigUInt64LE(0));
  const header = JSON.parse(file.toString('utf8', 8, start));
  const bodies: Buffer[] = [];
  let at = 0;
  for (const [name, entry] of Object.entries<{ shape: number[]; data_offsets: number[] }>(header)) {
    if (name === '__metadata__') continue;
    let bytes: Buffer = file.subarray(start + entry.data_offsets[0]!, start + entry.data_offsets[1]!);
    if (name === 'x_embedder.weight') {
      const row = 64 * 2;
      const rows = Array.from({ length: bytes.length / row }, (_, i) => bytes.subarray(i * row, (i + 1) * row));
      bytes = Buffer.concat(rows.flatMap((half) => [half, copies ? half : Buffer.alloc(row)]));
      entry.shape = [rows.length, 128];
    }
    entry.data_offsets = [at, at + bytes.length];
    at += bytes.length;
    bodies.push(bytes);
  }
  const json = Buffer.from(JSON.stringify(header));
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(json.length));
  writeFileSync(path, Buffer.concat([length, json, ...bodies]));
  const config = join(model, 'transformer/config.json');
  const facts = JSON.parse(readFileSync(config, 'utf8'));
  writeFileSync(config, JSON.stringify({ ...facts, in_channels: 128, out_channels: 64 }));
  return model;
}

async function on<T>(path: string, task: (context: PipelineContext) => Promise<T>): Promise<T> {
  const model = await openModel(path);
  const context = await pipelineContext(gpu, model);
  try {
    return await task(context);
  } finally {
    for (const part of ['transformer', 'vae', 'clip', 't5'] as const) await context.parts.release(part);
    await model.close();
  }
}

const size = { width: 64, height: 48 };
const seed = 11;
const request = { prompt: 'a stone arch', size, steps: 1, guidance: 10, maxSequenceLength: 24, seed };
const control = await decodeImage(pipelineFile('input_2.png'));

describe('a control picture', { timeout: TIMEOUT }, () => {
  it('is encoded as the reference draws it, and stands behind the latents of each token', async () => {
    const plain = join(folder, 'plain');
    writePipelineModel(plain);
    const twice = await on(widened(true), (context) => runRequest(context, { ...request, control } as never));
    // W·x + W·c is W·(x + c): the plain model from x + c makes the same velocity, and one step goes x − v.
    const { expected, seen } = await on(plain, async (context) => {
      const work = { signal: new AbortController().signal, tracker: new ProgressTracker(undefined), loadMs: 0 };
      const generator = TorchGenerator.create(context.host, BigInt(seed));
      // The posterior's noise first, then the latents', as FluxControlPipeline draws them.
      const normals = () => generator.randn([LATENT_CHANNELS, size.height / 8, size.width / 8]);
      const drawn = pixelNoise(normals(), size);
      const noise = pack(normals(), size);
      generator.dispose();
      const picture = await fitted(context.host, control, size);
      const seen = await encodeSampled(context.parts, { picture }, size, drawn, work);
      const latents = noise.map((x, i) => x + seen[i]!);
      const result = await runRequest(context, { ...request, latents });
      return { expected: result.latents[0]!.map((x, i) => x - seen[i]!), seen };
    });
    expect(Math.max(...seen.map(Math.abs))).toBeGreaterThan(0.5);
    expect(worstDifference(twice.latents[0]!, expected)).toBeLessThan(1e-3);
  });

  it('changes nothing where its weights are 0, and is asked for by name', async () => {
    await using kontext = await Kontext.load(widened(false), { precision: 'f32' });
    const run = async (picture: typeof control) => (await kontext.generate({ ...request, control: picture })).image;
    const flat = { ...control, data: control.data.map((_, i) => (i % 4 === 3 ? 255 : 90)) };
    expect(await run(flat)).toEqual(await run(control));
    await expect(kontext.generate(request)).rejects.toThrow(/Canny or Depth: it follows a control picture/);
    await expect(kontext.edit({ ...request, image: control, control })).rejects.toThrow(/Call generate\(\)/);
  });
});
