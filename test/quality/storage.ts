// What storing the matrices smaller costs the demo model's edits: right answers and distance to f16's pictures, on the same scenes.
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { openDevice } from '../../runtime/src/index.ts';
import { openModel } from '../../sdk/src/model/open.ts';
import { packModel } from '../../sdk/src/model/pack.ts';
import type { PackRules } from '../../sdk/src/model/pack-formats.ts';
import { Kontext, type LoadOptions, type PixelImage } from '../../sdk/src/node.ts';
import { psnr } from '../support/psnr.ts';
import { judge, picture } from './judge.ts';
import { EDIT_KINDS, sampleEdit } from './scenes.ts';

/** Storages that `quantization` of `Kontext.load` has, and rules of `kontext pack` that it has not. */
const RULES: Record<string, PackRules> = {
  // Every matrix that the rows allow, modulation, embedders and last layer too.
  'q4-everywhere': { '*': 'q4' },
  // Single blocks, whose error is by far the largest (`npm run bench:quantisation -- --kinds`), and T5 in q8.
  mixed: { transformer: 'q4', t5: 'q8', 'single_blocks.*': 'q8' },
};

/**
 * Prints a table: each of `names` (`f16`, `q8`, `q4`, `q4-everywhere`, `mixed`) on `draws` scenes of each kind.
 */
export async function measureStorage(
  model: string,
  names: readonly string[],
  draws: number,
  random: () => number,
): Promise<void> {
  const scenes = EDIT_KINDS.flatMap((kind) =>
    Array.from({ length: draws }, () => ({ ...sampleEdit(random, kind), seed: Math.floor(random() * 2 ** 32) })),
  );
  const imagesOf = async (source: string, options: LoadOptions) => {
    await using kontext = await Kontext.load(source, options);
    const images: PixelImage[] = [];
    let weightBytes = 0;
    for (const { context, prompt, seed } of scenes) {
      const result = context
        ? await kontext.edit({ image: picture(context), prompt, seed })
        : await kontext.generate({ prompt, seed });
      images.push(result.image);
      weightBytes = Math.max(weightBytes, result.memory.weightBytes);
    }
    return { images, weightBytes };
  };
  const f16 = await imagesOf(model, { quantization: 'f16', memory: 'resident' });
  console.log(
    '| storage | GPU weights | right answers | PSNR to the true answer | PSNR to f16: mean, least |\n| --- | --- | --- | --- | --- |',
  );
  for (const name of names) {
    const rules = RULES[name];
    const { images, weightBytes } =
      name === 'f16'
        ? f16
        : rules
          ? await withPacked(model, rules, (folder) => imagesOf(folder, { memory: 'resident' }))
          : await imagesOf(model, {
              quantization: name as NonNullable<LoadOptions['quantization']>,
              memory: 'resident',
            });
    const answers = images.map((image, i) => judge(image, scenes[i]!.target));
    const mean = (numbers: number[]) => numbers.reduce((sum, number) => sum + number, 0) / numbers.length;
    const near = images.map((image, i) => psnr(image, f16.images[i]!));
    console.log(
      `| ${name} | ${(weightBytes / 1e6).toFixed(1)} MB | ${answers.filter(({ right }) => right).length} of ${scenes.length} | ` +
        `${mean(answers.map((answer) => answer.psnr)).toFixed(1)} dB | ` +
        `${name === 'f16' ? 'the same' : `${mean(near).toFixed(1)} dB, ${Math.min(...near).toFixed(1)} dB`} |`,
    );
  }
  console.log(`\n${draws} scenes of each kind, ${scenes.length} in all, the same for every row.`);
}

async function withPacked<T>(place: string, rules: PackRules, use: (folder: string) => Promise<T>): Promise<T> {
  const folder = mkdtempSync(join(tmpdir(), 'kontext-quality-'));
  try {
    const gpu = await openDevice();
    const model = await openModel(place);
    try {
      await packModel(model, gpu, folder, { quantization: rules });
    } finally {
      await model.close();
      gpu.destroy();
    }
    return await use(folder);
  } finally {
    rmSync(folder, { recursive: true });
  }
}
