// The plan of memory against what the engine then takes, for every choice; and budgets in words.
import { describe, expect, it } from 'vitest';
import { budgetBytes, fitting } from '../../sdk/src/kontext/budget.ts';
import type { MemoryBudget } from '../../sdk/src/kontext/options.ts';
import { Kontext } from '../../sdk/src/node.ts';
import { adapterFile } from '../support/adapters.ts';
import { pipelineFile, pipelineModel } from '../support/pipeline-model.ts';

const size = { width: 96, height: 64 };
const request = { size, steps: 2, maxSequenceLength: 24 };

describe('the predicted peak is the measured one, within 3 %', () => {
  const planned = Kontext.plan(pipelineModel(), request);
  for (const memory of ['resident', 'phased', 'streamed'] as const) {
    for (const quantization of ['auto', 'q8'] as const) {
      if (memory === 'resident' && quantization === 'q8') continue;
      it(`${memory}, ${quantization}`, async () => {
        const choice = (await planned).choices.find((c) => c.memory === memory && c.quantization === quantization)!;
        await using kontext = await Kontext.load(pipelineModel(), { memory, quantization });
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
    }
  }
});

describe('guided attention and region caches are planned', { timeout: 600_000 }, () => {
  const steps = 5;
  const wanted = { ...request, steps };
  const masked = { ...wanted, cache: { kind: 'region', interval: 3, start: 1 } as const, maskShare: 0.2 };
  const guided = { ...wanted, nagScale: 5, nagSigmaEnd: 0.7 };
  /** White at the left, over a sixth of the width: four of 24 tokens with the margin left out. */
  const mask = {
    ...size,
    data: Uint8ClampedArray.from({ length: 4 * size.width * size.height }, (_, i) =>
      i % 4 === 3 || (i >> 2) % size.width < 16 ? 255 : 0,
    ),
  };
  for (const memory of ['phased', 'streamed'] as const) {
    it(`${memory}: within 3 % of the measured peak`, async () => {
      await using kontext = await Kontext.load(pipelineModel(), { memory });
      const edit = {
        image: mask,
        autoResize: false,
        prompt: 'a red fox',
        seed: 1,
      };
      const cases = [
        [guided, { ...wanted, nagScale: 5, nagSigmaEnd: 0.7, negativePrompt: 'a cat' }],
        [masked, { ...wanted, mask, maskMode: 'reference', cache: { ...masked.cache, margin: 0 } }],
      ] as const;
      for (const [planned, asked] of cases) {
        const { choices } = await Kontext.plan(pipelineModel(), { ...planned, memory: '1GB' });
        const { gpuPeakBytes } = choices.find((c) => c.memory === memory && c.quantization === 'auto')!;
        const { memory: use } = await kontext.edit({ ...edit, ...asked });
        expect(Math.abs(use.peakBytes / gpuPeakBytes - 1), `${use.peakBytes} of ${gpuPeakBytes}`).toBeLessThan(0.03);
      }
    });
  }

  it('with their work: guided steps by the schedule, evaluations of the region by the cache', async () => {
    const flopsOf = async (options: object) => {
      const plan = await Kontext.plan(pipelineModel(), options);
      return { flops: plan.choices[0]!.flops, request: plan.request };
    };
    const [plain, some, more, region, all] = [
      await flopsOf(wanted),
      await flopsOf({ ...guided, nagSigmaEnd: 1 }),
      await flopsOf({ ...guided, nagSigmaEnd: 0 }),
      await flopsOf(masked),
      await flopsOf({ ...masked, maskShare: 1 }),
    ];
    expect([some.request.guided, more.request.guided]).toEqual([1, steps]);
    expect(some.flops).toBeGreaterThan(plain.flops);
    // Beside the second text, each guided step costs the same more.
    const perStep = (more.flops - some.flops) / (steps - 1);
    expect(perStep).toBeGreaterThan(0);
    expect(some.flops - plain.flops).toBeGreaterThan(perStep);
    // W - - W - of 24 tokens, of which a fifth is rounded up to six.
    expect(region.request.region).toEqual({ tokens: 6, steps: 3 });
    expect(region.flops).toBeLessThan(plain.flops);
    expect(all.request.region).toEqual({ tokens: 24, steps: 0 });
    expect(all.flops).toBeGreaterThanOrEqual(plain.flops);
  });

  it('and what cannot be, is refused by name', async () => {
    const refused = (options: object) => expect(Kontext.plan(pipelineModel(), { ...request, ...options })).rejects;
    await refused({ nagSigmaEnd: 0.5 }).toThrow(/nagSigmaEnd has no effect without a nagScale/);
    await refused({ nagScale: 0 }).toThrow(/nagScale is 0/);
    await refused({ maskShare: 0.5 }).toThrow(/maskShare belongs to a cache of kind "region"/);
    await refused({ cache: { kind: 'region' } }).toThrow(/maskShare is undefined.*such as 0\.1/);
    await refused({ cache: { kind: 'region' }, maskShare: 2 }).toThrow(/maskShare is 2/);
    await refused({ cache: { kind: 'taylor' } }).toThrow(/"taylor" cannot be planned/);
    await refused({ cache: { kind: 'tea' } }).toThrow(/kind "first-block"/);
    await refused({ nagScale: 5, cache: { kind: 'region' }, maskShare: 0.5 }).toThrow(/do not go together/);
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
