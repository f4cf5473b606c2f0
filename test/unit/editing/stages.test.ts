// Outpainting, early choice and the checks of what belongs together, without a GPU.
import { expect, it } from 'vitest';
import { loadHost } from '../../../sdk/src/host/module.ts';
import type { PixelImage } from '../../../sdk/src/image/pixels.ts';
import { checkFamily, familyOf } from '../../../sdk/src/kontext/family.ts';
import { checkRequest } from '../../../sdk/src/kontext/request.ts';
import { sceneOf } from '../../../sdk/src/kontext/stages/scene.ts';
import { chooseVariants } from '../../../sdk/src/kontext/stages/variants.ts';
import { seededRandom } from '../../quality/scenes.ts';

const host = await loadHost();
const random = seededRandom(7);
const noise = (width: number, height: number, alpha = 255): PixelImage => {
  const data = Uint8ClampedArray.from({ length: 4 * width * height }, (_, i) => (i % 4 === 3 ? alpha : random() * 256));
  return { width, height, data };
};
const defaults = {
  preferredSizes: [
    [64, 64],
    [96, 48],
  ] as [number, number][],
};

it('expands to the sides asked for and keeps the old pixels, with a mask of one’s own too', async () => {
  for (const alpha of [255, 100]) {
    const image = noise(50, 30, alpha);
    const mask: PixelImage = {
      width: 50,
      height: 30,
      data: new Uint8ClampedArray(6000).map((_, i) => (i < 400 ? 255 : 0)),
    };
    for (const more of [{}, { mask }]) {
      const request = checkRequest({ image, prompt: 'x', expand: { left: 7, bottom: 12 }, ...more });
      const maskPicture = 'mask' in more ? mask : undefined;
      const scene = await sceneOf(
        host,
        { ...request, pictures: [image], ...(maskPicture && { maskPicture }) },
        defaults,
      );
      const { target } = scene.sizes;
      const result = await scene.finish(noise(target.width, target.height));
      expect([result.width, result.height]).toEqual([57, 42]);
      let [changed, fresh] = [0, 0];
      for (let y = 0; y < 42; y++) {
        for (let x = 0; x < 57; x++) {
          const [at, from] = [4 * (y * 57 + x), 4 * (y * 50 + x - 7)];
          if (x < 7 || y >= 30) fresh += Number(result.data[at + 3] === 255);
          else if ('mask' in more && mask.data[from]! > 0) continue;
          else for (let c = 0; c < 4; c++) changed += Number(result.data[at + c] !== image.data[from + c]);
        }
      }
      expect(changed).toBe(0);
      expect(fresh).toBeGreaterThan(300);
    }
  }
});

const signal = new AbortController().signal;

it('asks which variants go on, or takes the one that changes one place and leaves the rest', async () => {
  const input = noise(32, 32);
  const change = (share: number, everywhere: number): PixelImage => {
    const data = new Uint8ClampedArray(input.data);
    for (let i = 0; i < data.length; i++) {
      if (i % 4 === 3) continue;
      data[i] = i < data.length * share ? 255 - data[i]! : data[i]! + everywhere;
    }
    return { ...input, data };
  };
  const previews = [change(0, 0), change(0.15, 0), change(0.15, 30), change(1, 0)];
  const choose = (answer: unknown) => ({ count: 4, steps: 1, choose: () => answer as number });
  expect(await chooseVariants(host, { count: 4, steps: 1, choose: undefined }, previews, input, signal)).toEqual([1]);
  expect(await chooseVariants(host, choose(2), previews, input, signal)).toEqual([2]);
  expect(await chooseVariants(host, choose([3, 0, 3]), previews, input, signal)).toEqual([3, 0]);
  for (const answer of [4, -1, 0.5, [], [9], 'x', undefined]) {
    await expect(chooseVariants(host, choose(answer), previews, input, signal)).rejects.toThrow(/index of a preview/);
  }
});

