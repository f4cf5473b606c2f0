// The demo edit in Deno on Dawn (the WebGPU of Chrome), from the npm package webgpu.
// From a clone, after `npm run build`: deno run -A examples/deno-dawn/edit.ts [OUT]

import { decodeImage, demoModel, Kontext, saveImage } from 'kontext-webgpu';
import { create } from 'webgpu';

// Dawn lives as long as this object.
const gpu = create(['enable-dawn-features=allow_unsafe_apis']);
const picture = new URL('../demo-model/inputs/apple-on-red.png', import.meta.url);
const kontext = await Kontext.load(demoModel(), { device: { gpu } });
const { image, options } = await kontext.edit({
  image: await decodeImage(picture, 'picture'),
  prompt: 'make the background blue',
  steps: 4,
  seed: 7,
});
const out = process.argv[2] ?? 'edited.png';
await saveImage(out, image);
console.log(
  `${out} on ${kontext.adapter?.description || kontext.adapter?.vendor || 'an adapter'}, ${options.precision}`,
);
await kontext.close();
