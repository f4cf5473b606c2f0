// Masked edits in the reference's meaning against diffusers' FluxKontextInpaintPipeline: latents after every step, masks, pictures.
// With and without a reference, cropped, with a negative prompt.
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';
import { decodeImage } from '../../sdk/src/image/node.ts';
import { runRequest, worstDifference } from '../support/pipeline-context.ts';
import { psnr } from '../support/psnr.ts';
import { floatTensor, readSafetensors } from '../support/safetensors.ts';
import { tinyPipeline } from '../support/tiny-pipeline.ts';

const TIMEOUT = 600_000;
const folder = fileURLToPath(new URL('../fixtures/pipeline-inpaint/', import.meta.url));
const { runs } = JSON.parse(readFileSync(`${folder}meta.json`, 'utf8')) as {
  runs: Record<string, { arguments: Record<string, never> }>;
};

const { context } = await tinyPipeline();

const names = Object.keys(runs).filter((name) => name.startsWith('inpaint'));

describe('inpainting as the reference', () => {
  it.each(names)('%s', { timeout: TIMEOUT }, async (name) => {
    const a = runs[name]!.arguments;
    const result = await runRequest(context, {
      image: `${folder}${a.image_file}`,
      mask: `${folder}${a.mask_image_file}`,
      maskMode: 'reference',
      ...(a.image_reference_file !== undefined && { references: [`${folder}${a.image_reference_file}`] }),
      ...(a.padding_mask_crop !== undefined && { maskPaddingCrop: a.padding_mask_crop }),
      ...(a.negative_prompt !== undefined && { negativePrompt: a.negative_prompt, trueCfgScale: a.true_cfg_scale }),
      prompt: a.prompt!,
      steps: a.num_inference_steps!,
      strength: a.strength!,
      guidance: a.guidance_scale!,
      maxSequenceLength: a.max_sequence_length!,
      seed: (a.seeds as unknown as number[])[0]!,
      autoResize: false,
    });
    const expected = readSafetensors(`${folder}${name}.safetensors`);
    expect(worstDifference(result.scene.mask!, floatTensor(expected, 'mid.mask_packed')), 'mask').toBe(0);
    const latents = floatTensor(expected, 'mid.latents_after_step');
    const values = latents.length / result.steps.length;
    expect(result.steps.length).toBe(expected.get('mid.latents_after_step')!.shape[0]);
    result.steps.forEach((after, step) => {
      const reference = latents.subarray(step * values, (step + 1) * values);
      // The fixture's own bound: a correct float32 implementation differs by the order of its sums.
      expect(worstDifference(after, reference), `step ${step + 1}`).toBeLessThan(1e-3);
    });
    const decibels = psnr(result.images[0]!, await decodeImage(`${folder}${name}.png`, 'reference'));
    console.log(`${name}: ${decibels.toFixed(1)} dB`);
    expect(decibels).toBeGreaterThan(55);
  });
});
