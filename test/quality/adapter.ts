// What the demo adapter does, measured through the SDK: right answers in black and white with it and without, for each storage of the weights.
// An answer is right when the scene nearest to it, of all 2,619, is the true one in greyscale. `npm run quality:adapter` with --draws N.
import { parseArgs } from 'node:util';
import { fromRgb, type PixelImage, toRgb } from '../../sdk/src/image/pixels.ts';
import { demoAdapter, demoModel, Kontext, type Quantization } from '../../sdk/src/node.ts';
import {
  describe,
  type EditKind,
  nearestScene,
  render,
  SCENE_SIZE,
  type SceneEdit,
  sampleEdit,
  seededRandom,
} from './scenes.ts';

const { values } = parseArgs({
  options: { draws: { type: 'string', default: '20' }, seed: { type: 'string', default: '20261125' } },
});
const draws = Number(values.draws);
const KINDS: EditKind[] = ['generate', 'background', 'replace', 'remove', 'add', 'move', 'resize'];
const random = seededRandom(Number(values.seed));
const cases = KINDS.flatMap((kind) =>
  Array.from({ length: draws }, () => ({ ...sampleEdit(random, kind), seed: Math.floor(random() * 2 ** 32) })),
);

console.log('| weights | scale | right, in black and white | PSNR to the true answer | colour left |');
console.log('| --- | --- | --- | --- | --- |');
for (const quantization of ['none', 'q8', 'q4'] satisfies Quantization[]) {
  await using kontext = await Kontext.load(demoModel(), { quantization });
  for (const scale of [0, 1]) {
    const sums = { right: 0, psnr: 0, colour: 0 };
    for (const one of cases) {
      const image = await answer(kontext, one, scale);
      const rgb = toRgb(image);
      const target = { ...one.target, effect: 'grayscale' } as const;
      const truth = render(target);
      if (describe(nearestScene(rgb).scene) === describe(target)) sums.right++;
      const squares = rgb.reduce((sum, v, i) => sum + (v - truth[i]!) ** 2, 0);
      sums.psnr += 10 * Math.log10(255 ** 2 / Math.max(squares / rgb.length, 1e-4));
      sums.colour += colour(rgb);
    }
    const n = cases.length;
    const name = quantization === 'none' ? `f${kontext.adapter?.features.includes('shader-f16') ? 16 : 32}` : quantization;
    console.log(
      `| ${name} | ${scale} | ${((100 * sums.right) / n).toFixed(0)} % | ${(sums.psnr / n).toFixed(1)} dB | ${(sums.colour / n).toFixed(1)} |`,
    );
  }
}
console.log(`\n${draws} draws of each of ${KINDS.length} kinds, seed ${values.seed}, 12 steps.`);
console.log('Colour left: mean difference of the largest and the smallest of red, green and blue, of 255.');

async function answer(kontext: Kontext, one: SceneEdit & { seed: number }, scale: number): Promise<PixelImage> {
  const { context, prompt, seed } = one;
  const adapters = [{ source: demoAdapter(), scale }];
  const { image } = context
    ? await kontext.edit({ image: fromRgb(render(context), SCENE_SIZE, SCENE_SIZE), prompt, seed, adapters })
    : await kontext.generate({ prompt, seed, adapters });
  return image;
}

function colour(rgb: Uint8Array): number {
  let sum = 0;
  for (let i = 0; i < rgb.length; i += 3) {
    sum += Math.max(rgb[i]!, rgb[i + 1]!, rgb[i + 2]!) - Math.min(rgb[i]!, rgb[i + 1]!, rgb[i + 2]!);
  }
  return sum / (rgb.length / 3);
}
