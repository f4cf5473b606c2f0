// Makes the pictures of the README and the guides with the demo model: `npm run docs:pictures`, or some by name:
// `npm run docs:pictures -- guide-mask guide-expand`. They are results, not drawings: after a change of the model or the kernels, look at them.

import { mkdir } from 'node:fs/promises';
import sharp from 'sharp';
import { decodeImage, demoAdapter, demoModel, type EditRequest, Kontext, type PixelImage } from '../sdk/src/node.ts';

/** Demo pictures are 64 pixels wide; shown larger, without smoothing. */
const SCALE = 2;
const GAP = 8;
const inputs = 'examples/demo-model/inputs';
const folder = 'docs/pictures';

const input = (name: string): Promise<PixelImage> => decodeImage(`${inputs}/${name}.png`, 'image');
type Edit = (image: PixelImage, prompt: string, more?: Partial<EditRequest>) => Promise<PixelImage>;

/** Rows of each picture; what stands in those of the guides is said beside them there. */
const PICTURES: Record<string, (edit: Edit, kontext: Kontext) => Promise<PixelImage[][]>> = {
  async edits(edit) {
    const rows: [file: string, prompts: string[]][] = [
      [
        'apple-on-red',
        [
          'make the background blue',
          'replace the apple with a panda',
          'make it black and white',
          'make the apple smaller',
        ],
      ],
      [
        'cat-on-green',
        ['move the cat to the right', 'remove the cat', 'change the cat to a rocket', 'invert the colors'],
      ],
    ];
    const pictures: PixelImage[][] = [];
    for (const [file, prompts] of rows) {
      const row = [await input(file)];
      for (const prompt of prompts) row.push(await edit(row[0]!, prompt));
      pictures.push(row);
    }
    return pictures;
  },

  async session(_, kontext) {
    const row = [await input('apple-on-red')];
    const session = kontext.session(row[0]!);
    for (const prompt of [
      'make the background purple',
      'replace the apple with a tiger',
      'make the tiger smaller',
      'move the tiger to the left',
    ])
      row.push((await session.edit(prompt, { seed: 1 })).image);
    return [row];
  },

  async 'guide-mask'(edit) {
    const cat = await input('cat-on-green');
    const mask = boxMask(cat, { left: 0, top: 0, right: 44, bottom: 64 });
    const prompt = 'change the cat to a panda';
    return [[cat, mask, await edit(cat, prompt), await edit(cat, prompt, { mask })]];
  },

  async 'guide-expand'(edit) {
    const cat = await input('cat-on-green');
    const prompt = 'make the background green';
    return [
      [
        cat,
        await edit(cat, prompt, { expand: { left: 32 } }),
        await edit(cat, prompt, { expand: { left: 16, top: 16, right: 16, bottom: 16 } }),
      ],
    ];
  },

  async 'guide-strength'(edit) {
    const cat = await input('cat-on-green');
    const row = [cat];
    const options = { steps: 20, context: false };
    for (const strength of [0.3, 0.5, 0.7, 0.9])
      row.push(await edit(cat, 'change the cat to a rocket', { ...options, strength }));
    return [row];
  },

  async 'guide-variants'(edit) {
    const empty = await input('empty-blue');
    const previews: PixelImage[] = [];
    const choose: EditRequest['choose'] = (shown) => {
      previews.push(...shown);
      return 2;
    };
    const chosen = await edit(empty, 'add a tiger', { steps: 12, variants: 4, variantSteps: 6, choose });
    return [[empty, ...previews, chosen]];
  },

  async 'guide-references'(edit) {
    const [cat, panda] = [await input('cat-on-green'), await input('panda-on-yellow')];
    const row = [cat, panda];
    for (const referencePositions of ['offset', 'index', 'stitched'] as const) {
      row.push(await edit(cat, 'change the cat to a panda', { references: [panda], referencePositions }));
    }
    return [row];
  },

  async 'guide-cache'(edit) {
    const cat = await input('cat-on-green');
    const row = [cat];
    for (const threshold of [undefined, 0.08, 0.3, 1]) {
      const cache = threshold === undefined ? {} : { cache: { kind: 'first-block', threshold } as const };
      row.push(await edit(cat, 'change the cat to a rabbit', { steps: 28, ...cache }));
    }
    return [row];
  },

  async 'guide-adapters'(edit) {
    const source = demoAdapter();
    const rows: PixelImage[][] = [];
    for (const [file, prompt] of [
      ['apple-on-red', 'make the background blue'],
      ['apple-on-red', 'turn the apple into a panda'],
      ['cat-on-green', 'replace the cat with a tiger'],
    ] as const) {
      const row = [await input(file)];
      for (const scale of [0, 0.5, 1]) row.push(await edit(row[0]!, prompt, { adapters: [{ source, scale }] }));
      rows.push(row);
    }
    return rows;
  },
};

const wanted = process.argv.length > 2 ? process.argv.slice(2) : Object.keys(PICTURES);
const unknown = wanted.find((name) => !(name in PICTURES));
if (unknown !== undefined)
  throw new Error(`There is no picture "${unknown}"; there are ${Object.keys(PICTURES).join(', ')}.`);
await mkdir(folder, { recursive: true });
await using kontext = await Kontext.load(demoModel());
const edit: Edit = async (image, prompt, more = {}) => (await kontext.edit({ image, prompt, seed: 1, ...more })).image;
for (const name of wanted) {
  const started = performance.now();
  // Masks are black and white: grey around them shows where they end.
  const around = name.startsWith('guide-') ? '#dddddd' : '#ffffff';
  await sheet(`${folder}/${name}.png`, await PICTURES[name]!(edit, kontext), around);
  console.log(`${folder}/${name}.png: ${((performance.now() - started) / 1000).toFixed(0)} s`);
}

/** White inside the box. */
function boxMask({ width, height }: PixelImage, box: { left: number; top: number; right: number; bottom: number }) {
  const data = Uint8ClampedArray.from({ length: 4 * width * height }, (_, i) => {
    const [x, y] = [(i >> 2) % width, Math.floor((i >> 2) / width)];
    const inside = x >= box.left && x < box.right && y >= box.top && y < box.bottom;
    return i % 4 === 3 || inside ? 255 : 0;
  });
  return { width, height, data };
}

/** Each picture in a square, larger ones at the scale of the first; previews are as large as what they show. */
async function sheet(path: string, pictures: PixelImage[][], background: string): Promise<void> {
  const first = pictures[0]![0]!.width;
  const most = Math.max(first, ...pictures.flat().map(({ width, height }) => Math.max(width, height)));
  const side = most * SCALE;
  const columns = Math.max(...pictures.map((row) => row.length));
  const placed = pictures.flatMap((row, y) => row.map((picture, x) => ({ picture, x, y })));
  const composite = await Promise.all(
    placed.map(async ({ picture, x, y }) => {
      const { width, height } = picture;
      const scale = width < first ? side / width : SCALE;
      const [wide, high] = [Math.round(width * scale), Math.round(height * scale)];
      return {
        input: await sharp(Buffer.from(picture.data), { raw: { width, height, channels: 4 } })
          .resize(wide, high, { kernel: 'nearest' })
          .png()
          .toBuffer(),
        left: GAP + x * (side + GAP) + Math.floor((side - wide) / 2),
        top: GAP + y * (side + GAP) + Math.floor((side - high) / 2),
      };
    }),
  );
  const [width, height] = [GAP + columns * (side + GAP), GAP + pictures.length * (side + GAP)];
  await sharp({ create: { width, height, channels: 3, background } })
    .composite(composite)
    .png()
    .toFile(path);
}
