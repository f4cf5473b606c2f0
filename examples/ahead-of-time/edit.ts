// Compiles a bundle for this machine, then edits from it without the compiler: npx tsx examples/ahead-of-time/edit.ts [PICTURE] [OUT]
// In a project the first half is a line of the build (kontext compile …) and the bundle is committed or shipped with the app.
import { execFileSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { demoModel, Kontext, saveImage } from 'kontext-webgpu';

const here = (path: string) => fileURLToPath(new URL(path, import.meta.url));
const [picture = here('../demo-model/inputs/apple-on-red.png'), out = 'edited.png'] = process.argv.slice(2);
const [programs, steps] = [here('../../out/ahead-of-time'), 4];

// At build time. For others' GPUs: --target nvidia,apple-m, or a profile printed by `kontext targets --probe`.
const options = [
  '--model',
  'demo',
  '--size',
  '64x64',
  '--steps',
  `${steps}`,
  '--quantization',
  'none',
  '--target',
  'this',
];
const kontextCommand = ['--import', 'tsx', here('../../sdk/src/cli/main.ts')];
const compile = [...kontextCommand, 'compile', ...options, '-o', programs];
execFileSync(process.execPath, compile, { stdio: 'inherit', cwd: here('../..') });

// At run time. Also: import programs from './ahead-of-time/index.js'.
await using kontext = await Kontext.load(demoModel(), { programs });
const { image, timings } = await kontext.edit({ image: picture, prompt: 'make the background blue', seed: 1, steps });
await saveImage(out, image);
console.log(
  `${out}, ${(timings.totalMs / 1000).toFixed(1)} s, of which ${(timings.loadMs / 1000).toFixed(1)} s loading`,
);
