// The demo edit in Deno: on its own WebGPU (wgpu, another implementation than Chrome's) and on Dawn.
// Both must make the picture that Node makes; without Deno's binary the tests say so and are skipped.
import { execFileSync, spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, describe, expect, it } from 'vitest';
import { decodeImage } from '../../sdk/src/image/node.ts';
import { Kontext, type PixelImage } from '../../sdk/src/node.ts';
import { psnr } from '../support/psnr.ts';

const root = fileURLToPath(new URL('../..', import.meta.url));
const deno = join(root, 'node_modules/.bin/deno');
const found = spawnSync(deno, ['--version'], { encoding: 'utf8' });
if (found.status !== 0)
  console.log('Deno is not installed: its tests are skipped (npm install puts it into node_modules).');

const folder = mkdtempSync(join(tmpdir(), 'kontext-deno-'));
afterAll(() => rmSync(folder, { recursive: true }));

/** Node's picture of the examples' edit, made once for each precision. */
const pictures = new Map<string, Promise<PixelImage>>();
function pictureOfNode(precision: 'f16' | 'f32'): Promise<PixelImage> {
  const picture = pictures.get(precision) ?? editInNode(precision);
  pictures.set(precision, picture);
  return picture;
}

async function editInNode(precision: 'f16' | 'f32'): Promise<PixelImage> {
  await using kontext = await Kontext.load(`${root}examples/demo-model/model`, { precision });
  const { image } = await kontext.edit({
    image: `${root}examples/demo-model/inputs/apple-on-red.png`,
    prompt: 'make the background blue',
    steps: 4,
    seed: 7,
  });
  return image;
}

describe.skipIf(found.status !== 0)('Deno', () => {
  it.each([
    ['deno-dawn', [] as string[]],
    ['deno-wgpu', ['--unstable-webgpu']],
  ])('%s makes the demo edit', async (example, flags) => {
    const out = join(folder, `${example}.png`);
    const said = execFileSync(deno, ['run', '-A', ...flags, `examples/${example}/edit.ts`, out], {
      cwd: root,
      encoding: 'utf8',
    });
    console.log(said.trim());
    const precision = /f16|f32/.exec(said)![0] as 'f16' | 'f32';
    const decibels = psnr(await decodeImage(out, 'output'), await pictureOfNode(precision));
    console.log(`${example}: ${decibels.toFixed(1)} dB of Node's ${precision}`);
    // The bounds of the reference pictures: sums in another order in f32, rounding of the operands in f16.
    expect(decibels).toBeGreaterThan(precision === 'f32' ? 45 : 38);
  });
});
