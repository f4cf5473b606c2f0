// An edit from a bundle equals the one compiled in the process, bit for bit, and never loads the compiler.
// The compiler's modules throw when imported here; bundle and expected picture come from processes of their own.

import { execFile } from 'node:child_process';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { afterAll, beforeAll, expect, it, vi } from 'vitest';
import { decodeImage, saveImage } from '../../sdk/src/image/node.ts';
import { demoModel } from '../../sdk/src/model/demo.ts';
import { type BundleSource, Kontext } from '../../sdk/src/node.ts';

const forbidden = vi.hoisted(() => () => {
  throw new Error('the compiler was loaded');
});
vi.mock('../../kernels-codegen/src/compile.ts', forbidden);
vi.mock('../../kernels-codegen/src/models/specs.ts', forbidden);
vi.mock('../../kernels-codegen/src/targets/profiles.ts', forbidden);

const TIMEOUT = 600_000;
const root = new URL('../..', import.meta.url).pathname;
const cli = (...args: string[]) =>
  promisify(execFile)(process.execPath, ['--import', 'tsx', 'sdk/src/cli/main.ts', ...args], { cwd: root });

const picture = (level: (i: number) => number) => ({
  width: 64,
  height: 64,
  data: Uint8ClampedArray.from({ length: 64 * 64 * 4 }, (_, i) => (i % 4 === 3 ? 255 : level(i))),
});

let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'kontext-edit-'));
});
afterAll(() => rm(folder, { recursive: true }));

it('the demo edit from a bundle is the compiled one', { timeout: TIMEOUT }, async () => {
  const [bundle, input, expected] = ['bundle', 'input.png', 'expected.png'].map((name) => join(folder, name));
  const data = Uint8ClampedArray.from({ length: 64 * 64 * 4 }, (_, i) => (i % 4 === 3 ? 255 : (i * 7) & 255));
  await saveImage(input!, { width: 64, height: 64, data });
  const sizes = ['--size', '64x64', '--steps', '2', '--quantization', 'none'];
  await cli('compile', '--model', 'demo', '--target', 'this', ...sizes, '-o', bundle!);
  await cli('edit', input!, 'make it night', '--steps', '2', '--seed', '7', '-o', expected!);

  const started = performance.now();
  const { default: programs } = (await import(/* @vite-ignore */ `${bundle}/index.js`)) as { default: BundleSource };
  const kontext = await Kontext.load(demoModel(), { programs });
  try {
    const request = { image: input!, prompt: 'make it night', steps: 2, seed: 7 };
    const { image } = await kontext.edit(request);
    console.log(`from the bundle: ${(performance.now() - started).toFixed(0)} ms`);
    expect(image).toEqual(await decodeImage(expected!, 'expected'));
    // The guard is awake: whatever is not in the bundle must not be compiled behind the app's back.
    const other = kontext.edit({ ...request, steps: 3 });
    await expect(other).rejects.toMatchObject({ code: 'program-mismatch', details: { component: 'modulation' } });
  } finally {
    await kontext.close();
  }
  // By its folder, and of a quantisation that is not in it: refused before the first weight is read.
  const events: string[] = [];
  await using quantized = await Kontext.load(demoModel(), { programs: bundle!, quantization: 'q8' });
  const refused = quantized.edit({ image: input!, prompt: 'x', steps: 2, onProgress: ({ type }) => events.push(type) });
  await expect(refused).rejects.toMatchObject({ code: 'program-mismatch', message: expect.stringContaining('"q8"') });
  expect(events).not.toContain('load');
  const justInTime = Kontext.load(demoModel());
  await expect(justInTime).rejects.toThrow(/the compiler was loaded|mock/);
});

