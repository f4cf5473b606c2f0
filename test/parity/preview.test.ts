// Previews: the map fitted for the demo model's autoencoder shows a picture's colours, and a small decoder what PyTorch makes of it.
// A linear map of 16 channels cannot be sharp; it must be right about what is where.
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { compile } from '../../kernels-codegen/src/compile.ts';
import { tinyDecoderSpecFromShapes } from '../../kernels-codegen/src/models/specs.ts';
import { targetFor } from '../../kernels-codegen/src/targets/profiles.ts';
import {
  Executable,
  type KontextDevice,
  memoryBytes,
  openDevice,
  openSafetensors,
  tinyDecoderNaming,
  WeightStore,
} from '../../runtime/src/index.ts';
import { loadHost } from '../../sdk/src/host/module.ts';
import { resize } from '../../sdk/src/host/resize.ts';
import { fromRgb, type PixelImage, toRgb } from '../../sdk/src/image/pixels.ts';
import { pack } from '../../sdk/src/kontext/latents.ts';
import { Parts } from '../../sdk/src/kontext/parts.ts';
import { fitPreview, previewImage } from '../../sdk/src/kontext/preview.ts';
import { justInTime } from '../../sdk/src/kontext/programs.ts';
import { ProgressTracker } from '../../sdk/src/kontext/progress.ts';
import { ReferenceEncoder } from '../../sdk/src/kontext/references.ts';
import { demoModel } from '../../sdk/src/model/demo.ts';
import { type Model, openModel } from '../../sdk/src/model/open.ts';
import { Kontext } from '../../sdk/src/node.ts';
import { fixturePath } from '../support/cases.ts';
import { psnr } from '../support/psnr.ts';
import { floatTensor, readSafetensors } from '../support/safetensors.ts';
import { type MemoryTensor, safetensorsBytes } from '../support/weights.ts';

let gpu: KontextDevice;
let model: Model;
beforeAll(async () => {
  gpu = await openDevice();
  model = await openModel(demoModel());
});
afterAll(async () => {
  gpu.destroy();
  await model.close();
});

/** A disc on a background, a band below it. */
function scene(side: number): PixelImage {
  const rgb = new Uint8Array(side * side * 3);
  for (let y = 0, at = 0; y < side; y++) {
    for (let x = 0; x < side; x++, at += 3) {
      const inside = Math.hypot(x - side / 2, y - side / 2) < side / 4;
      rgb.set(inside ? [230, 60, 40] : y > (side * 3) / 4 ? [60, 160, 70] : [120, 180, 240], at);
    }
  }
  return fromRgb(rgb, side, side);
}

it('shows what the latents hold', { timeout: 600_000 }, async () => {
  const host = await loadHost();
  const parts = await Parts.create(gpu, model, justInTime(), {
    precision: 'f32',
    quantization: 'none',
    memory: 'resident',
  });
  const work = { signal: new AbortController().signal, tracker: new ProgressTracker(undefined), loadMs: 0 };
  const map = await fitPreview(parts, work);
  const size = { width: 128, height: 128 };
  const image = scene(128);
  const latents = await new ReferenceEncoder(host).encode(parts, image, size, work);
  const preview = previewImage(map, latents, size);
  expect([preview.width, preview.height]).toEqual([16, 16]);
  const small = resize(host, { data: toRgb(image), width: 128, height: 128, channels: 3 }, 16, 16, 'box');
  const decibels = psnr(preview, fromRgb(small.data, 16, 16));
  // A grey picture of the same mean reaches 11 dB here.
  expect(decibels).toBeGreaterThan(18);
});

describe('a small decoder', () => {
  const file = fixturePath('preview-decoder/weights.safetensors').pathname;
  const stored = readSafetensors(file);
  /** As its author numbers the layers: the clamp before them counts. */
  const authors = () =>
    safetensorsBytes(
      Object.fromEntries(
        [...stored].map(([name, { shape, data }]): [string, MemoryTensor] => [
          name.replace(/^decoder\.layers\.(\d+)/, (_, layer) => `${Number(layer) + 1}`),
          { dtype: 'F32', shape, data },
        ]),
      ),
    );

  it.each(['f32', 'auto'] as const)('decodes as PyTorch does: %s', { timeout: 600_000 }, async (precision) => {
    const io = readSafetensors(fixturePath('preview-decoder/io.safetensors'));
    const [, , rows, columns] = io.get('in.latents')!.shape as [number, number, number, number];
    const size = { height: rows * 8, width: columns * 8 };
    const source = tinyDecoderNaming(await openSafetensors(memoryBytes(authors())));
    const spec = tinyDecoderSpecFromShapes((name) => source.tensors.get(name)?.shape);
    expect(spec).toEqual({ latentChannels: 16, channels: 24, blocks: [2, 1, 1, 1] });
    const target = targetFor(gpu.report, precision);
    const weights = new WeightStore(gpu, source);
    const executable = await Executable.create(gpu, compile({ component: 'preview-decode', spec, ...size, target }), {
      weights,
    });
    executable.write('latents', pack(floatTensor(io, 'in.latents'), size));
    await executable.run();
    const bytes = await executable.read('image', 'bytes');
    await executable.dispose();
    await weights.evict();
    const expected = floatTensor(io, 'out.image');
    const pixels = size.height * size.width;
    const errors = Array.from({ length: pixels * 3 }, (_, i) => {
      const [pixel, channel] = [Math.floor(i / 3), i % 3];
      const value = Math.min(1, Math.max(-1, expected[channel * pixels + pixel]!));
      return Math.abs(bytes[pixel * 4 + channel]! - (value + 1) * 127.5);
    });
    // Rounding alone is up to half a level; halves of the operands' last place add up over 20 layers.
    expect(Math.max(...errors)).toBeLessThan(target.tier === 'f32' ? 0.51 : 3);
  });

  it('gives whole previews, and is refused when it is none', { timeout: 600_000 }, async () => {
    await using kontext = await Kontext.load(demoModel(), { precision: 'f32', previewDecoder: file });
    const sizes: string[] = [];
    const request = { prompt: 'a small rose on the left on a white background', steps: 3, preview: { every: 1 } };
    for await (const event of kontext.stream(request)) {
      if (event.type === 'preview') sizes.push(`${event.preview.width}×${event.preview.height}`);
    }
    expect(sizes).toEqual(['64×64', '64×64']);
    const vae = new URL('../../examples/demo-model/model/vae/diffusion_pytorch_model.safetensors', import.meta.url);
    await expect(Kontext.load(demoModel(), { previewDecoder: vae })).rejects.toMatchObject({
      code: 'weights-invalid',
      message: expect.stringContaining('decoder.layers.0.weight'),
    });
    const { specs, ...jit } = justInTime();
    const programs = { ...jit, specs: async (opened: Model) => ({ ...(await specs(opened)), preview: undefined! }) };
    await expect(Kontext.load(demoModel(), { previewDecoder: file, programs })).rejects.toThrow(
      /none for a previewDecoder/,
    );
  });
});
