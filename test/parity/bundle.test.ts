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
  const picture = (level: (i: number) => number) => ({
    width: 64,
    height: 64,
    data: Uint8ClampedArray.from({ length: 64 * 64 * 4 }, (_, i) => (i % 4 === 3 ? 255 : level(i))),
  });
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
});

it('serves guided attention, CFG-Zero* and region caches with the compiled bits, or names the flag before any work', {
  timeout: TIMEOUT,
}, async () => {
  const [guided, plain, input, mask] = ['guided', 'plain', 'in.png', 'mask.png'].map((name) => join(folder, name));
  const sizes = ['--size', '64x64', '--steps', '4', '--quantization', 'none'];
  const flags = ['--nag', '--cfg-zero', '--cache', 'region'];
  await cli('compile', '--model', 'demo', '--target', 'this', ...sizes, ...flags, '-o', guided!);
  await cli('compile', '--model', 'demo', '--target', 'this', ...sizes, '-o', plain!);
  const picture = (level: (i: number) => number) => ({
    width: 64,
    height: 64,
    data: Uint8ClampedArray.from({ length: 64 * 64 * 4 }, (_, i) => (i % 4 === 3 ? 255 : level(i >> 2))),
  });
  await saveImage(
    input!,
    picture((i) => (i * 7) & 255),
  );
  await saveImage(
    mask!,
    picture((i) => (i < 64 * 32 ? 255 : 0)),
  );
  const cases = [
    { name: 'nag', flag: '--nag', options: { negativePrompt: 'day', nagScale: 5 } },
    { name: 'zero', flag: '--cfg-zero', options: { negativePrompt: 'day', trueCfgScale: 3, cfgZeroStar: true } },
    {
      name: 'region',
      flag: '--cache region',
      options: { mask: mask!, maskPaddingCrop: 32, cache: { kind: 'region', interval: 8, start: 2, margin: 1 } },
    },
  ] as const;
  const words = {
    nag: ['--negative-prompt', 'day', '--nag-scale', '5'],
    zero: ['--negative-prompt', 'day', '--true-cfg-scale', '3', '--cfg-zero-star'],
    region: ['--mask', mask!, '--mask-padding-crop', '32', '--cache', 'region:8'],
  };
  await using kontext = await Kontext.load(demoModel(), { programs: guided! });
  await using lacking = await Kontext.load(demoModel(), { programs: plain! });
  for (const { name, flag, options } of cases) {
    const request = { image: input!, prompt: 'make it night', steps: 4, seed: 7, ...options };
    const events: string[] = [];
    const refused = lacking.edit({ ...request, onProgress: ({ type }) => events.push(type) });
    await expect(refused, name).rejects.toMatchObject({
      code: 'program-mismatch',
      message: expect.stringContaining(`kontext compile ${flag}`),
    });
    expect(events, name).not.toContain('load');
    const expected = join(folder, `${name}.png`);
    await cli('edit', input!, 'make it night', '--steps', '4', '--seed', '7', ...words[name], '-o', expected);
    const { image, skipped } = await kontext.edit(request);
    expect(image, name).toEqual(await decodeImage(expected, name));
    expect(skipped, name).toBe(name === 'region' ? 2 : undefined);
  }
});
