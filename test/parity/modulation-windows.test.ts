// Many steps: modulation rows made in windows as the loop goes on give the picture that rows made at once give.
import { expect, it, vi } from 'vitest';
import type { RequestOptions } from '../../sdk/src/kontext/types.ts';
import { runRequest, worstDifference } from '../support/pipeline-context.ts';
import { tinyPipeline } from '../support/tiny-pipeline.ts';

/** Rows that are made at once; the tiny model's would all fit any device. */
const ALL = 1000;
let most = ALL;
vi.mock('../../runtime/src/program/modulation-rows.ts', async (load) => {
  const real = await load<typeof import('../../runtime/src/program/modulation-rows.ts')>();
  const rowsAtOnce: typeof real.rowsAtOnce = (steps) => Math.ceil(steps / Math.ceil(steps / most));
  return { ...real, rowsAtOnce };
});

const { gpu, context } = await tinyPipeline();

type Options = Omit<RequestOptions, 'prompt'>;

const image = { width: 64, height: 64, data: new Uint8ClampedArray(64 * 64 * 4).fill(120) };
const edit = async (options: Options) => {
  const events: number[] = [];
  const onProgress = ({ progress }: { progress: number }) => events.push(progress);
  const request = { image, prompt: 'grey', size: 'input', autoResize: false, maxSequenceLength: 24, seed: 3 } as const;
  const result = await runRequest(context, { ...request, ...options, onProgress, output: 'latents' } as never);
  expect(events).toEqual([...events].sort((a, b) => a - b));
  return result.latents;
};

it.each<[string, Options]>([
  ['one prompt', { steps: 7 }],
  ['two prompts, two evaluations a step', { steps: 4, sampler: 'heun', negativePrompt: 'red', trueCfgScale: 2 }],
  ['two pictures, which start again from the first window', { steps: 5, images: 2 }],
])('%s', async (_, options) => {
  most = ALL;
  const whole = await edit(options);
  for (most of [3, 1]) {
    const bytes = gpu.memory.bytes;
    const windows = await edit(options);
    for (const [i, latents] of windows.entries()) {
      expect(worstDifference(latents, whole[i]!), `windows of ${most}`).toBeLessThan(1e-5);
    }
    expect(gpu.memory.bytes).toBe(bytes);
  }
});
