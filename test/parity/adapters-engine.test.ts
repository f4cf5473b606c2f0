// Adapters through the engine and the command line: the reference's edit with a transformer and CLIP adapter, strengths changed between
// edits without loading, memory, refusals after which the engine still works.
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { runCommand } from '../../sdk/src/cli/command.ts';
import { decodeImage } from '../../sdk/src/image/node.ts';
import type { PixelImage } from '../../sdk/src/image/pixels.ts';
import type { EditRequest, EditResult } from '../../sdk/src/kontext/types.ts';
import { Kontext } from '../../sdk/src/node.ts';
import { adapterFile } from '../support/adapters.ts';
import { countedFiles } from '../support/counted-files.ts';
import { pipelineFile, pipelineModel, writePipelineModel } from '../support/pipeline-model.ts';
import { psnr } from '../support/psnr.ts';
import { readSafetensors } from '../support/safetensors.ts';

const TIMEOUT = 600_000;
const file = adapterFile('formats/pipeline_kohya.safetensors');
const expected = readSafetensors(adapterFile('formats/pipeline_edit.safetensors'));
const request = {
  image: pipelineFile('input_1.png'),
  prompt: 'a glass fish on a windowsill',
  steps: 3,
  seed: 5,
  size: { width: 64, height: 48 },
  maxArea: 3072,
  autoResize: false,
  maxSequenceLength: 32,
} satisfies EditRequest;

/** The model, with what is read of its transformer counted. */
let bytesRead = 0;
const counted = () =>
  countedFiles(
    pipelineModel(),
    (name) => name.startsWith('transformer/'),
    (bytes) => {
      bytesRead += bytes;
    },
  );

let kontext: Kontext;
let base: EditResult;
beforeAll(async () => {
  kontext = await Kontext.load(counted(), { precision: 'f32', memory: 'resident' });
  base = await kontext.edit(request);
}, TIMEOUT);
afterAll(() => kontext.close());

const wanted: PixelImage = { width: 64, height: 48, data: new Uint8ClampedArray(64 * 48 * 4).fill(255) };
(expected.get('out.image_uint8')!.data as Uint8Array).forEach((value, i) => {
  wanted.data[Math.floor(i / 3) * 4 + (i % 3)] = value;
});

