// Negative prompts beyond plain guidance, through the pipeline on the tiny reference model: what is evaluated, and what comes out.
import { describe, expect, it } from 'vitest';
import type { EditRequest } from '../../sdk/src/kontext/types.ts';
import { runRequest, worstDifference } from '../support/pipeline-context.ts';
import { pipelineRuns } from '../support/pipeline-model.ts';
import { tinyPipeline } from '../support/tiny-pipeline.ts';

const { context } = await tinyPipeline();

const STEPS = 4;
const plain = {
  image: pipelineRuns().find((one) => one.image)!.image!,
  prompt: 'a red cat',
  steps: STEPS,
  maxSequenceLength: 32,
  size: { width: 64, height: 48 },
  autoResize: false,
  seed: 3,
  output: 'latents',
} as const;
const run = (more: Partial<EditRequest>) => runRequest(context, { ...plain, ...more } as EditRequest);
/** Relative to the largest value. */
const difference = (a: Float32Array, b: Float32Array): number =>
  worstDifference(a, b) / b.reduce((most, v) => Math.max(most, Math.abs(v)), 0);

describe('guidance by a negative prompt', { timeout: 600_000 }, () => {
  it('NAG changes the picture, and with the prompt as its own negative it does not', async () => {
    const base = await run({});
    const guided = await run({ negativePrompt: 'a blue dog', nagScale: 5, nagSigmaEnd: 0 });
    expect(guided.evaluations).toBe(STEPS);
    expect(difference(guided.steps.at(-1)!, base.steps.at(-1)!)).toBeGreaterThan(1e-3);
    const same = await run({ negativePrompt: plain.prompt, nagScale: 5, nagSigmaEnd: 0 });
    expect(difference(same.steps.at(-1)!, base.steps.at(-1)!)).toBeLessThan(1e-4);
  });

  it('NAG ends at the share of noise asked for: the steps after it are plain', async () => {
    const all = await run({ negativePrompt: 'a blue dog', nagScale: 5, nagSigmaEnd: 0 });
    const first = await run({ negativePrompt: 'a blue dog', nagScale: 5, nagSigmaEnd: 1 });
    expect(worstDifference(first.steps[0]!, all.steps[0]!)).toBe(0);
    expect(difference(first.steps[1]!, all.steps[1]!)).toBeGreaterThan(1e-4);
    // What follows is what a plain evaluation makes of the same latents, beside NAG's program and after it.
    const base = await run({});
    expect(difference(first.steps[1]!, base.steps[1]!)).toBeGreaterThan(1e-4);
    expect((await run({})).steps.at(-1)).toEqual(base.steps.at(-1));
  });

  it('NAG and true guidance go together', async () => {
    const both = await run({ negativePrompt: 'a blue dog', nagScale: 5, trueCfgScale: 2 });
    const cfg = await run({ negativePrompt: 'a blue dog', trueCfgScale: 2 });
    expect(both.evaluations).toBe(2 * STEPS);
    expect(difference(both.steps.at(-1)!, cfg.steps.at(-1)!)).toBeGreaterThan(1e-4);
  });

  it('CFG-Zero* leaves the first step out, and fits the negative velocity in the others', async () => {
    const negative = { negativePrompt: 'a blue dog', trueCfgScale: 4 };
    const cfg = await run(negative);
    const zero = await run({ ...negative, cfgZeroStar: true });
    expect(zero.evaluations).toBe(2 * (STEPS - 1));
    // Nothing has moved after the first step: what all of them leave out is the noise.
    const noise = await run({ ...negative, cfgZeroStar: true, cfgZeroInitSteps: STEPS });
    expect(noise.evaluations).toBe(0);
    expect(zero.steps[0]).toEqual(noise.steps.at(-1));
    const fitted = await run({ ...negative, cfgZeroStar: true, cfgZeroInitSteps: 0 });
    expect(fitted.evaluations).toBe(2 * STEPS);
    expect(difference(fitted.steps[0]!, cfg.steps[0]!)).toBeGreaterThan(1e-5);
    // The first step by hand, out of the velocities that single evaluations give.
    const [positive, other] = [await run({ steps: STEPS }), await run({ prompt: 'a blue dog' })];
    const start = noise.steps[0]!;
    const moved = (after: Float32Array) => after.map((v, i) => v - start[i]!);
    const [p, n] = [moved(positive.steps[0]!), moved(other.steps[0]!)];
    const dot = (a: Float32Array, b: Float32Array) => a.reduce((sum, v, i) => sum + v * b[i]!, 0);
    const alpha = dot(p, n) / dot(n, n);
    const expected = start.map((v, i) => v + alpha * n[i]! + 4 * (p[i]! - alpha * n[i]!));
    expect(difference(fitted.steps[0]!, expected)).toBeLessThan(1e-4);
  });
});