it('refuses combinations that cannot be meant, and says what to do', () => {
  const image = noise(16, 16);
  const wrong: [object, RegExp][] = [
    [{ expand: {} }, /expand adds nothing/],
    [{ expand: { left: -1 } }, /expand.left is -1/],
    [{ expand: { lefft: 1 } }, /expand.lefft is no side/],
    [{ expand: { left: 16 }, mask: image, maskMode: 'reference' }, /does not go with maskMode "reference"/],
    [{ variants: 4, images: 2 }, /Leave out images/],
    [{ variants: 4, steps: 4, variantSteps: 4 }, /it must be less/],
    [{ variants: 40 }, /variants is 40/],
    [{ choose: () => 0 }, /choose has no effect without variants/],
    [{ variants: 2, choose: 3 }, /choose must be a function/],
    [{ cache: 'first-block' }, /cache must be an object/],
    [{ cache: { kind: 'tea' } }, /kind "first-block", "taylor" or "region"/],
    [{ cache: { kind: 'first-block', threshold: 0 } }, /cache.threshold is 0/],
    [{ cache: { kind: 'first-block', order: 2 } }, /cache.order is no option of first-block/],
    [{ cache: { kind: 'taylor', order: 3 } }, /order 1 or 2/],
    [{ cfgInterval: [0.2, 0.8] }, /cfgInterval has no effect/],
    [{ cfgInterval: [0.8, 0.2], negativePrompt: '', trueCfgScale: 2 }, /rising/],
    [{ cfgZeroStar: true }, /cfgZeroStar has no effect/],
    [{ cfgZeroInitSteps: 2 }, /belongs to cfgZeroStar/],
    [{ cfgZeroStar: 1, negativePrompt: '', trueCfgScale: 2 }, /true or false/],
    [{ nagScale: 5 }, /nagScale 5 has no effect without a negativePrompt/],
    [{ nagTau: 2, negativePrompt: '' }, /nagTau has no effect without a nagScale/],
    [{ nagScale: 5, negativePrompt: '', nagAlpha: 2 }, /nagAlpha is 2; it must be a number from 0 to 1/],
    [{ nagScale: 5, negativePrompt: '', cache: { kind: 'taylor' } }, /do not go together/],
    [{ cache: { kind: 'region' } }, /needs a mask or expand/],
    [{ cache: { kind: 'region', margin: -1 }, mask: image }, /margin as one of at least 0/],
    [{ cache: { kind: 'taylor' }, sampler: 'heun' }, /evaluates twice a step. Choose another/],
    [{ variants: 2, latents: new Float32Array(64) }, /Leave out latents, or variants/],
    [{ strength: 0 }, /no step would run.*such as 0\.6/],
    [{ mask: null }, /mask is null; give a picture/],
    [{ maskPaddingCrop: -1, mask: image }, /maskPaddingCrop is -1/],
    [{ clipPrompt: 3 }, /clipPrompt must be a string/],
    [{ context: false }, /would have no influence/],
    [{ context: false, strength: 0.5, references: [image] }, /references are context/],
  ];
  for (const [more, message] of wrong) {
    expect(() => checkRequest({ prompt: 'x', image, ...more } as never), JSON.stringify(more)).toThrow(message);
  }
  expect(() => checkRequest({ prompt: 'x', variants: 2 })).toThrow(/need choose/);
});

it('tells the family from the first layer and the guidance, and what each can be asked', () => {
  const model = (channels: number, guided: boolean) => {
    const tensors = new Map([['img_in.weight', { shape: [8, channels] }]]);
    if (guided) tensors.set('guidance_in.in_layer.weight', { shape: [8, 256] });
    return familyOf({ parts: { transformer: { weights: { tensors } } } } as never);
  };
  expect([model(64, true), model(64, false), model(384, true), model(128, true)]).toEqual([
    'edit',
    'fast',
    'fill',
    'control',
  ]);
  const image = noise(16, 16);
  const generate = checkRequest({ prompt: 'x' });
  const edit = (more: object) => checkRequest({ prompt: 'x', image, ...more });
  expect(() => checkFamily('edit', generate)).not.toThrow();
  expect(() => checkFamily('edit', edit({ control: image }))).toThrow(/takes no control picture/);
  expect(() => checkFamily('fill', generate)).toThrow(/Call edit\(\) with a mask/);
  expect(() => checkFamily('fill', edit({ mask: image }))).not.toThrow();
  expect(() => checkFamily('fill', edit({ mask: image, cache: { kind: 'region' } }))).toThrow(/Leave out cache/);
  expect(() => checkFamily('control', generate)).toThrow(/Give its edges or depths as control/);
  expect(() => checkFamily('control', edit({ control: image }))).toThrow(/Call generate\(\)/);
  expect(() => checkFamily('control', edit({ control: image, strength: 0.5 }))).not.toThrow();
});
