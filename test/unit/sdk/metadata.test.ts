// What pictures say about how they were made: written as others write it, read back whole, and nothing believed that comes from outside.
import { writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import sharp from 'sharp';
import { describe, expect, it } from 'vitest';
import { withSettingsOf } from '../../../sdk/src/cli/from-picture.ts';
import { MAX_JPEG_EXIF } from '../../../sdk/src/image/metadata/containers.ts';
import { writeExif } from '../../../sdk/src/image/metadata/exif.ts';
import { readParameters, writeParameters } from '../../../sdk/src/image/metadata/parameters.ts';
import { readPngText, writePngText } from '../../../sdk/src/image/metadata/png-text.ts';
import { settingsIn } from '../../../sdk/src/image/metadata/settings.ts';
import type { MadeWith } from '../../../sdk/src/image/metadata/types.ts';
import { decodeImage, encodeImage, readSettings } from '../../../sdk/src/image/node.ts';
import type { PixelImage } from '../../../sdk/src/image/pixels.ts';
import { REQUEST_OPTIONS } from '../../../sdk/src/kontext/options.ts';
import { checkRequest } from '../../../sdk/src/kontext/request.ts';

const made: MadeWith = {
  width: 64,
  height: 48,
  prompt: 'ein Ball, größer: 大\nsecond line',
  negativePrompt: 'blurry, "dark": x',
  trueCfgScale: 3.5,
  steps: 12,
  guidance: 2.5,
  maxSequenceLength: 256,
  conditioning: 'exact',
  precision: 'f32',
  references: [{ width: 64, height: 48 }],
  sampler: 'euler_ancestral',
  eta: 0.5,
  schedule: 'sgm_uniform',
  strength: 0.75,
  cache: { kind: 'first-block', threshold: 0.08 },
  cfgInterval: [0.2, 0.8],
  seed: 2n ** 63n + 5n,
  model: 'some model, v1: "final"',
};
/** The same as options of a request. */
const options = {
  prompt: made.prompt,
  negativePrompt: made.negativePrompt,
  trueCfgScale: 3.5,
  steps: 12,
  guidance: 2.5,
  maxSequenceLength: 256,
  size: '64x48',
  sampler: 'euler_ancestral',
  eta: 0.5,
  schedule: 'sgm_uniform',
  strength: 0.75,
  cache: made.cache,
  cfgInterval: [0.2, 0.8],
  seed: 2n ** 63n + 5n,
};

const picture = (alpha: number): PixelImage => ({
  width: 64,
  height: 48,
  data: Uint8ClampedArray.from({ length: 4 * 64 * 48 }, (_, i) => (i % 4 === 3 ? alpha : (i * 7) % 256)),
});

describe('settings in a picture’s file', () => {
  it.each([
    ['png', 255, 92],
    ['png', 128, 92],
    ['jpeg', 255, 92],
    ['webp', 255, 92],
    ['webp', 128, 92],
    ['webp', 128, 100],
    ['webp', 255, 100],
  ] as const)(
    'come back from %s with alpha %d at quality %d, and leave the pixels alone',
    async (format, alpha, quality) => {
      const file = await encodeImage(picture(alpha), format, { quality, settings: made });
      expect(await readSettings(file)).toEqual({ options, unused: [] });
      const plain = await encodeImage(picture(alpha), format, { quality });
      const raw = (bytes: Uint8Array) => sharp(bytes).raw().toBuffer({ resolveWithObject: true });
      expect(await raw(file)).toEqual(await raw(plain));
      expect((await sharp(file).metadata()).exif === undefined).toBe(format === 'png');
      await expect(readSettings(plain)).rejects.toMatchObject({ code: 'image-invalid' });
      // What is read back is a request as it stands.
      expect(checkRequest({ ...options, image: picture(255) } as never)).toMatchObject({ steps: 12, eta: 0.5 });
    },
  );

  it('are the text that web interfaces write', () => {
    expect(writeParameters({ ...made, seed: 7 }, { width: 640, height: 480 })).toBe(
      'ein Ball, größer: 大\nsecond line\nNegative prompt: blurry, "dark": x\n' +
        'Steps: 12, Sampler: Euler a, Schedule type: SGM Uniform, CFG scale: 3.5, Distilled CFG Scale: 2.5, Seed: 7, ' +
        'Size: 640x480, Model: "some model, v1: \\"final\\"", Denoising strength: 0.75, Eta: 0.5, Version: kontext-webgpu',
    );
  });

  it('are read from what web interfaces write, names as they and ComfyUI have them', () => {
    const line = (more: string) => `a cat\nSteps: 20, ${more}, Seed: 123, Size: 512x768, Model hash: 0a1b, Model: flux`;
    const read = (more: string) => readParameters(line(more))!;
    expect(read('Sampler: DPM++ 2M, Schedule type: Simple, CFG scale: 1, Distilled CFG Scale: 3.5')).toEqual({
      options: {
        prompt: 'a cat',
        steps: 20,
        sampler: 'dpmpp_2m',
        schedule: 'simple',
        guidance: 3.5,
        seed: 123n,
        size: '512x768',
      },
      unused: [],
    });
    for (const sampler of REQUEST_OPTIONS.sampler.choices) {
      for (const schedule of REQUEST_OPTIONS.schedule.choices.filter((name) => name !== 'model')) {
        const expected = { sampler, schedule };
        expect(read(`Sampler: ${sampler}, Schedule type: ${schedule}`).options).toMatchObject(expected);
        expect(read(`Sampler: ${sampler}_${schedule}`).options).toMatchObject(expected);
        const text = writeParameters({ ...made, sampler, schedule }, made);
        expect(readParameters(text)!.options).toMatchObject(expected);
      }
    }
    const odd = read('Sampler: UniPC, Schedule type: Karras, CFG scale: 7, Clip skip: 2, Lora hashes: "a: 1, b: 2"');
    expect(odd.options).toEqual({ prompt: 'a cat', steps: 20, seed: 123n, size: '512x768' });
    expect(odd.unused.map(({ name }) => name)).toEqual([
      'Clip skip',
      'Lora hashes',
      'CFG scale',
      'Sampler',
      'Schedule type',
    ]);
    expect(readParameters('just a caption')).toBeUndefined();
    expect(readParameters('x'.repeat(2 ** 21))).toBeUndefined();
  });

  it('are read from files of other programs: Latin-1 text chunks, comments in either byte order, ASCII', async () => {
    const text = 'a caf\u00e9\nSteps: 4, Sampler: Euler, Seed: 1, Size: 64x48';
    const expected = {
      options: { prompt: 'a caf\u00e9', steps: 4, sampler: 'euler', seed: 1, size: '64x48' },
      unused: [],
    };
    const png = writePngText(await encodeImage(picture(255), 'png'), text, 'parameters');
    expect(new TextDecoder('latin1').decode(png)).toContain('tEXtparameters\0a caf\u00e9');
    expect(settingsIn(png)).toEqual(expected);
    const jpeg = await encodeImage(picture(255), 'jpeg', { settings: { ...made, seed: 3 } });
    const comment = (code: string, bytes: Uint8Array) => {
      const block = writeExif({ comment: '!'.repeat((bytes.length + 1) >> 1) });
      const at = Buffer.from(block).indexOf('UNICODE\0');
      block.set(new TextEncoder().encode(code.padEnd(8, '\0')), at);
      block.set(bytes, at + 8);
      const length = 8 + block.length;
      const segment = [0xff, 0xe1, length >> 8, length & 255, ...new TextEncoder().encode('Exif\0\0'), ...block];
      return Uint8Array.from([0xff, 0xd8, ...segment, ...jpeg.subarray(2)]);
    };
    const wide = Buffer.from(text, 'utf16le');
    expect(settingsIn(comment('UNICODE', wide))).toEqual(expected);
    expect(settingsIn(comment('UNICODE', Buffer.from(wide).swap16()))).toEqual(expected);
    expect(settingsIn(comment('ASCII', new TextEncoder().encode(text)))).toEqual(expected);
  });

  it('say what is not in the file or no option, and take nothing else', () => {
    const png = (file: unknown) => writePngText(EMPTY_PNG, typeof file === 'string' ? file : JSON.stringify(file));
    const read = (changes: object) =>
      settingsIn(png({ prompt: 'x', seed: '9', options: { width: 64, height: 48, steps: 2, ...changes } }));
    expect(
      read({
        references: [{}, {}],
        mask: { mode: 'exact' },
        adapters: [{ name: 'a' }],
        steps: 1e9,
        sampler: 'constructor',
        sigmas: [1, 'x'],
        cache: { kind: { toString: 1 } },
        onProgress: 'alert(1)',
        image: '/etc/passwd',
        latents: [1],
      }),
    ).toEqual({
      options: { prompt: 'x', seed: 9, size: '64x48' },
      unused: [
        'references',
        'mask',
        'adapters',
        'steps',
        'sampler',
        'sigmas',
        'cache',
        'onProgress',
        'image',
        'latents',
      ].map((name) => expect.objectContaining({ name })),
    });
  });

  it('of a hostile kind leave the prototype alone', () => {
    const file = '{"prompt":"x","seed":"1","options":{"width":64,"height":48,"__proto__":{"steps":7},"constructor":1}}';
    const { options: read, unused } = settingsIn(writePngText(EMPTY_PNG, file));
    expect(Object.keys(read).sort()).toEqual(['prompt', 'seed', 'size']);
    expect((read as { steps?: number }).steps).toBeUndefined();
    expect(unused.map(({ name }) => name)).toEqual(['__proto__', 'constructor']);
    expect(({} as { steps?: number }).steps).toBeUndefined();
  });

  it('fit into a JPEG, or stay out of it: a picture is never lost for its prompt', async () => {
    const long = { ...made, prompt: 'word '.repeat(5000) };
    const comment = await encodeImage(picture(255), 'jpeg', { settings: long });
    expect((await readSettings(comment)).options).toMatchObject({ prompt: long.prompt.trim(), steps: 12 });
    expect((await readSettings(comment)).options).not.toHaveProperty('cache');
    const none = await encodeImage(picture(255), 'jpeg', { settings: { ...made, prompt: 'x'.repeat(MAX_JPEG_EXIF) } });
    expect((await decodeImage(none)).width).toBe(64);
    await expect(readSettings(none)).rejects.toThrow(/does not say how/);
    expect((await readSettings(await encodeImage(picture(255), 'webp', { settings: long }))).options).toMatchObject({
      prompt: long.prompt,
    });
  });

  it('are refused by name where there are none, or no such file', async () => {
    await expect(readSettings(Uint8Array.of(1, 2, 3))).rejects.toThrow(/PNG, JPEG and WebP/);
    await expect(readSettings('/no/such/picture.png')).rejects.toMatchObject({ code: 'image-invalid' });
    await expect(encodeImage(picture(255), 'png', { settings: {} as never })).rejects.toMatchObject({
      code: 'invalid-request',
    });
  });
});

describe('--from', () => {
  it('takes what the command line does not say, and tells what it leaves', async () => {
    const path = join(tmpdir(), `kontext-from-${process.pid}.png`);
    await writeFile(path, await encodeImage(picture(255), 'png', { settings: made }));
    const told: string[] = [];
    const signal = new AbortController().signal;
    const from = (kind: 'edit' | 'generate', given: Record<string, unknown>) =>
      withSettingsOf(path, kind, given, signal, (line) => told.push(line));
    expect(await from('edit', {})).toEqual(options);
    const { steps, schedule, ...rest } = options;
    expect([steps, schedule]).toEqual([12, 'sgm_uniform']);
    expect(await from('edit', { prompt: 'new', sigmas: [1, 0.5] })).toEqual({
      ...rest,
      prompt: 'new',
      sigmas: [1, 0.5],
    });
    expect(told).toEqual([]);
    const { strength, ...words } = options;
    expect(await from('generate', { seed: 1 })).toEqual({ ...words, seed: 1 });
    expect([strength, told]).toEqual([0.75, [`Not taken from ${path}: strength (it belongs to edit).`]]);
  });
});

/** Signature, a header of one pixel, and the end: what readers of text look at. */
const EMPTY_PNG = Uint8Array.from(
  atob('iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGNgAAAAAgABc3UBGAAAAABJRU5ErkJggg=='),
  (letter) => letter.charCodeAt(0),
);

it('text of Latin-1 and of more both come back', () => {
  for (const text of ['plain', 'caf\u00e9', 'größer 大', 'with\0nul']) {
    expect(readPngText(writePngText(EMPTY_PNG, text))).toBe(text);
  }
});
