// Engines that are loaded, used and closed over and over, or lose their device: nothing of them stays in the process.
// A thousand cycles each, by `npm run test:long`; fewer with KONTEXT_LONG=N. In every test run: test/unit/runtime/cycles.test.ts.
import { describe, expect, it } from 'vitest';
import type { PixelImage } from '../../sdk/src/image/pixels.ts';
import { Kontext } from '../../sdk/src/node.ts';
import { caughtGpu } from '../support/caught-gpu.ts';
import { pipelineModel } from '../support/pipeline-model.ts';
import { hasProc, processUse } from '../support/process-use.ts';

const image: PixelImage = { width: 64, height: 64, data: new Uint8ClampedArray(64 * 64 * 4).fill(200) };
const request = { image, prompt: 'grey', steps: 1, seed: 1, maxSequenceLength: 24, autoResize: false } as const;
const { gpu, lose } = caughtGpu();

async function cycle(lost: boolean): Promise<void> {
  const kontext = await Kontext.load(pipelineModel(), { precision: 'f32', device: { gpu } });
  await kontext.edit({ ...request, size: 'input', output: 'latents' });
  if (lost) {
    lose();
    await kontext.edit({ ...request, size: 'input', output: 'latents' });
  }
  await kontext.close();
}

describe.runIf(hasProc && process.env.KONTEXT_LONG)('load, edit, close', () => {
  it.each([
    ['closed', false],
    ['lost on the way', true],
  ])('%s: threads, descriptors and memory stay as they were', { timeout: 7_200_000 }, async (_, lost) => {
    const cycles = Number(process.env.KONTEXT_LONG) > 1 ? Number(process.env.KONTEXT_LONG) : 1000;
    for (let i = 0; i < 2; i++) await cycle(lost);
    const before = await processUse();
    for (let i = 0; i < cycles; i++) await cycle(lost);
    const after = await processUse();
    const megabytes = (bytes: number) => (bytes / 1e6).toFixed(0);
    console.log(
      `${cycles} cycles: threads ${before.threads} to ${after.threads}, ${megabytes(before.bytes)} to ${megabytes(after.bytes)} MB`,
    );
    // A software driver keeps a thread for every core of each device that is left.
    expect(after.threads).toBeLessThanOrEqual(before.threads + 1);
    expect(after.files).toEqual(before.files);
    // A device that is left takes 18 MB and more; the allocator's own growth ends after some cycles.
    expect(after.bytes - before.bytes).toBeLessThan(100e6);
  });
});
