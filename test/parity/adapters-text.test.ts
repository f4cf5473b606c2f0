// Adapters of the text encoders: CLIP's and T5's states against the reference's, and remembered prompts, which depend on them.
// Through the engine: every strength another picture, the same strength the same bits without encoding anything again.
import { describe, expect, it } from 'vitest';
import { AdapterBindings } from '../../sdk/src/kontext/adapters/bindings.ts';
import { checkAdapters } from '../../sdk/src/kontext/adapters/check.ts';
import { AdapterShelf } from '../../sdk/src/kontext/adapters/shelf.ts';
import { ProgressTracker } from '../../sdk/src/kontext/progress.ts';
import type { EncodedPrompt } from '../../sdk/src/kontext/text.ts';
import type { AdapterOptions, AdapterScale } from '../../sdk/src/kontext/types.ts';
import { Kontext } from '../../sdk/src/node.ts';
import { adapterFile } from '../support/adapters.ts';
import { worstDifference } from '../support/pipeline-context.ts';
import { pipelineFile, pipelineModel } from '../support/pipeline-model.ts';
import { floatTensor, readSafetensors } from '../support/safetensors.ts';
import { tinyPipeline } from '../support/tiny-pipeline.ts';

const TIMEOUT = 600_000;
/** A busy machine compiles kernels for minutes. */
const device = { hangMs: 1_500_000 };
const KOHYA = adapterFile('formats/text_kohya.safetensors');
const PEFT = adapterFile('formats/text_diffusers.safetensors');
const PROMPT = 'a glass fish on a windowsill';
const TOKENS = 32;
/** The fixture's own. */
const BOUND = 1e-4;

const { context } = await tinyPipeline();

describe('states', { timeout: TIMEOUT }, () => {
  const expected = readSafetensors(adapterFile('formats/text_io.safetensors'));
  const { parts, text, model } = context;
  const shelf = new AdapterShelf(model, undefined, false);
  const encode = async (adapters: AdapterOptions[]): Promise<EncodedPrompt> => {
    const { plans } = await shelf.choose(checkAdapters(adapters, 'the request'));
    text.variant = await parts.useAdapters((stores) => new AdapterBindings(stores), plans, new Map());
    const work = { signal: new AbortController().signal, tracker: new ProgressTracker(undefined), loadMs: 0 };
    return text.encode(parts, { t5: PROMPT }, TOKENS, work);
  };
  const expectStates = ({ pooled, text }: EncodedPrompt, clip: string, t5: string) => {
    expect(worstDifference(pooled, floatTensor(expected, `clip.out.${clip}`)), `CLIP, ${clip}`).toBeLessThan(BOUND);
    expect(worstDifference(text, floatTensor(expected, `t5.out.${t5}`)), `T5, ${t5}`).toBeLessThan(BOUND);
  };

  it('are the reference’s at every strength, of both encoders and of each alone', async () => {
    const apart = (one: string, other: string) =>
      worstDifference(floatTensor(expected, one), floatTensor(expected, other));
    expect(apart('clip.out.base', 'clip.out.scale_0.6')).toBeGreaterThan(20 * BOUND);
    expect(apart('t5.out.base', 't5.out.scale_0.6')).toBeGreaterThan(20 * BOUND);
    const of = (scale: AdapterScale, source = KOHYA) => encode([{ source, scale }]);
    const base = await encode([]);
    expectStates(base, 'base', 'base');
    const whole = await of(1);
    expectStates(whole, 'scale_1', 'scale_1');
    expectStates(await of(0.6), 'scale_0.6', 'scale_0.6');
    expectStates(await of({ 'clip.*': 0, 't5.*': 0.6 }), 'base', 'scale_0.6');
    expectStates(await of({ 't5.*': 0 }), 'scale_1', 'base');
    expectStates(await of(1, PEFT), 'scale_1', 'base');
    // What was encoded with the same strengths is taken, and with others never.
    expect(await of(0)).toBe(base);
    expect(await encode([])).toBe(base);
    await of(0.25);
    expectStates(await of(1), 'scale_1', 'scale_1');
    await shelf.close();
  });
});

describe('through the engine', { timeout: TIMEOUT }, () => {
  const request = {
    image: pipelineFile('input_1.png'),
    prompt: PROMPT,
    steps: 1,
    seed: 5,
    size: { width: 64, height: 48 },
    autoResize: false,
    maxSequenceLength: TOKENS,
    output: 'latents',
  } as const;

  it.each(['resident', 'phased'] as const)('%s: each strength has its own result, again and again', async (memory) => {
    await using kontext = await Kontext.load(pipelineModel(), { precision: 'f32', memory, device });
    const run = async (adapters: AdapterOptions[]) => {
      let encoded = 0;
      const { latents } = await kontext.edit({
        ...request,
        adapters,
        onProgress: (event) => {
          if (event.type === 'load' && (event.component === 'clip' || event.component === 't5')) encoded++;
        },
      });
      return { latents: latents[0]!, encoded };
    };
    const scales: AdapterScale[] = [0, 1, 0.6, -1, { 'clip.*': 0 }, { 't5.*': 0 }];
    const first: Float32Array[] = [];
    for (const scale of scales) first.push((await run([{ source: KOHYA, scale }])).latents);
    for (let i = 0; i < first.length; i++) {
      for (let j = 0; j < i; j++) expect(first[i], `${i} and ${j}`).not.toEqual(first[j]);
    }
    for (const [i, scale] of [...scales.entries()].reverse()) {
      const again = await run([{ source: KOHYA, scale }]);
      expect(again.latents).toEqual(first[i]);
      expect(again.encoded, 'encoders loaded for a prompt that is known').toBe(0);
    }
    expect((await run([])).latents).toEqual(first[0]);
  });

  it('merged while loading, the same within rounding', async () => {
    const adapters = [{ source: KOHYA, scale: 0.6 }];
    await using beside = await Kontext.load(pipelineModel(), { precision: 'f32', adapters, device });
    await using merged = await Kontext.load(pipelineModel(), { precision: 'f32', adapters, merge: true, device });
    const [one, other] = [await beside.edit(request), await merged.edit(request)];
    const plain = await beside.edit({ ...request, adapters: [] });
    expect(worstDifference(one.latents[0]!, other.latents[0]!)).toBeLessThan(1e-4);
    expect(worstDifference(one.latents[0]!, plain.latents[0]!)).toBeGreaterThan(2e-3);
  });
});
