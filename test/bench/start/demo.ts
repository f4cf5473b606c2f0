// One start of the demo model: from the beginning of the process to the end of the first denoising step.
// Run by run.ts in a process of its own; the argument is a bundle, and without one programs are compiled here.

import { demoModel, Kontext } from '../../../sdk/src/node.ts';

const [programs] = process.argv.slice(2);
const kontext = await Kontext.load(demoModel(), programs === undefined ? {} : { programs });
const loaded = performance.now();
let stepped = 0;
const width = 64;
const image = { width, height: width, data: new Uint8ClampedArray(width * width * 4).fill(128) };
await kontext.edit({
  image,
  prompt: 'make the background blue',
  steps: 2,
  seed: 7,
  onProgress: ({ type }) => {
    if (type === 'step') stepped ||= performance.now();
  },
});
await kontext.close();
// `performance.now()` counts from the start of the process.
console.log(JSON.stringify({ 'model and device open': loaded, 'first step done': stepped }));
