// The demo adapter on every storage of the demo model: black and white with it, colours without, and the right scene in both.
import { statSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { toRgb } from '../../sdk/src/image/pixels.ts';
import { demoAdapter, demoModel, demoPicture, Kontext } from '../../sdk/src/node.ts';
import { describe as nameOf, nearestScene } from '../quality/scenes.ts';

/** Mean difference of the largest and the smallest of red, green and blue. */
function colour(rgb: Uint8Array): number {
  let sum = 0;
  for (let i = 0; i < rgb.length; i += 3) {
    const pixel = [rgb[i]!, rgb[i + 1]!, rgb[i + 2]!];
    sum += Math.max(...pixel) - Math.min(...pixel);
  }
  return sum / (rgb.length / 3);
}

describe('the demo adapter', { timeout: 600_000 }, () => {
  it('is small', () => {
    expect(statSync(demoAdapter()).size).toBeLessThanOrEqual(200_000);
  });

  it.each(['none', 'q8', 'q4'] as const)('makes edits black and white, %s', async (quantization) => {
    await using kontext = await Kontext.load(demoModel(), { quantization });
    const request = { image: demoPicture(), prompt: 'turn the apple into a panda', seed: 1 };
    const answers = [];
    for (const scale of [0, 0.5, 1]) {
      const { image } = await kontext.edit({ ...request, adapters: [{ source: demoAdapter(), scale }] });
      const rgb = toRgb(image);
      answers.push({ colour: colour(rgb), scene: nearestScene(rgb).scene });
    }
    const [without, half, whole] = answers;
    expect(nameOf(whole!.scene)).toBe(nameOf({ ...without!.scene, effect: 'grayscale' }));
    expect(without!.scene).toMatchObject({ thing: 'panda', background: 'red', effect: 'none' });
    expect(without!.colour).toBeGreaterThan(60);
    expect(whole!.colour).toBeLessThan(8);
    expect(half!.colour).toBeLessThan(without!.colour);
    expect(half!.colour).toBeGreaterThan(whole!.colour);
  });

  it('draws in black and white from words alone, which the model by itself cannot', async () => {
    await using kontext = await Kontext.load(demoModel(), { adapters: [{ name: 'noir', source: demoAdapter() }] });
    const request = { prompt: 'a big tiger in the center on a yellow background', seed: 3 };
    const noir = toRgb((await kontext.generate(request)).image);
    expect(nearestScene(noir).scene).toMatchObject({ thing: 'tiger', background: 'yellow', effect: 'grayscale' });
    expect(colour(noir)).toBeLessThan(8);
    expect(colour(toRgb((await kontext.generate({ ...request, adapters: [] })).image))).toBeGreaterThan(60);
  });
});