it('serves masks, samplers, strength, variants, expanding and caches, whose programs it holds', {
  timeout: TIMEOUT,
}, async () => {
  const bundle = join(folder, 'editing');
  const sizes = ['--size', '64x64', '--steps', '2,1', '--quantization', 'none'];
  const more = ['--cache', 'first-block,taylor', '--image-to-image'];
  await cli('compile', '--model', 'demo', '--target', 'this', ...sizes, ...more, '-o', bundle);
  await using kontext = await Kontext.load(demoModel(), { programs: bundle });
  const image = picture((i) => (i * 7) & 255);
  const mask = picture((i) => (i < 64 * 64 * 2 ? 255 : 0));
  const request = { image, prompt: 'make it night', steps: 2, seed: 7 };
  const masked = await kontext.edit({ ...request, mask, sampler: 'dpmpp_2m', strength: 0.5 });
  const half = 64 * 64 * 2;
  expect(masked.image.data.subarray(half)).toEqual(image.data.subarray(half));
  expect(masked.image.data.subarray(0, half)).not.toEqual(image.data.subarray(0, half));
  expect((await kontext.edit({ ...request, expand: { left: 16 } })).image.width).toBe(80);
  expect((await kontext.edit({ ...request, variants: 2, choose: () => 1 })).seed).toBe(8);
  const cached = await kontext.edit({ ...request, cache: { kind: 'first-block', threshold: 10 } });
  const foreseen = await kontext.edit({ ...request, cache: { kind: 'taylor', start: 1, interval: 5 } });
  expect([cached.skipped, foreseen.skipped]).toEqual([1, expect.any(Number)]);
  expect((await kontext.edit({ ...request, context: false, strength: 0.5 })).image.width).toBe(64);
  // What it was not compiled for is refused before any work, and the flag named.
  for (const [flag, options] of [
    ['--nag', { negativePrompt: 'day', nagScale: 5 }],
    ['--cfg-zero', { negativePrompt: 'day', trueCfgScale: 3, cfgZeroStar: true }],
    ['--cache region', { mask, maskPaddingCrop: 0, cache: { kind: 'region' } }],
  ] as const) {
    const events: string[] = [];
    const refused = kontext.edit({ ...request, ...options, onProgress: ({ type }) => events.push(type) });
    await expect(refused, flag).rejects.toMatchObject({
      code: 'program-mismatch',
      message: expect.stringContaining(`kontext compile ${flag}`),
    });
    expect(events, flag).not.toContain('stage');
  }
});

it('serves guided attention, CFG-Zero* and region caches with the compiled bits', { timeout: TIMEOUT }, async () => {
  const [bundle, input, mask] = ['guided', 'in.png', 'mask.png'].map((name) => join(folder, name));
  const sizes = ['--size', '64x64', '--steps', '3', '--quantization', 'none'];
  await cli(
    ...['compile', '--model', 'demo', '--target', 'this', ...sizes, '--nag', '--cfg-zero'],
    ...['--cache', 'region', '-o', bundle!],
  );
  await saveImage(
    input!,
    picture((i) => (i * 7) & 255),
  );
  await saveImage(
    mask!,
    picture((i) => (i < 64 * 32 * 4 ? 255 : 0)),
  );
  await using kontext = await Kontext.load(demoModel(), { programs: bundle! });
  const request = { image: input!, prompt: 'make it night', steps: 3, seed: 7 };
  const same = async (name: string, options: object, ...words: string[]) => {
    const expected = join(folder, `${name}.png`);
    await cli('edit', input!, request.prompt, '--steps', '3', '--seed', '7', ...words, '-o', expected);
    const { image, skipped } = await kontext.edit({ ...request, ...options });
    expect(image, name).toEqual(await decodeImage(expected, name));
    return skipped;
  };
  await same('nag', { negativePrompt: 'day', nagScale: 5 }, '--negative-prompt', 'day', '--nag-scale', '5');
  const region = { mask: mask!, maskPaddingCrop: 32, cache: { kind: 'region', interval: 8 } };
  const words = ['--mask', mask!, '--mask-padding-crop', '32', '--cache', 'region:8'];
  expect(await same('region', region, ...words)).toBe(1);
  const zero = await kontext.edit({ ...request, negativePrompt: 'day', trueCfgScale: 3, cfgZeroStar: true });
  expect(zero.evaluations).toBe(4);
});
