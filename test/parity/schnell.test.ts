// FLUX.1 [schnell]'s kind (no guidance, unshifted) against diffusers' FluxPipeline, own sigmas included; and samplers on the GPU.
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { openDevice } from '../../runtime/src/index.ts';
import { decodeImage } from '../../sdk/src/image/node.ts';
import type { PipelineContext } from '../../sdk/src/kontext/pipeline.ts';
import { type Model, openModel } from '../../sdk/src/model/open.ts';
import { samplerStages } from '../../sdk/src/sampling/samplers.ts';
import { pipelineContext, runRequest, worstDifference } from '../support/pipeline-context.ts';
import { pipelineModel } from '../support/pipeline-model.ts';
import { psnr } from '../support/psnr.ts';
import { floatTensor, readSafetensors } from '../support/safetensors.ts';

const TIMEOUT = 600_000;
const folder = fileURLToPath(new URL('../fixtures/pipeline-schnell/', import.meta.url));
const { runs } = JSON.parse(readFileSync(`${folder}meta.json`, 'utf8')) as {
  runs: Record<string, { arguments: Record<string, never> }>;
};

const gpu = await openDevice();
let model: Model;
let context: PipelineContext;

beforeAll(async () => {
  model = await openModel(pipelineModel('pipeline-schnell'));
  context = await pipelineContext(gpu, model);
});
afterAll(async () => {
  expect(gpu.uncapturedErrors).toEqual([]);
  gpu.destroy();
  await model.close();
});

const cases = Object.entries(runs).flatMap(([name, { arguments: a }]) =>
  ([a.prompt].flat() as unknown as string[]).map((prompt, index) => [`${name} ${index}`, name, prompt, index] as const),
);

describe('a model without guidance', () => {
  it.each(cases)('%s is the reference’s', { timeout: TIMEOUT }, async (_, name, prompt, index) => {
    const a = runs[name]!.arguments;
    const result = await runRequest(context, {
      prompt,
      ...(a.sigmas === undefined ? { steps: a.num_inference_steps! } : { sigmas: a.sigmas }),
      maxSequenceLength: a.max_sequence_length!,
      size: { width: a.width!, height: a.height! },
      seed: (a.seeds as unknown as number[])[index]!,
    });
    const expected = readSafetensors(`${folder}${name}.safetensors`);
    const latents = floatTensor(expected, 'mid.latents_after_step');
    const prompts = ([a.prompt].flat() as unknown[]).length;
    const values = latents.length / result.steps.length / prompts;
    result.steps.forEach((after, step) => {
      const at = (step * prompts + index) * values;
      expect(worstDifference(after, latents.subarray(at, at + values)), `step ${step + 1}`).toBeLessThan(1e-3);
    });
    const png = prompts === 1 ? `${folder}${name}.png` : `${folder}${name}_${index}.png`;
    expect(psnr(result.images[0]!, await decodeImage(png, 'reference'))).toBeGreaterThan(55);
  });
});

describe('samplers on the GPU', { timeout: TIMEOUT }, () => {
  const sigmas = [1, 0.8, 0.65, 0.4, 0.2];
  const base = { prompt: 'a lighthouse at dusk', size: { width: 64, height: 32 }, maxSequenceLength: 64, seed: 3 };

  /** The velocity that an Euler step from `latents` at sigmas[i] used. */
  async function velocity(latents: Float32Array, i: number): Promise<Float64Array> {
    const next = sigmas[i + 1] ?? 0;
    const { steps } = await runRequest(context, {
      ...base,
      latents,
      sigmas: sigmas.slice(i),
      output: 'latents',
    } as never);
    return Float64Array.from(latents, (x, j) => (steps[0]![j]! - x) / (next - sigmas[i]!));
  }

  it.each(['dpmpp_2m', 'res_multistep', 'ipndm', 'deis'] as const)('%s remembers what it should', async (sampler) => {
    const start = floatTensor(readSafetensors(`${folder}t2i.safetensors`), 'mid.latents_initial');
    const result = await runRequest(context, { ...base, sampler, sigmas, latents: start, output: 'latents' } as never);
    const states = [start, ...result.steps];
    const history: Float64Array[] = [];
    for (const [i, { keep, move }] of samplerStages(sampler, [...sigmas, 0]).entries()) {
      const x = states[i]!;
      const v = await velocity(x, i);
      const d = Float64Array.from(x, (value, j) => keep[0] * value + keep[1] * v[j]!);
      const expected = Float64Array.from(x, (value, j) => {
        const old = [0, 1, 2].map((back) => move[2 + back]! * (history[back]?.[j] ?? 0));
        return move[0] * value + move[1] * d[j]! + old[0]! + old[1]! + old[2]!;
      });
      // Velocities come out of a difference of float32 latents over a small step.
      expect(worstDifference(states[i + 1]!, expected), `${sampler} step ${i + 1}`).toBeLessThan(1e-4);
      history.unshift(d);
    }
    expect(result.evaluations).toBe(5);
  });

  it('variants go on as if they had never stopped, with what the sampler remembers', async () => {
    const run = (more: object) => runRequest(context, { ...base, sigmas, sampler: 'ipndm', ...more } as never);
    const seen: number[] = [];
    const choose = (previews: unknown[]) => {
      seen.push(previews.length);
      return [2, 0];
    };
    const some = await run({ variants: 3, variantSteps: 2, choose });
    expect(seen).toEqual([3]);
    expect(some.chosen).toEqual([2, 0]);
    expect(some.images.length).toBe(2);
    for (const [i, seed] of [5, 3].entries()) expect((await run({ seed })).latents[0]).toEqual(some.latents[i]);
  });

  it('heun evaluates twice a step, ancestral steps without noise are Euler’s, with noise they are the seed’s', async () => {
    const run = (more: object) => runRequest(context, { ...base, sigmas, output: 'latents', ...more } as never);
    const euler = await run({});
    expect((await run({ sampler: 'heun' })).evaluations).toBe(9);
    const still = await run({ sampler: 'euler_ancestral', eta: 0 });
    expect(worstDifference(still.latents[0]!, euler.latents[0]!)).toBeLessThan(1e-4);
    const [one, two, other] = [
      await run({ sampler: 'euler_ancestral' }),
      await run({ sampler: 'euler_ancestral' }),
      await run({ sampler: 'euler_ancestral', seed: 4 }),
    ];
    expect(one.latents[0]).toEqual(two.latents[0]);
    expect(worstDifference(one.latents[0]!, euler.latents[0]!)).toBeGreaterThan(0.1);
    expect(worstDifference(one.latents[0]!, other.latents[0]!)).toBeGreaterThan(0.1);
  });
});
