// The demo edit in Deno on its own WebGPU (wgpu, the one in Firefox).
// From a clone, after `npm run build`: deno run -A --unstable-webgpu examples/deno-wgpu/edit.ts [OUT]
import { decodeImage, demoModel, Kontext, saveImage } from 'kontext-webgpu';

const picture = new URL('../demo-model/inputs/apple-on-red.png', import.meta.url);
const kontext = await Kontext.load(demoModel());
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
