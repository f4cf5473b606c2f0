// Requests: defaults, the model's own defaults, and a refusal that names the mistake for each kind of mistake.
import { describe, expect, it } from 'vitest';
import { KontextError } from '../../../runtime/src/errors.ts';
import { checkRequest } from '../../../sdk/src/kontext/request.ts';
import type { EditRequest, GenerateRequest } from '../../../sdk/src/kontext/types.ts';

const image = { width: 1, height: 1, data: new Uint8ClampedArray([1, 2, 3, 255]) };

function refusal(request: unknown): string {
  try {
    checkRequest(request as EditRequest);
  } catch (error) {
    if (error instanceof KontextError && error.code === 'invalid-request') return error.message;
    throw error;
  }
  throw new Error('the request was accepted');
}

describe('checkRequest', () => {
  it('fills in the defaults of the reference', () => {
    const checked = checkRequest({ image, prompt: 'make it night' });
    expect(checked).toMatchObject({
      kind: 'edit',
      steps: 28,
      guidance: 2.5,
      maxSequenceLength: 512,
      trueCfgScale: 1,
      images: 1,
      size: 'auto',
      autoResize: true,
      references: [image],
      output: 'image',
    });
    expect(checked.seed).toBeGreaterThanOrEqual(0n);
    expect(checkRequest({ prompt: 'a fox' })).toMatchObject({ kind: 'generate', references: [] });
  });

  it('prefers explicit options, then the model’s, then the table’s', () => {
    const model = { steps: 12, maxSequenceLength: 24 };
    expect(checkRequest({ prompt: 'x' }, model)).toMatchObject({ steps: 12, maxSequenceLength: 24 });
    expect(checkRequest({ prompt: 'x', steps: 3, maxSequenceLength: 7 }, model)).toMatchObject({
      steps: 3,
      maxSequenceLength: 7,
    });
  });

  it('takes seeds as PyTorch does, and draws those below 0', () => {
    const seed = (value: number | bigint) => checkRequest({ prompt: 'x', seed: value }).seed;
    expect(seed(7)).toBe(7n);
    expect(seed(0)).toBe(0n);
    expect(seed(2n ** 64n - 1n)).toBe(2n ** 64n - 1n);
    for (const below of [-1, -7, -1n, -(2n ** 80n)]) {
      const drawn = Array.from({ length: 4 }, () => seed(below));
      expect(new Set(drawn).size).toBeGreaterThan(1);
      for (const value of drawn) expect(value >= 0n && value < 2n ** 32n).toBe(true);
    }
  });

  it.each([
    ['1024x768', 1024, 768],
    ['64X64', 64, 64],
    ['64×32', 64, 32],
    [' 64 x 128 ', 64, 128],
  ])('takes the size %j in words', (size, width, height) => {
    expect(checkRequest({ prompt: 'x', size: size as '64x64' }).size).toEqual({ width, height });
  });

  const wrong: [what: string, request: Record<string, unknown>, message: RegExp][] = [
    ['no prompt', { image }, /prompt is empty/],
    ['a blank prompt', { prompt: ' \n' }, /prompt is empty/],
    ['no image', { prompt: 'x', image: undefined }, /image is missing/],
    ['an unknown option', { prompt: 'x', colour: 1 }, /Unknown option colour/],
    ['an option in snake case', { prompt: 'x', max_area: 1 }, /Did you mean maxArea/],
    ['an edit option', { prompt: 'x', autoResize: true }, /belongs to edit/],
    ['half a step', { prompt: 'x', steps: 2.5 }, /steps is 2.5; it must be a whole number/],
    ['no steps', { prompt: 'x', steps: 0 }, /from 1 to 1000/],
    ['steps as text', { prompt: 'x', steps: '28' }, /steps is "28"/],
    ['NaN', { prompt: 'x', guidance: Number.NaN }, /guidance is NaN/],
    ['a long sequence', { prompt: 'x', maxSequenceLength: 513 }, /maxSequenceLength is 513/],
    [
      'a size off the grid',
      { prompt: 'x', size: { width: 100, height: 64 } },
      /width is 100.*multiple of 16, such as 96/,
    ],
    ['a size in other words', { prompt: 'x', size: 'large' }, /size is "large"; it must be "auto".*"1024x768"/],
    ['a size in words off the grid', { prompt: 'x', size: '100x64' }, /width is 100.*multiple of 16, such as 96/],
    ['one side as the size', { prompt: 'x', size: 512 }, /size is 512; it must be/],
    ['a typing mistake', { prompt: 'x', guidence: 1 }, /Unknown option guidence. Did you mean guidance\?/],
    ['one picture as the references', { image, prompt: 'x', references: 'b.png' }, /list of pictures: \["b.png"\]/],
    ['bytes as the references', { image, prompt: 'x', references: new Uint8Array(9) }, /list of pictures/],
    ['a missing reference', { image, prompt: 'x', references: ['a.png', undefined] }, /references\[1\] is undefined/],
    ['a signal that is none', { prompt: 'x', signal: 'stop' }, /AbortSignal/],
    ['a listener that is none', { prompt: 'x', onProgress: 1 }, /onProgress must be a function/],
    ['previews by another name', { prompt: 'x', preview: { evry: 1 } }, /evry of preview. Did you mean every/],
    ['null as preview', { prompt: 'x', preview: null }, /preview takes an object/],
    ['a size of nothing', { prompt: 'x', size: { width: 0, height: 64 } }, /width is 0.*16 to 4096/],
    ['a huge size', { prompt: 'x', size: { width: 30000, height: 64 } }, /width is 30000/],
    ['the input’s size without input', { prompt: 'x', size: 'input' }, /needs an image/],
    ['a large seed as number', { prompt: 'x', seed: 2 ** 60 }, /bigint/],
    ['a seed out of range', { prompt: 'x', seed: 2n ** 64n }, /seed is/],
    ['CFG without a negative prompt', { prompt: 'x', trueCfgScale: 2 }, /without a negativePrompt/],
    ['previews at no steps', { prompt: 'x', preview: { every: 0 } }, /preview.every is 0/],
    ['an output that is none', { prompt: 'x', output: 'video' }, /output is "video"/],
    ['latents of another type', { prompt: 'x', latents: [1, 2] }, /Float32Array/],
  ];
  it.each(wrong)('refuses %s', (_, request, message) => {
    expect(refusal(request)).toMatch(message);
  });

  it('accepts any size when it will be scaled to an area', () => {
    const request: GenerateRequest = { prompt: 'x', size: { width: 100, height: 77 }, maxArea: 4096 };
    expect(checkRequest(request)).toMatchObject({ size: { width: 100, height: 77 }, maxArea: 4096 });
  });
});
