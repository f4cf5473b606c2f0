// Adapters of the text encoders against the reference: what CLIP and T5 then say of a prompt, at two strengths and without.
import { afterAll, expect, it } from 'vitest';
import { openDevice } from '../../runtime/src/index.ts';
import { AdapterBindings } from '../../sdk/src/kontext/adapters/bindings.ts';
import { checkAdapters } from '../../sdk/src/kontext/adapters/check.ts';
import { AdapterShelf } from '../../sdk/src/kontext/adapters/shelf.ts';
import { ProgressTracker } from '../../sdk/src/kontext/progress.ts';
import { openModel } from '../../sdk/src/model/open.ts';
import { adapterFile } from '../support/adapters.ts';
import { pipelineContext, worstDifference } from '../support/pipeline-context.ts';
import { pipelineModel } from '../support/pipeline-model.ts';
import { floatTensor, readSafetensors } from '../support/safetensors.ts';

const gpu = await openDevice();
afterAll(() => gpu.destroy());
const expected = readSafetensors(adapterFile('formats/text_io.safetensors'));
const PROMPT = { t5: 'a glass fish on a windowsill' };
const TOKENS = 32;

it('CLIP and T5 with adapters say what the reference says', { timeout: 300_000 }, async () => {
  const model = await openModel(pipelineModel());
  const { parts, text } = await pipelineContext(gpu, model);
  const shelf = new AdapterShelf(model, undefined, false);
  const encoded = async (file: string, scale: number) => {
    const source = adapterFile(`formats/${file}.safetensors`);
    const { plans } = await shelf.choose(checkAdapters([{ source, scale }], 'the request'));
    text.variant = await parts.useAdapters((stores) => new AdapterBindings(stores), plans, new Map());
    const work = { signal: new AbortController().signal, tracker: new ProgressTracker(undefined), loadMs: 0 };
    return text.encode(parts, PROMPT, TOKENS, work);
  };
  const off = (of: { text: Float32Array; pooled: Float32Array }, name: string, part: 'clip' | 't5') =>
    worstDifference(part === 'clip' ? of.pooled : of.text, floatTensor(expected, `${part}.out.${name}`));
  const BOUND = 1e-4;

  const base = await encoded('text_kohya', 0);
  for (const part of ['clip', 't5'] as const) expect(off(base, 'base', part)).toBeLessThan(BOUND);
  for (const scale of [1, 0.6]) {
    const both = await encoded('text_kohya', scale);
    for (const part of ['clip', 't5'] as const) {
      expect(off(both, `scale_${scale}`, part), `${part} ${scale}`).toBeLessThan(BOUND);
      expect(off(both, 'base', part)).toBeGreaterThan(20 * BOUND);
    }
  }
  // The CLIP part alone, in diffusers' names: T5 says what it says without.
  const clip = await encoded('text_diffusers', 1);
  expect(off(clip, 'scale_1', 'clip')).toBeLessThan(BOUND);
  expect(off(clip, 'base', 't5')).toBeLessThan(BOUND);
  await shelf.close();
  await model.close();
});
