// Makes the pictures of the README and the guides with the demo model: `npm run docs:pictures`.
// They are results, not drawings: after a change of the model or the kernels, run it again and look.

import { mkdir } from 'node:fs/promises';
import sharp from 'sharp';
import { decodeImage, demoModel, Kontext, type PixelImage } from '../sdk/src/node.ts';

/** Demo pictures are 64 pixels wide; shown larger, without smoothing. */
const SCALE = 2;
const GAP = 8;
const inputs = 'examples/demo-model/inputs';
const folder = 'docs/pictures';

const EDITS: [file: string, prompts: string[]][] = [
  [
    'apple-on-red.png',
    ['make the background blue', 'replace the apple with a panda', 'make it black and white', 'make the apple smaller'],
  ],
  [
    'cat-on-green.png',
    ['move the cat to the right', 'remove the cat', 'change the cat to a rocket', 'invert the colors'],
  ],
];
const TURNS = [
  'make the background purple',
  'replace the apple with a tiger',
  'make the tiger smaller',
  'move the tiger to the left',
];

await mkdir(folder, { recursive: true });
await using kontext = await Kontext.load(demoModel());
const rows: PixelImage[][] = [];
for (const [file, prompts] of EDITS) {
  const image = await decodeImage(`${inputs}/${file}`, 'image');
  const row = [image];
  for (const prompt of prompts) row.push((await kontext.edit({ image, prompt, seed: 1 })).image);
  rows.push(row);
}
await sheet(`${folder}/edits.png`, rows);

const start = await decodeImage(`${inputs}/apple-on-red.png`, 'image');
const session = kontext.session(start);
const turns = [start];
for (const prompt of TURNS) turns.push((await session.edit(prompt, { seed: 1 })).image);
await sheet(`${folder}/session.png`, [turns]);
console.log(`Wrote ${folder}/edits.png and ${folder}/session.png`);

async function sheet(path: string, pictures: PixelImage[][]): Promise<void> {
  const side = pictures[0]![0]!.width * SCALE;
  const columns = Math.max(...pictures.map((row) => row.length));
  const placed = pictures.flatMap((row, y) => row.map((picture, x) => ({ picture, x, y })));
  const composite = await Promise.all(
    placed.map(async ({ picture, x, y }) => ({
      input: await sharp(Buffer.from(picture.data), {
        raw: { width: picture.width, height: picture.height, channels: 4 },
      })
        .resize(side, side, { kernel: 'nearest' })
        .png()
        .toBuffer(),
      left: GAP + x * (side + GAP),
      top: GAP + y * (side + GAP),
    })),
  );
  const [width, height] = [GAP + columns * (side + GAP), GAP + pictures.length * (side + GAP)];
  await sharp({ create: { width, height, channels: 3, background: 'white' } })
    .composite(composite)
    .png()
    .toFile(path);
}
