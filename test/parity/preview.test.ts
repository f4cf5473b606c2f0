// Previews on the demo model's autoencoder: the fitted map shows a picture's colours, without running the decoder.
// A linear map of 16 channels cannot be sharp; it must be right about what is where.
import { afterAll, beforeAll, expect, it } from 'vitest';
import { type KontextDevice, openDevice } from '../../runtime/src/index.ts';
import { loadHost } from '../../sdk/src/host/module.ts';
import { resize } from '../../sdk/src/host/resize.ts';
import { fromRgb, type PixelImage, toRgb } from '../../sdk/src/image/pixels.ts';
import { Parts } from '../../sdk/src/kontext/parts.ts';
import { fitPreview, previewImage } from '../../sdk/src/kontext/preview.ts';
import { justInTime } from '../../sdk/src/kontext/programs.ts';
import { ProgressTracker } from '../../sdk/src/kontext/progress.ts';
import { ReferenceEncoder } from '../../sdk/src/kontext/references.ts';
import { demoModel } from '../../sdk/src/model/demo.ts';
import { type Model, openModel } from '../../sdk/src/model/open.ts';
import { psnr } from '../support/psnr.ts';

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
