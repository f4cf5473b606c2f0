// FLUX.1 Fill and image-to-image of FLUX.1 [dev] against diffusers' pipelines: latents after every step, controls, pictures.
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { afterAll, describe, expect, it } from 'vitest';
import { openDevice } from '../../runtime/src/index.ts';
import { decodeImage } from '../../sdk/src/image/node.ts';
import type { EditRequest } from '../../sdk/src/kontext/types.ts';
import { openModel } from '../../sdk/src/model/open.ts';
import { Kontext } from '../../sdk/src/node.ts';
import { pipelineContext, runRequest, worstDifference } from '../support/pipeline-context.ts';
import { pipelineModel } from '../support/pipeline-model.ts';
import { psnr } from '../support/psnr.ts';
import { floatTensor, readSafetensors } from '../support/safetensors.ts';

const TIMEOUT = 600_000;
const gpu = await openDevice();
afterAll(() => {
  expect(gpu.uncapturedErrors).toEqual([]);
  gpu.destroy();
});

type Arguments = Record<string, never>;

function fixture(name: string) {
  const folder = fileURLToPath(new URL(`../fixtures/${name}/`, import.meta.url));
  const { runs } = JSON.parse(readFileSync(`${folder}meta.json`, 'utf8')) as {
    runs: Record<string, { arguments: Arguments }>;
  };
  return { folder, runs };
}

/** Runs it and compares latents after every step and the picture. */
async function compare(
  over: string | undefined,
  folder: string,
  name: string,
  a: Arguments,
  more: Partial<EditRequest>,
) {
  const model = await openModel(pipelineModel(over));
  const context = await pipelineContext(gpu, model);
  try {
    const result = await runRequest(context, {
      image: `${folder}${a.image_file}`,
      prompt: a.prompt!,
      size: { width: a.width!, height: a.height! },
      steps: a.num_inference_steps!,
      strength: a.strength!,
      guidance: a.guidance_scale!,
      maxSequenceLength: a.max_sequence_length!,
      seed: (a.seeds as unknown as number[])[0]!,
      ...more,
    });
    const latents = floatTensor(readSafetensors(`${folder}${name}.safetensors`), 'mid.latents_after_step');
    const values = latents.length / result.steps.length;
    expect(values).toBe(result.latents[0]!.length);
    result.steps.forEach((after, step) => {
      const reference = latents.subarray(step * values, (step + 1) * values);
      expect(worstDifference(after, reference), `step ${step + 1}`).toBeLessThan(1e-3);
    });
    const decibels = psnr(result.images[0]!, await decodeImage(`${folder}${name}.png`, 'reference'));
    console.log(`${name}: ${decibels.toFixed(1)} dB`);
    expect(decibels).toBeGreaterThan(55);
  } finally {
    await context.parts.release('transformer');
    await context.parts.release('vae');
    await context.parts.release('clip');
    await context.parts.release('t5');
    await model.close();
  }
}

describe('image-to-image as FluxImg2ImgPipeline', () => {
  const { folder, runs } = fixture('pipeline-inpaint');
  it.each(Object.keys(runs).filter((name) => name.startsWith('img2img')))('%s', { timeout: TIMEOUT }, (name) =>
    compare(undefined, folder, name, runs[name]!.arguments, { context: false }),
  );
});

describe('FLUX.1 Fill as FluxFillPipeline', () => {
  const { folder, runs } = fixture('pipeline-fill');
  it.each(Object.keys(runs))('%s', { timeout: TIMEOUT }, (name) => {
    const a = runs[name]!.arguments;
    return compare('pipeline-fill', folder, name, a, { mask: `${folder}${a.mask_image_file}`, maskMode: 'reference' });
  });

  it('keeps what is outside the mask, and refuses what it cannot do by name', { timeout: TIMEOUT }, async () => {
    await using kontext = await Kontext.load(pipelineModel('pipeline-fill'), { precision: 'f32' });
    const [image, mask] = [await decodeImage(`${folder}input_1.png`), await decodeImage(`${folder}mask_1.png`)];
    const shared = { prompt: 'a stone arch', steps: 2, maxSequenceLength: 24, seed: 1 };
    const { image: result } = await kontext.edit({ ...shared, image, mask, size: { width: 64, height: 48 } });
    const changed = result.data.reduce((count, v, i) => count + Number(v !== image.data[i]), 0);
    const outside = result.data.reduce(
      (count, v, i) => count + Number(v !== image.data[i] && mask.data[i - (i % 4)] === 0),
      0,
    );
    expect(changed).toBeGreaterThan(100);
    expect(outside).toBe(0);
    await expect(kontext.edit({ ...shared, image })).rejects.toThrow(/FLUX.1 Fill: .* with a mask/);
    await expect(kontext.generate(shared)).rejects.toThrow(/FLUX.1 Fill/);
    await expect(kontext.edit({ ...shared, image, mask, references: [image] })).rejects.toThrow(/sees no references/);
    await expect(kontext.edit({ ...shared, image, mask, control: image })).rejects.toThrow(/takes no control picture/);
  });
});
