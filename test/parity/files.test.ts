// Files as people have them, through the reader, the naming and the formats that hold them, against the reference's results.
import { cpSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { type CompileRequest, compile } from '../../kernels-codegen/src/compile.ts';
import { fluxSpecFromShapes, t5SpecFromShapes } from '../../kernels-codegen/src/models/specs.ts';
import { targetFor } from '../../kernels-codegen/src/targets/profiles.ts';
import { Executable, fileBytes, openDevice, WeightStore } from '../../runtime/src/index.ts';
import type { WeightSource } from '../../runtime/src/weights/source.ts';
import { heldFormats } from '../../sdk/src/model/formats.ts';
import type { BflFiles, PartName } from '../../sdk/src/model/open.ts';
import { openWeightsFile, partOfFile } from '../../sdk/src/model/weights-file.ts';
import { Kontext, KontextError, type LoadOptions } from '../../sdk/src/node.ts';
import { errorOf, fixtureMeta, fixturePath } from '../support/cases.ts';
import { pipelineFile } from '../support/pipeline-model.ts';
import { embedded, rotary } from '../support/plain-conditioning.ts';
import { psnr } from '../support/psnr.ts';
import { floatTensor, readSafetensors, type TestTensor } from '../support/safetensors.ts';

const gpu = await openDevice();
const folders: string[] = [];
afterAll(() => {
  expect(gpu.uncapturedErrors).toEqual([]);
  gpu.destroy();
  for (const folder of folders) rmSync(folder, { recursive: true, force: true });
});

const path = (name: string) => fixturePath(name).pathname;

async function partOf(file: string, part: PartName): Promise<WeightSource> {
  return partOfFile(await openWeightsFile(await fileBytes(path(file))), part);
}

async function run(
  request: CompileRequest,
  weights: WeightStore,
  inputs: Record<string, Float32Array>,
  output: string,
) {
  const exe = await Executable.create(gpu, compile(request), { weights });
  try {
    for (const [port, data] of Object.entries(inputs)) exe.write(port, data);
    await exe.run();
    return (await exe.read(output, 'f32')) as Float32Array;
  } finally {
    exe.dispose();
  }
}

/** The velocity that a transformer's file gives for a reference's inputs. */
async function velocity(file: string, io: Map<string, TestTensor>, axes: [number, number, number], formats: boolean) {
  const source = await partOf(file, 'transformer');
  const spec = { ...fluxSpecFromShapes((name) => source.tensors.get(name)?.shape), axes };
  const held = formats ? heldFormats(source) : undefined;
  const target = targetFor(gpu.report, 'f32');
  const store = new WeightStore(gpu, source);
  const input = (name: string) => floatTensor(io, `in.${name}`);
  const rest = { target, ...(held && { stored: held }) };
  const conditioning = {
    timesteps: embedded(input('timesteps')[0]!),
    pooled: input('y'),
    guidance: embedded(input('guidance')[0]!),
  };
  const modulation = await run({ component: 'modulation', spec, steps: 1, ...rest }, store, conditioning, 'modulation');
  // Target tokens first, then the reference picture's: told apart by the first position id.
  const ids = input('img_ids');
  const tokens = ids.length / 3;
  const own = Array.from({ length: tokens }, (_, i) => ids[3 * i]).filter((t) => t === 0).length;
  const image = input('img');
  const denoise = await run(
    {
      component: 'denoise',
      spec,
      textTokens: input('txt_ids').length / 3,
      image: { height: 1, width: own },
      references: tokens > own ? [{ height: 1, width: tokens - own }] : [],
      ...rest,
    },
    store,
    {
      latents: image.slice(0, own * 64),
      ...(tokens > own && { references: image.slice(own * 64) }),
      text: input('txt'),
      rope: rotary([...input('txt_ids'), ...ids], axes),
      modulation,
    },
    'velocity',
  );
  await source.close();
  return { velocity: denoise.subarray(0, own * 64), own, held: held ?? {} };
}

describe('transformers', { timeout: 300_000 }, () => {
  it('a GGUF of all fifteen types, held as it is', async () => {
    const io = readSafetensors(path('gguf-flux/io.safetensors'));
    const axes = fixtureMeta('gguf-flux').config.axes_dim;
    const { velocity: ours, held } = await velocity('gguf-flux/flux.gguf', io, axes, true);
    expect(new Set(Object.values(held)).size).toBeGreaterThanOrEqual(10);
    const wanted = floatTensor(io, 'out.output').slice(0, ours.length);
    expect(errorOf(ours, wanted).relative).toBeLessThan(2e-5);
    // The same dequantised: f32 in this tier.
    const plain = await velocity('gguf-flux/flux.gguf', io, axes, false);
    expect(errorOf(plain.velocity, wanted).relative).toBeLessThan(2e-5);
  });

  it.each(['flux_e4m3fn', 'flux_e5m2', 'flux_scaled_fp8', 'flux_comfy_quant', 'flux_quantization_metadata'])(
    '8-bit floats: %s',
    async (name) => {
      const io = readSafetensors(path('fp8/io.safetensors'));
      const { velocity: ours, held } = await velocity(
        `fp8/${name}.safetensors`,
        io,
        fixtureMeta('fp8').config.axes_dim,
        true,
      );
      expect(Object.values(held).every((format) => format === 'e4m3' || format === 'e5m2')).toBe(true);
      const wanted = floatTensor(io, `out.${name}`).slice(0, ours.length);
      expect(errorOf(ours, wanted).relative).toBeLessThan(2e-5);
    },
  );
});

describe('T5 encoders', { timeout: 300_000 }, () => {
  it.each([
    ['gguf-t5/t5.gguf', 'gguf-t5/io.safetensors'],
    ['fp8/t5_scaled_fp8.safetensors', 'fp8/t5_io.safetensors'],
  ])('%s', async (file, results) => {
    const io = readSafetensors(path(results));
    const source = await partOf(file, 't5');
    const spec = t5SpecFromShapes((name) => source.tensors.get(name)?.shape);
    const [, tokens] = io.get('in.input_ids')!.shape as [number, number];
    const ids = io.get('in.input_ids')!.data.subarray(0, tokens);
    const store = new WeightStore(gpu, source);
    const held = heldFormats(source)!;
    const request: CompileRequest = {
      component: 't5',
      spec,
      tokens,
      target: targetFor(gpu.report, 'f32'),
      stored: held,
    };
    const embeddings = await store.rows('shared.weight', ids);
    const ours = await run(request, store, { embeddings }, 'hidden');
    const wanted = floatTensor(io, 'out.last_hidden_state').slice(0, tokens * spec.width);
    expect(errorOf(ours.subarray(0, wanted.length), wanted).relative).toBeLessThan(2e-5);
    await source.close();
  });
});

const REQUEST = {
  image: pipelineFile('input_1.png'),
  prompt: 'Replace the red car with a blue bicycle.',
  steps: 4,
  guidance: 2.5,
  seed: 42,
  size: { width: 96, height: 64 },
  autoResize: false,
} as const;

/** A flat folder without tokenizers: the fixture's encoders, an autoencoder, and a transformer of a field case. */
function folderWith(weights: string, extra: Record<string, string> = {}): string {
  const folder = mkdtempSync(join(tmpdir(), 'files-'));
  folders.push(folder);
  for (const part of ['text_encoder', 'text_encoder_2']) {
    cpSync(pipelineFile(`model/${part}`), join(folder, part), { recursive: true });
  }
  cpSync(pipelineFile('model/vae/diffusion_pytorch_model.safetensors'), join(folder, 'ae.safetensors'));
  for (const name of readdirSync(path(weights))) {
    if (/\.(safetensors|gguf)$/.test(name) && !name.startsWith('expected'))
      cpSync(path(`${weights}/${name}`), join(folder, name));
  }
  for (const [name, from] of Object.entries(extra)) cpSync(path(from), join(folder, name));
  return folder;
}

async function edited(model: string | BflFiles, request: object = REQUEST, options: LoadOptions = {}) {
  await using kontext = await Kontext.load(model, { precision: 'f32', ...options });
  return await kontext.edit(request as typeof REQUEST);
}

function expectResult({ image, latents }: Awaited<ReturnType<typeof edited>>, from: string): void {
  const expected = readSafetensors(path(`${from}/expected.safetensors`));
  const wanted = floatTensor(expected, 'latents');
  const worst = latents[0]!.reduce((most, value, i) => Math.max(most, Math.abs(value - wanted[i]!)), 0);
  expect(worst).toBeLessThan(1e-3);
  const rgb = expected.get('image')!.data;
  const { width, height } = image;
  const data = Uint8ClampedArray.from({ length: width * height * 4 }, (_, i) =>
    i % 4 === 3 ? 255 : rgb[(i >> 2) * 3 + (i % 4)]!,
  );
  expect(psnr(image, { width, height, data })).toBeGreaterThan(55);
}

describe('whole edits', { timeout: 300_000 }, () => {
  it.each(['weights-gguf-q4_k', 'weights-fp8-scaled'])('%s, without tokenizer files', async (name) => {
    expectResult(await edited(folderWith(`field/${name}`)), `field/${name}`);
  });

  it.each([
    'lora-peft-metadata-alpha/pytorch_lora_weights',
    'lora-onetrainer/lora-onetrainer',
    'lora-diffusion-model-prefix/kontext_style',
    'loha-kohya-names/loha',
  ])('an adapter as people have it: %s, beside the layers and merged', async (file) => {
    const adapters = [{ source: path(`field/${file}.safetensors`) }];
    const folder = folderWith('field/base');
    const from = `field/${file.split('/')[0]}`;
    const beside = await edited(folder, REQUEST, { adapters });
    expectResult(beside, from);
    const merged = await edited(folder, REQUEST, { adapters, merge: true });
    expectResult(merged, from);
    expect(psnr(merged.image, beside.image)).toBeGreaterThan(55);
    // The adapter is what makes the difference.
    const wanted = floatTensor(readSafetensors(path('field/base/expected.safetensors')), 'latents');
    expect(Math.max(...beside.latents[0]!.map((value, i) => Math.abs(value - wanted[i]!)))).toBeGreaterThan(0.02);
  });

  it('a T5 encoder as GGUF beside the one in 16 bits', async () => {
    const folder = folderWith('field/base', {
      'text_encoder_2/model.gguf': 'field/t5-gguf/t5-v1_1-xxl-encoder-F16.gguf',
    });
    expectResult(await edited(folder), 'field/t5-gguf');
  });

  it('an all-in-one checkpoint, by its path, with configs for its widths', async () => {
    const meta = fixtureMeta('all-in-one');
    const { clip, t5, transformer } = meta.config;
    const pipeline = (part: string) => JSON.parse(readFileSync(pipelineFile(`model/${part}/config.json`), 'utf8'));
    const configs: BflFiles['configs'] = {
      clip: { ...pipeline('text_encoder'), num_attention_heads: clip.heads },
      t5: { ...pipeline('text_encoder_2'), num_heads: t5.heads, d_kv: t5.d_kv },
      transformer: { ...pipeline('transformer'), axes_dims_rope: transformer.axes_dims_rope },
    };
    const request = {
      image: pipelineFile('input_1.png'),
      prompt: meta.arguments.prompt,
      steps: 4,
      guidance: 2.5,
      seed: meta.arguments.seeds[0],
      size: { width: 64, height: 48 },
      autoResize: false,
    };
    const { latents, image } = await edited(
      { transformer: path('all-in-one/checkpoint.safetensors'), configs },
      request,
    );
    const io = readSafetensors(path('all-in-one/edit.safetensors'));
    const steps = floatTensor(io, 'mid.latents_after_step');
    const wanted = steps.subarray(steps.length - latents[0]!.length);
    const worst = latents[0]!.reduce((most, value, i) => Math.max(most, Math.abs(value - wanted[i]!)), 0);
    expect(worst).toBeLessThan(1e-3);
    expect(image.width).toBe(64);
  });

  it.each([
    ['weights-nf4', /flux1-kontext-dev-bnb-nf4\.safetensors is a model in bitsandbytes’ NF4/],
    ['weights-nvfp4', /is a model in nvfp4/],
    ['weights-svdquant', /is a model in SVDQuant’s format/],
    ['downloads', /lfs-pointer\.safetensors is a Git LFS pointer/],
  ])('%s is named at load', async (name, message) => {
    const started = performance.now();
    const error = await Kontext.load(folderWith(`field/${name}`)).catch((e: unknown) => e);
    expect(error).toBeInstanceOf(KontextError);
    expect(error).toMatchObject({ code: 'weights-invalid', message: expect.stringMatching(message) });
    expect(performance.now() - started).toBeLessThan(20_000);
  });

  it('of several FLUX files the one named for Kontext is taken', async () => {
    const folder = folderWith('field/base', {
      'flux1-dev.safetensors': 'field/weights-fp8-scaled/flux1-dev-kontext_fp8_scaled.safetensors',
    });
    expectResult(await edited(folder), 'field/base');
    cpSync(join(folder, 'flux1-dev.safetensors'), join(folder, 'another-kontext.safetensors'));
    await expect(Kontext.load(folder)).rejects.toThrow(
      /3 files that could be the transformer: another-kontext.safetensors, flux1-dev.safetensors, flux1-kontext/,
    );
  });

  it('swapped encoders, a LoRA as model, a web page, a pickle', async () => {
    const folder = folderWith('field/base');
    const file = (name: string) => join(folder, name);
    const good = {
      transformer: file('flux1-kontext-dev.safetensors'),
      vae: file('ae.safetensors'),
      clip: file('text_encoder/model.safetensors'),
      t5: file('text_encoder_2/model.safetensors'),
    };
    await expect(Kontext.load({ ...good, clip: good.t5, t5: good.clip })).rejects.toThrow(
      /text_encoder_2\/model\.safetensors is a T5 encoder\. What is needed as the CLIP text encoder/,
    );
    const { t5: _, ...without } = good;
    await expect(Kontext.load(without)).rejects.toThrow(/needs its T5 text encoder: give t5/);
    writeFileSync(file('page.safetensors'), '<!DOCTYPE html><html><body>Sign in</body></html>');
    await expect(Kontext.load({ ...good, vae: file('page.safetensors') })).rejects.toThrow(
      /page\.safetensors is a web page/,
    );
    writeFileSync(file('old.safetensors'), Uint8Array.of(0x80, 2, 0x7d, 0x71, 0));
    await expect(Kontext.load({ ...good, vae: file('old.safetensors') })).rejects.toThrow(
      /is a PyTorch pickle.*never opened/,
    );
    writeFileSync(file('nothing.safetensors'), '');
    await expect(Kontext.load({ ...good, vae: file('nothing.safetensors') })).rejects.toThrow(/is empty/);
  });
});
