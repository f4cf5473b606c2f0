// The whole pipeline against the reference's: six runs, latents after every step and the final picture, in f32 and f16.
// Edits, another target size, text-to-image, true CFG, a cut prompt, a batch.
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { openDevice } from '../../runtime/src/index.ts';
import { loadHost } from '../../sdk/src/host/module.ts';
import { decodeImage } from '../../sdk/src/image/node.ts';
import { familyOf } from '../../sdk/src/kontext/family.ts';
import { Parts, type PartsOptions } from '../../sdk/src/kontext/parts.ts';
import { type PipelineContext, runPipeline } from '../../sdk/src/kontext/pipeline.ts';
import { justInTime } from '../../sdk/src/kontext/programs.ts';
import { ProgressTracker } from '../../sdk/src/kontext/progress.ts';
import { ReferenceEncoder } from '../../sdk/src/kontext/references.ts';
import { checkRequest } from '../../sdk/src/kontext/request.ts';
import { TextEncoders } from '../../sdk/src/kontext/text.ts';
import { type Model, openModel } from '../../sdk/src/model/open.ts';
import { type PipelineRun, pipelineFile, pipelineModel, pipelineRuns } from '../support/pipeline-model.ts';
import { psnr } from '../support/psnr.ts';
import { floatTensor, readSafetensors } from '../support/safetensors.ts';

/** A device of eight GFLOP/s compiles for minutes when other tests share its two cores. */
const TIMEOUT = 600_000;

const gpu = await openDevice();
const host = await loadHost();
let model: Model;

beforeAll(async () => {
  model = await openModel(pipelineModel());
});
afterAll(async () => {
  expect(gpu.uncapturedErrors).toEqual([]);
  gpu.destroy();
  await model.close();
});

const contexts = new Map<string, PipelineContext>();
async function contextFor(
  precision: 'f32' | 'f16',
  memory: PartsOptions['memory'] = 'resident',
): Promise<PipelineContext> {
  const known = contexts.get(precision + memory);
  if (known) return known;
  const parts = await Parts.create(gpu, model, justInTime(), { precision, quantization: 'none', memory });
  const text = await TextEncoders.create(host, model);
  const context = { host, model, parts, family: familyOf(model), text, references: new ReferenceEncoder(host) };
  contexts.set(precision + memory, context);
  return context;
}

/** One picture of a run: latents after each step, and the picture. */
async function make(context: PipelineContext, run: PipelineRun, index: number) {
  const shared = {
    prompt: run.prompts[index]!,
    ...(run.negativePrompt !== undefined && { negativePrompt: run.negativePrompt, trueCfgScale: run.trueCfgScale! }),
    steps: run.steps,
    guidance: run.guidance,
    maxSequenceLength: run.maxSequenceLength,
    size: { width: run.width, height: run.height },
    seed: run.seeds[index]!,
  };
  const checked = checkRequest(run.image === undefined ? shared : { ...shared, image: run.image, autoResize: false });
  const pictures = run.image === undefined ? [] : [await decodeImage(run.image, 'input')];
  const steps: Float32Array[] = [];
  const work = { signal: new AbortController().signal, tracker: new ProgressTracker(undefined), loadMs: 0 };
  const { images, latents } = await runPipeline(
    context,
    { ...checked, conditioning: 'exact', pictures, afterStep: (_, __, values) => steps.push(values) },
    work,
  );
  expect(steps.at(-1)).toEqual(latents[0]);
  return { steps, image: images[0]! };
}

/** The reference's latents of one picture after one step. */
function expectedLatents(run: PipelineRun, step: number, index: number): Float32Array {
  const all = floatTensor(readSafetensors(pipelineFile(`${run.name}.safetensors`)), 'mid.latents_after_step');
  const values = all.length / run.steps / run.prompts.length;
  const at = (step * run.prompts.length + index) * values;
  return all.subarray(at, at + values);
}

const runs = pipelineRuns();
const cases = runs.flatMap((run) => run.prompts.map((_, index) => [`${run.name} ${index}`, run, index] as const));

describe('pipeline in f32', () => {
  it.each(cases)('%s is the reference’s', { timeout: TIMEOUT }, async (_, run, index) => {
    const { steps, image } = await make(await contextFor('f32'), run, index);
    steps.forEach((values, step) => {
      const expected = expectedLatents(run, step, index);
      let worst = 0;
      for (let i = 0; i < expected.length; i++) worst = Math.max(worst, Math.abs(values[i]! - expected[i]!));
      // The fixture's own bound: a correct float32 implementation differs by the order of its sums.
      expect(worst, `step ${step + 1}`).toBeLessThan(1e-3);
    });
    const decibels = psnr(image, await decodeImage(run.png[index]!, 'reference'));
    console.log(`f32 ${run.name} ${index}: ${decibels.toFixed(1)} dB`);
    expect(decibels).toBeGreaterThan(55);
  });

  it('gives the same bytes phased, streamed and resident', { timeout: TIMEOUT }, async () => {
    const run = runs.find(({ name }) => name === 'edit')!;
    const resident = await make(await contextFor('f32'), run, 0);
    for (const memory of ['phased', 'streamed'] as const) {
      const context = await contextFor('f32', memory);
      expect((await make(context, run, 0)).image).toEqual(resident.image);
      // Nothing but the transformer stays, and streamed not even that.
      const { weightBytes } = context.parts.memory;
      if (memory === 'streamed') expect(weightBytes).toBe(0);
      else expect(weightBytes).toBeLessThan((await contextFor('f32')).parts.memory.weightBytes / 2);
    }
  });
});

describe.runIf(gpu.report.features.includes('shader-f16'))('pipeline in f16', () => {
  it.each(cases)('%s is close to the reference’s', { timeout: TIMEOUT }, async (_, run, index) => {
    const { steps, image } = await make(await contextFor('f16'), run, index);
    steps.forEach((values, step) => {
      const expected = expectedLatents(run, step, index);
      let [difference, size] = [0, 0];
      for (let i = 0; i < expected.length; i++) {
        difference += (values[i]! - expected[i]!) ** 2;
        size += expected[i]! ** 2;
      }
      // The fixture's bound for 16-bit runs; errors add up over the steps.
      expect(Math.sqrt(difference / size), `step ${step + 1}`).toBeLessThan(3e-2);
    });
    const decibels = psnr(image, await decodeImage(run.png[index]!, 'reference'));
    console.log(`f16 ${run.name} ${index}: ${decibels.toFixed(1)} dB`);
    expect(decibels).toBeGreaterThan(38);
  });
});
