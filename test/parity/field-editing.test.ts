// Masks and several references on a file as people have it, against the reference's results: latents, masks and pictures.
import { cpSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { openDevice } from '../../runtime/src/index.ts';
import { decodeImage } from '../../sdk/src/image/node.ts';
import type { PipelineContext } from '../../sdk/src/kontext/pipeline.ts';
import { fitted } from '../../sdk/src/kontext/references.ts';
import type { EditRequest } from '../../sdk/src/kontext/types.ts';
import { type Model, openModel } from '../../sdk/src/model/open.ts';
import { fixturePath } from '../support/cases.ts';
import { pipelineContext, runRequest, worstDifference } from '../support/pipeline-context.ts';
import { pipelineFile } from '../support/pipeline-model.ts';
import { psnr } from '../support/psnr.ts';
import { floatTensor, readSafetensors } from '../support/safetensors.ts';

const TIMEOUT = 600_000;
const path = (name: string) => fixturePath(`field/${name}`).pathname;
const gpu = await openDevice();
const folder = mkdtempSync(join(tmpdir(), 'kontext-field-'));
let model: Model;
let context: PipelineContext;

beforeAll(async () => {
  for (const part of ['text_encoder', 'text_encoder_2']) {
    cpSync(pipelineFile(`model/${part}`), join(folder, part), { recursive: true });
  }
  cpSync(pipelineFile('model/vae/diffusion_pytorch_model.safetensors'), join(folder, 'ae.safetensors'));
  cpSync(path('base/flux1-kontext-dev.safetensors'), join(folder, 'flux1-kontext-dev.safetensors'));
  model = await openModel(folder);
  context = await pipelineContext(gpu, model);
});
afterAll(async () => {
  expect(gpu.uncapturedErrors).toEqual([]);
  gpu.destroy();
  await model.close();
  rmSync(folder, { recursive: true });
});

const request: EditRequest = {
  image: pipelineFile('input_1.png'),
  prompt: 'Replace the red car with a blue bicycle.',
  steps: 4,
  guidance: 2.5,
  seed: 42,
  size: { width: 96, height: 64 },
  autoResize: false,
};

async function expectResult(name: string, more: Partial<EditRequest>) {
  const result = await runRequest(context, { ...request, ...more });
  const expected = readSafetensors(path(name));
  expect(worstDifference(result.latents[0]!, floatTensor(expected, 'latents'))).toBeLessThan(1e-3);
  const rgb = expected.get('image')!.data;
  const data = Uint8ClampedArray.from({ length: 4 * 96 * 64 }, (_, i) =>
    i % 4 === 3 ? 255 : rgb[3 * (i >> 2) + (i % 4)]!,
  );
  const decibels = psnr(result.images[0]!, { width: 96, height: 64, data });
  console.log(`${name}: ${decibels.toFixed(1)} dB`);
  expect(decibels).toBeGreaterThan(55);
  return { result, expected };
}

describe('a file as people have it', { timeout: TIMEOUT }, () => {
  it.each([
    ['inpaint-strength-1', 4, 1],
    ['inpaint-strength-0.6', 5, 0.6],
  ])('%s', async (name, steps, strength) => {
    const mask = path(`${name}/mask.png`);
    // The mask is of the result's size, and masks are of the picture's: brought there first, as the reference does by itself.
    const image = await fitted(context.host, await decodeImage(pipelineFile('input_1.png')), { width: 96, height: 64 });
    const more = { image, mask, maskMode: 'reference' as const, steps, strength };
    const { result, expected } = await expectResult(`${name}/expected.safetensors`, more);
    const latents = floatTensor(expected, 'latents_after_step');
    const values = result.latents[0]!.length;
    expect(result.steps.length).toBe(latents.length / values);
    result.steps.forEach((after, step) => {
      const reference = latents.subarray(step * values, (step + 1) * values);
      expect(worstDifference(after, reference), `step ${step + 1}`).toBeLessThan(1e-3);
    });
  });

  it('two references side by side, as ComfyUI and stable-diffusion.cpp place them, and numbered', async () => {
    const references = [pipelineFile('input_2.png')];
    await expectResult('two-references/expected-offset.safetensors', { references });
    await expectResult('two-references/expected-index.safetensors', { references, referencePositions: 'index' });
  });

  it('sees of a reference what is not transparent', async () => {
    const whole = await decodeImage(pipelineFile('input_2.png'));
    const half = 2 * whole.width * whole.height;
    const masked = { ...whole, data: whole.data.map((v, i) => (i % 4 === 3 && i >= half ? 0 : v)) };
    const white = { ...whole, data: whole.data.map((v, i) => (i >= half ? 255 : v)) };
    const latents = async (reference: typeof whole) =>
      (await runRequest(context, { ...request, steps: 1, references: [reference] })).latents;
    expect(await latents(masked)).toEqual(await latents(white));
    expect(await latents(masked)).not.toEqual(await latents(whole));
  });
});
