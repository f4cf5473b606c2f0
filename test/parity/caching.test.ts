// Steps that reuse earlier ones against diffusers' caches: which evaluations ran, and the latents after every step.
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';
import type { RequestOptions } from '../../sdk/src/kontext/types.ts';
import { runRequest, worstDifference } from '../support/pipeline-context.ts';
import { floatTensor, readSafetensors } from '../support/safetensors.ts';
import { tinyPipeline } from '../support/tiny-pipeline.ts';

const TIMEOUT = 600_000;
const folder = fileURLToPath(new URL('../fixtures/caching/', import.meta.url));
const meta = JSON.parse(readFileSync(`${folder}meta.json`, 'utf8'));
const tensors = readSafetensors(`${folder}io.safetensors`);

const { context } = await tinyPipeline();

async function run(name: string, cache: RequestOptions['cache']) {
  const negative = name.endsWith('_cfg');
  const a = meta.arguments[negative ? 'base_cfg' : 'base'];
  const result = await runRequest(context, {
    image: fileURLToPath(new URL(`../fixtures/pipeline/${a.image_file}`, import.meta.url)),
    prompt: a.prompt,
    ...(negative && { negativePrompt: a.negative_prompt, trueCfgScale: a.true_cfg_scale }),
    steps: a.num_inference_steps,
    guidance: a.guidance_scale,
    maxSequenceLength: a.max_sequence_length,
    size: { width: a.width, height: a.height },
    autoResize: false,
    seed: a.seeds[0],
    ...(cache && { cache }),
    output: 'latents',
  } as never);
  const latents = floatTensor(tensors, `${name}.mid.latents_after_step`);
  const values = latents.length / result.steps.length;
  result.steps.forEach((after, step) => {
    const reference = latents.subarray(step * values, (step + 1) * values);
    // The fixture's own bound; no step of it lies closer than 0.2 % to a threshold.
    expect(worstDifference(after, reference), `${name} step ${step + 1}`).toBeLessThan(1e-3);
  });
  return result;
}

const reused = (name: string): number =>
  meta.runs[name].single_block_executed_per_call.filter((ran: number) => ran === 0).length;

describe('caches', { timeout: TIMEOUT }, () => {
  it.each(['base', 'base_cfg'])('%s: without one nothing is reused', async (name) => {
    expect((await run(name, undefined)).skipped).toBe(0);
  });

  it.each(['first_block_never', 'first_block_0.58', 'first_block_0.65', 'first_block_cfg'])('%s', async (name) => {
    const { threshold } = meta.runs[name].config;
    expect((await run(name, { kind: 'first-block', threshold })).skipped).toBe(reused(name));
  });

  it.each(['taylorseer_order1', 'taylorseer_order2', 'taylorseer_lite'])('%s', async (name) => {
    const c = meta.runs[name].config;
    const { skipped } = await run(name, {
      kind: 'taylor',
      order: c.max_order,
      interval: c.cache_interval,
      start: c.disable_cache_before_step,
      ...(c.disable_cache_after_step !== undefined && { end: c.disable_cache_after_step }),
      lite: c.use_lite_mode ?? false,
    });
    expect(skipped).toBe(reused(name));
  });
});
