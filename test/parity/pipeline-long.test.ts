// A hundred edits in one process: GPU and host memory must be flat after the first few.
// Takes minutes, so it runs by `npm run test:long` only.
import { describe, expect, it } from 'vitest';
import type { EditRequest } from '../../sdk/src/kontext/types.ts';
import { Kontext } from '../../sdk/src/node.ts';
import { pipelineFile, pipelineModel } from '../support/pipeline-model.ts';

const EDITS = 100;
const WARM_UP = 20;

describe.runIf(process.env.KONTEXT_LONG)('a hundred edits', () => {
  it.each(['phased', 'resident'] as const)('%s: memory stays flat', { timeout: 3_600_000 }, async (memory) => {
    const kontext = await Kontext.load(pipelineModel(), { precision: 'f32', memory });
    const gpu: number[] = [];
    const host: number[] = [];
    for (let i = 0; i < EDITS; i++) {
      const request: EditRequest = {
        image: pipelineFile(`input_${1 + (i % 2)}.png`),
        prompt: `prompt number ${i}`,
        steps: 1 + (i % 3),
        maxSequenceLength: 24,
        // Sizes change too: programs and slabs of old ones must go.
        size: i % 5 === 0 ? { width: 64, height: 64 } : { width: 96, height: 64 },
        autoResize: false,
        seed: i,
      };
      const { memory: use } = await kontext.edit(request);
      // At the same place of the cycle, so that sizes do not count.
      if (i % 30 === 29) gpu.push(use.weightBytes + use.activationBytes);
      host.push(process.memoryUsage().rss);
    }
    await kontext.close();
    const median = (values: number[]) => [...values].sort((a, b) => a - b)[values.length >> 1]!;
    const [early, late] = [median(host.slice(WARM_UP, WARM_UP + 20)), median(host.slice(-20))];
    console.log(
      `${memory}: GPU ${gpu.join(', ')} bytes; host ${(early / 1e6).toFixed(0)} to ${(late / 1e6).toFixed(0)} MB`,
    );
    expect(new Set(gpu).size).toBe(1);
    // A leak of one picture's buffers an edit would be 80 times 0.5 MB and more.
    expect(late - early).toBeLessThan(20e6);
  });
});
