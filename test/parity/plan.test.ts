// The plan of memory against what the engine then takes, for every choice; and budgets in words.
import { describe, expect, it } from 'vitest';
import { budgetBytes, fitting } from '../../sdk/src/kontext/budget.ts';
import type { MemoryBudget } from '../../sdk/src/kontext/options.ts';
import { Kontext } from '../../sdk/src/node.ts';
import { adapterFile } from '../support/adapters.ts';
import { pipelineFile, pipelineModel } from '../support/pipeline-model.ts';

const size = { width: 96, height: 64 };
const request = { size, steps: 2, maxSequenceLength: 24 };

/** Beside the layers of transformer and CLIP; in their weights. */
const ADAPTERS = {
  none: {},
  beside: { adapters: [{ source: adapterFile('formats/pipeline_kohya.safetensors') }] },
  merged: { adapters: [{ source: adapterFile('formats/pipeline_kohya.safetensors') }], merge: true },
} as const;

describe('the predicted peak is the measured one, within 3 %', () => {
  it.each([
    ['resident', 'auto', 'none'],
    ['phased', 'auto', 'none'],
    ['phased', 'q8', 'none'],
    ['streamed', 'auto', 'none'],
    ['streamed', 'q8', 'none'],
    ['resident', 'auto', 'beside'],
    ['phased', 'q8', 'beside'],
    ['streamed', 'auto', 'beside'],
    ['resident', 'auto', 'merged'],
    ['phased', 'q8', 'merged'],
  ] as const)('%s, %s, adapters %s', async (memory, quantization, adapters) => {
    const { choices } = await Kontext.plan(pipelineModel(), { ...request, ...ADAPTERS[adapters] });
    const choice = choices.find((c) => c.memory === memory && c.quantization === quantization)!;
    await using kontext = await Kontext.load(pipelineModel(), { memory, quantization, ...ADAPTERS[adapters] });
    const { memory: use } = await kontext.edit({
      ...request,
      image: pipelineFile('input_1.png'),
      autoResize: false,
      size,
      prompt: 'a red fox',
      seed: 1,
    });
    expect(
      Math.abs(use.peakBytes / choice.gpuPeakBytes - 1),
      `${use.peakBytes} of ${choice.gpuPeakBytes}`,
    ).toBeLessThan(0.03);
  });
});

describe('adapters of the load count', { timeout: 600_000 }, () => {
  const adapters = [{ source: adapterFile('formats/pipeline_kohya.safetensors') }];
  it('an amount that is enough without them is refused with them, naming one that does', async () => {
    const amount = async (given: object) => {
      const { choices } = await Kontext.plan(pipelineModel(), given);
      return Math.min(...choices.map(({ gpuPeakBytes }) => gpuPeakBytes));
    };
    const [without, beside] = [await amount({}), await amount({ adapters })];
    expect(beside).toBeGreaterThan(without);
    await expect(Kontext.load(pipelineModel(), { adapters, memory: without })).rejects.toMatchObject({
      code: 'out-of-memory',
    });
    await using kontext = await Kontext.load(pipelineModel(), { adapters, memory: beside });
    expect(kontext.setting).toBeDefined();
    await expect(Kontext.plan(pipelineModel(), { merge: true })).rejects.toThrow(/merge needs adapters/);
  });
});

it('plans without reading weights', async () => {
  const model = pipelineModel();
  let bytes = 0;
  const { choices, download } = await Kontext.plan(
    {
      ...model,
      async open(name, signal) {
        const source = await model.open(name, signal);
        if (!source?.name.endsWith('.safetensors')) return source;
        const read: typeof source.read = (start, end, readSignal) => {
          bytes += end - start;
          return source.read(start, end, readSignal);
        };
        return { ...source, read };
      },
    },
    { ...request, references: [] },
  );
  expect(bytes).toBeLessThan(200_000);
  expect(Object.values(download).reduce((a, b) => a + b, 0)).toBeGreaterThan(1e6);
  for (const choice of choices) expect(choice.gpuPeakBytes).toBe(Math.max(...Object.values(choice.stages)));
});

it('a budget chooses the best that fits, and names what would do', async () => {
  const { choices } = await Kontext.plan(pipelineModel(), { maxSequenceLength: 512 });
  const least = Math.min(...choices.map(({ gpuPeakBytes }) => gpuPeakBytes));
  const most = Math.max(...choices.map(({ gpuPeakBytes }) => gpuPeakBytes));
  const chosen = async (memory: MemoryBudget) => {
    await using kontext = await Kontext.load(pipelineModel(), { memory });
    return kontext.setting;
  };
  expect(await chosen(`${(most / 1e9) * 1.01}GB`)).toEqual({ memory: 'resident', quantization: 'auto' });
  expect((await chosen(least))!.memory).not.toBe('resident');
  const error = await chosen(least - 1e7).catch((caught: unknown) => caught);
  expect(error).toMatchObject({ code: 'out-of-memory' });
  const named = /memory: '([\d.]+GB)'/.exec((error as Error).message)![1] as MemoryBudget;
  expect(await chosen(named)).toBeDefined();
  await expect(chosen('8 parsecs' as MemoryBudget)).rejects.toThrow(/8GB/);
});

it('reads amounts', () => {
  expect(budgetBytes('8GB')).toBe(8e9);
  expect(budgetBytes('7.5 GiB')).toBe(7.5 * 2 ** 30);
  expect(budgetBytes('900mb')).toBe(9e8);
  expect(budgetBytes(5)).toBe(5);
  for (const bad of ['', '8', '8TB', '-1GB', 'GB', '0GB', 0, Number.NaN, Number.POSITIVE_INFINITY, null]) {
    expect(budgetBytes(bad), String(bad)).toBeUndefined();
  }
  const plans = [
    { gpuPeakBytes: 5e9, memory: 'resident', quantization: 'none' },
    { gpuPeakBytes: 1_234_567_890, memory: 'streamed', quantization: 'q4' },
  ] as const;
  expect(fitting(plans, 5e9, 'x').memory).toBe('resident');
  expect(() => fitting(plans, 1e9, 'x')).toThrow(/1\.24GB/);
});