describe('adapters in the engine', { timeout: TIMEOUT }, () => {
  it('edits as the reference does with transformer and CLIP adapter', async () => {
    const { image, options, memory } = await kontext.edit({ ...request, adapters: [{ source: file, scale: 0.8 }] });
    expect(psnr(image, wanted)).toBeGreaterThan(55);
    expect(psnr(base.image, wanted)).toBeLessThan(40);
    expect(options.adapters).toEqual([{ name: 'pipeline_kohya', scale: 0.8 }]);
    expect(memory.adapterBytes).toBeGreaterThan(0);
  });

  it('goes back to the bits of no adapter, at scale 0 and without, and frees its memory', async () => {
    const zero = await kontext.edit({ ...request, adapters: [{ source: file, scale: 0 }] });
    expect(zero.image.data).toEqual(base.image.data);
    const none = await kontext.edit(request);
    expect(none.image.data).toEqual(base.image.data);
    expect(none.options.adapters).toBeUndefined();
    expect(none.memory.adapterBytes).toBe(0);
    expect(none.memory.weightBytes).toBe(base.memory.weightBytes);
  });

  it('changes strength without loading the transformer or compiling anything again', async () => {
    await kontext.edit({ ...request, adapters: [{ source: file, scale: 0.8 }] });
    const before = bytesRead;
    const other = await kontext.edit({
      ...request,
      adapters: [{ source: file, scale: { '*': 0.3, 'single_blocks.*': -0.5, 'clip.*': 0.8 } }],
    });
    expect(other.image.data).not.toEqual(base.image.data);
    expect(bytesRead).toBe(before);
    // Another adapter, and none: the weights are there all the same.
    await kontext.edit({ ...request, adapters: [{ source: new Uint8Array(readFileSync(file)), scale: 0.5 }] });
    await kontext.edit(request);
    expect(bytesRead).toBe(before);
  });

  it('takes parts by pattern: the text encoder alone differs from the whole', async () => {
    const images: Uint8ClampedArray[] = [];
    for (const scale of [0.8, { 'clip.*': 0, '*_blocks.*': 0.8 }, { '*_blocks.*': 0, 'clip.*': 0.8 }] as const) {
      images.push((await kontext.edit({ ...request, adapters: [{ source: file, scale }] })).image.data);
    }
    images.push(base.image.data);
    for (let i = 0; i < images.length; i++) {
      for (let j = 0; j < i; j++) expect(images[i], `${i} and ${j}`).not.toEqual(images[j]);
    }
  });

  it('runs in every part of a denoising program that remembers steps', async () => {
    const adapters = [{ source: file, scale: 0.8 }];
    // A threshold that no step is below: everything is computed, in two programs instead of one.
    const cache = { kind: 'first-block', threshold: 1e-6 } as const;
    const { image } = await kontext.edit({ ...request, adapters, cache });
    expect(psnr(image, wanted)).toBeGreaterThan(55);
  });

  it('keeps memory flat over switches', async () => {
    const use: number[] = [];
    for (let i = 0; i < 9; i++) {
      const adapters = i % 3 === 2 ? [] : [{ source: file, scale: i % 3 ? 0.5 : -1 }];
      const { memory } = await kontext.edit({ ...request, steps: 1, adapters });
      if (i % 3 === 0) use.push(memory.weightBytes + memory.adapterBytes + memory.activationBytes);
    }
    expect(new Set(use.slice(1)).size).toBe(1);
  });

  it('refuses what it cannot use, naming it, and works on', async () => {
    const bytes = new Uint8Array(readFileSync(file));
    const refusals: [EditRequest['adapters'], RegExp][] = [
      [[{ name: 'nobody' }], /no adapter "nobody"/],
      [[{}], /neither name nor source/],
      [[{ source: file, scale: 11 }], /from −10 to 10/],
      [[{ source: file, scale: Number.NaN }], /from −10 to 10/],
      [[{ source: file, scale: { 'no_block.*': 1 } }], /No module .* matches "no_block/],
      [[{ source: file, weight: 1 } as never], /Unknown option weight/],
      [file as never, /must be a list/],
      [[{ source: bytes.slice(0, 4000) }], /not a usable safetensors file/],
      [[{ source: pipelineFile('input_1.png') }], /safetensors/],
      [[{ source: adapterFile('formats/second.safetensors') }], /the model has no such module/],
      [[{ source: pipelineFile('model/vae/diffusion_pytorch_model.safetensors') }], /no adapter for this model/],
      [[{ source: '/nowhere/style.safetensors' }], /style\.safetensors/],
    ];
    for (const [adapters, message] of refusals) {
      await expect(kontext.edit({ ...request, adapters }), String(message)).rejects.toThrow(message);
    }
    expect((await kontext.edit(request)).image.data).toEqual(base.image.data);
  });

  it('merged while loading gives the same picture, and no other strength', async () => {
    const merged = await Kontext.load(pipelineModel(), {
      precision: 'f32',
      adapters: [{ name: 'glass', source: file, scale: 0.8 }],
      merge: true,
    });
    try {
      const { image, options } = await merged.edit(request);
      expect(psnr(image, wanted)).toBeGreaterThan(55);
      expect(options.adapters).toEqual([{ name: 'glass', scale: 0.8 }]);
      await expect(merged.edit({ ...request, adapters: [{ name: 'glass', scale: 1 }] })).rejects.toThrow(
        /merged into the weights/,
      );
    } finally {
      await merged.close();
    }
  });

  it('of the load serves every request that names no others; the command line does the same', async () => {
    const folder = mkdtempSync(join(tmpdir(), 'kontext-lora-'));
    try {
      writePipelineModel(join(folder, 'model'));
      const out = join(folder, 'out.png');
      const code = await runCommand(
        ['edit', request.image, request.prompt, '-o', out, '--model', join(folder, 'model'), '--lora', `${file}:0.8`]
          .concat(['--precision', 'f32', '--steps', '3', '--seed', '5', '--size', '64x48', '--max-area', '3072'])
          .concat(['--no-auto-resize', '--max-sequence-length', '32', '--quiet']),
        new AbortController().signal,
      );
      expect(code).toBe(0);
      const picture = await decodeImage(out, 'result');
      const loaded = await Kontext.load(pipelineModel(), {
        precision: 'f32',
        adapters: [{ source: file, scale: 0.8 }],
      });
      try {
        expect(picture.data).toEqual((await loaded.edit(request)).image.data);
        expect((await loaded.edit({ ...request, adapters: [] })).image.data).toEqual(base.image.data);
        const half = await loaded.edit({ ...request, adapters: [{ name: 'pipeline_kohya', scale: 0.4 }] });
        expect(half.options.adapters).toEqual([{ name: 'pipeline_kohya', scale: 0.4 }]);
      } finally {
        await loaded.close();
      }
    } finally {
      rmSync(folder, { recursive: true });
    }
  });
});
