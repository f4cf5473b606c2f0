// Resampled bytes against Pillow's, for every filter, mode, pass order and a real-size photo.
import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import sharp from 'sharp';
import { beforeAll, describe, expect, it } from 'vitest';
import type { Host } from '../../../sdk/src/host/module.ts';
import { loadHost } from '../../../sdk/src/host/module.ts';
import { type ByteImage, type ResizeFilter, resize, resizeInTurns } from '../../../sdk/src/host/resize.ts';
import { plainLanczos } from '../../support/plain-resize.ts';
import { readSafetensors } from '../../support/safetensors.ts';
import { PHOTO_HEIGHT, PHOTO_WIDTH, syntheticPhoto } from '../../support/synthetic-photo.ts';

const fixtures = new URL('../../fixtures/image-preprocess/', import.meta.url);

interface Meta {
  cases: { image: string; out_width: number; out_height: number; tensor: string; first_pass: string }[];
  big: { file: string; bfl_width: number; bfl_height: number; sha256_of_uint8_hwc: string };
  modes: Record<string, unknown>;
}

const meta = JSON.parse(readFileSync(new URL('meta.json', fixtures), 'utf8')) as Meta;
const tensors = readSafetensors(new URL('io.safetensors', fixtures));
const pillow = readSafetensors(new URL('pillow_filters.safetensors', fixtures));

let host: Host;
beforeAll(async () => {
  host = await loadHost();
});

function image(name: string, source = tensors): ByteImage<Uint8Array> {
  const tensor = source.get(name)!;
  const [height, width, channels] = tensor.shape as [number, number, 1 | 3 | 4];
  return { data: tensor.data as Uint8Array, width, height, channels };
}

describe('resize', () => {
  it('compares both orders of the passes', () => {
    expect(new Set(meta.cases.map((c) => c.first_pass))).toEqual(new Set(['horizontal', 'vertical']));
  });

  it.each(meta.cases.map((c) => [c.tensor, c] as const))('%s', (_, c) => {
    const result = resize(host, image(c.image.replace('.png', '.in.uint8')), c.out_width, c.out_height);
    expectBytes(result.data, image(c.tensor).data);
  });

  it.each(Object.keys(meta.modes))('mode %s, converted to RGB as the pipelines do', (mode) => {
    const result = resize(host, image(`mode.${mode}.rgb.uint8`), 32, 32);
    expectBytes(result.data, image(`mode.${mode}.rgb_lanczos_32x32.uint8`).data);
  });

  it('a real size, enlarged', async () => {
    const { bfl_width, bfl_height, sha256_of_uint8_hwc, file } = meta.big;
    const { data, info } = await sharp(readFileSync(new URL(file, fixtures)))
      .raw()
      .toBuffer({ resolveWithObject: true });
    const { width, height } = info;
    const result = resize(host, { data: new Uint8Array(data), width, height, channels: 3 }, bfl_width, bfl_height);
    expect(sha256(result.data)).toBe(sha256_of_uint8_hwc);
    const sample = image('big.lanczos.every_13th.uint8');
    sample.data.forEach((byte, i) => {
      const [x, y] = [Math.floor(i / 3) % sample.width, Math.floor(i / 3 / sample.width)];
      expect(result.data[(13 * y * bfl_width + 13 * x) * 3 + (i % 3)]).toBe(byte);
    });
  });

  it('a photo in turns: the same bytes, timers run meanwhile, and an abort ends it', async () => {
    const rgb = syntheticPhoto();
    const data = new Uint8ClampedArray(PHOTO_WIDTH * PHOTO_HEIGHT * 4);
    // Alpha is not looked at.
    for (let i = 0; i < PHOTO_WIDTH * PHOTO_HEIGHT; i++)
      data.set([rgb[3 * i]!, rgb[3 * i + 1]!, rgb[3 * i + 2]!, i & 255], 4 * i);
    const fresh = await loadHost();
    const photo = { data, width: PHOTO_WIDTH, height: PHOTO_HEIGHT };
    let [last, longest, ticks] = [performance.now(), 0, 0];
    const timer = setInterval(() => {
      const now = performance.now();
      longest = Math.max(longest, now - last);
      last = now;
      ticks++;
    }, 1);
    const turned = await resizeInTurns(fresh, photo, 592, 440);
    clearInterval(timer);
    console.log(`longest wait of a timer: ${longest.toFixed(0)} ms, ${ticks} ticks`);
    expect(ticks).toBeGreaterThan(1);
    const expected = resize(host, { data: rgb, width: PHOTO_WIDTH, height: PHOTO_HEIGHT, channels: 3 }, 592, 440);
    expectBytes(Uint8Array.from(turned.data.filter((_, i) => (i & 3) !== 3)), expected.data);
    expect(turned.data.every((value, i) => (i & 3) !== 3 || value === 255)).toBe(true);
    expect(fresh.exports.memory.buffer.byteLength).toBeLessThan(1 << 20);
    const stop = new AbortController();
    setTimeout(() => stop.abort(), 1);
    const started = performance.now();
    await expect(resizeInTurns(fresh, photo, 592, 440, stop.signal)).rejects.toMatchObject({ code: 'aborted' });
    expect(performance.now() - started).toBeLessThan(1000);
    // The module works after that as before.
    expect(sha256((await resizeInTurns(fresh, photo, 592, 440)).data)).toBe(sha256(turned.data));
  });

  it('a 12-megapixel photo, reduced, in little memory', async () => {
    const expected = JSON.parse(readFileSync(new URL('pillow_photo.json', fixtures), 'utf8')) as {
      sha256_of_source: string;
      out_width: number;
      out_height: number;
      sha256_of_lanczos: string;
    };
    const data = syntheticPhoto();
    expect(sha256(data)).toBe(expected.sha256_of_source);
    const fresh = await loadHost();
    const photo = { data, width: PHOTO_WIDTH, height: PHOTO_HEIGHT, channels: 3 } as const;
    const result = resize(fresh, photo, expected.out_width, expected.out_height);
    expect(sha256(result.data)).toBe(expected.sha256_of_lanczos);
    expect(fresh.exports.memory.buffer.byteLength).toBeLessThan(1 << 20);
  });

  const filterCases = [...pillow.keys()].filter((name) => name.includes('.to.'));
  it.each(filterCases)('Pillow: %s', (name) => {
    const [, source, size, filter] = /^(.*)\.to\.(\d+x\d+)\.(\w+)$/.exec(name)!;
    const [width, height] = size!.split('x').map(Number);
    const result = resize(host, image(source!, pillow), width!, height!, filter as ResizeFilter);
    expectBytes(result.data, image(name, pillow).data);
  });

  it('has every filter and mode among those', () => {
    expect(filterCases.length).toBe(3 * 3 * 8);
  });

  it('agrees with plain TypeScript on random sizes', () => {
    let state = 1;
    const draw = (limit: number) => {
      state = Math.imul(state, 1664525) + 1013904223;
      return (state >>> 8) % limit;
    };
    for (let i = 0; i < 300; i++) {
      const [width, height, outWidth, outHeight] = [1 + draw(200), 1 + draw(60), 1 + draw(90), 1 + draw(90)];
      if (width === outWidth || height === outHeight || height - outHeight > 2 * (width - outWidth)) continue;
      const channels = draw(2) ? 3 : 1;
      const data = Uint8Array.from({ length: width * height * channels }, () => draw(256));
      const result = resize(host, { data, width, height, channels }, outWidth, outHeight);
      expectBytes(result.data, plainLanczos(data, width, height, channels, outWidth, outHeight));
    }
  });

  it('keeps the kind of array, and copies when the size stays', () => {
    const data = new Uint8ClampedArray([1, 2, 3, 0, 5, 6, 7, 8]);
    const result = resize(host, { data, width: 2, height: 1, channels: 4 }, 2, 1);
    // A transparent pixel's colour survives: nothing is multiplied when nothing is filtered, as in Pillow.
    expect(result.data).toEqual(data);
    expect(result.data).not.toBe(data);
    expect(resize(host, { data, width: 2, height: 1, channels: 4 }, 1, 1).data).toBeInstanceOf(Uint8ClampedArray);
    // What sharp gives: a subclass whose constructor is deprecated.
    const buffer = Buffer.from([10, 20, 30, 40, 50, 60]);
    const plain = resize(host, { data: buffer, width: 2, height: 1, channels: 3 }, 1, 1).data;
    expect(Object.getPrototypeOf(plain)).toBe(Uint8Array.prototype);
    expect([...plain]).toEqual([25, 35, 45]);
  });

  it('does not change the image it is given', () => {
    const source = image('RGBA.37x23', pillow);
    const before = source.data.slice();
    resize(host, source, 9, 9);
    expect(source.data).toEqual(before);
  });

  it('handles extreme sizes', () => {
    const line = new Uint8Array(65535).fill(77);
    expect([...resize(host, { data: line, width: 65535, height: 1, channels: 1 }, 1, 1).data]).toEqual([77]);
    expect([...resize(host, { data: line, width: 1, height: 65535, channels: 1 }, 1, 2).data]).toEqual([77, 77]);
    const wide = resize(host, { data: new Uint8Array([9, 8, 7]), width: 1, height: 1, channels: 3 }, 65535, 1);
    expect([...wide.data.subarray(-3)]).toEqual([9, 8, 7]);
  });

  it('refuses bad images, sizes and filters and stays usable', () => {
    const data = new Uint8Array(12);
    const good: ByteImage<Uint8Array> = { data, width: 2, height: 2, channels: 3 };
    const broken: ByteImage<Uint8Array>[] = [
      { ...good, width: 0 },
      { ...good, height: NaN },
      { ...good, width: 65536 },
      { ...good, width: 3 },
      { ...good, channels: 2 as 3 },
      { ...good, data: data.subarray(1) },
    ];
    for (const bad of broken) {
      expect(() => resize(host, bad, 4, 4)).toThrow(expect.objectContaining({ code: 'image-invalid' }));
    }
    const refused = expect.objectContaining({ code: 'invalid-request' });
    for (const side of [0, -1, 1.5, NaN, Infinity, 65536]) {
      expect(() => resize(host, good, side, 4)).toThrow(refused);
      expect(() => resize(host, good, 4, side)).toThrow(refused);
    }
    expect(() => resize(host, good, 65535, 65535)).toThrow(refused);
    expect(() => resize(host, good, 4, 4, 'cubic' as 'box')).toThrow(refused);
    expect(resize(host, good, 4, 4).data.length).toBe(48);
  });

  it('checks its arguments inside the module too, for hosts without this facade', () => {
    const { exports } = host;
    const bad: [number, number, number, number, number, number][] = [
      [0, 1, 3, 1, 1, 0],
      [1, -1, 3, 1, 1, 0],
      [1, 1, 2, 1, 1, 0],
      [1, 1, 3, 0, 1, 0],
      [1, 1, 3, 1, 65536, 0],
      [1, 1, 3, 1, 1, 3],
    ];
    bad.forEach((args, position) => {
      expect(exports.resizeBegin(...args)).toBe(-100);
      expect(exports.errorDetail()).toBe(position);
    });
    // A ring of 65,535 rows of 65,535 pixels cannot fit.
    expect(exports.resizeBegin(65535, 65535, 4, 65534, 1, 2)).toBe(-1);
    expect(exports.resizeBegin(10, 10, 4, 5, 5, 2)).toBeGreaterThan(0);
  });

  it('does not grow the memory over 100,000 calls', () => {
    const tiny: ByteImage<Uint8Array> = { data: new Uint8Array(48), width: 4, height: 4, channels: 3 };
    resize(host, tiny, 6, 3);
    const before = host.exports.memory.buffer.byteLength;
    for (let i = 0; i < 100_000; i++) resize(host, tiny, 6, 3);
    expect(host.exports.memory.buffer.byteLength).toBe(before);
  });
});

/** `toEqual` walks arrays property by property: a second for a small image. */
function expectBytes(actual: Uint8Array, expected: Uint8Array): void {
  expect(actual.length).toBe(expected.length);
  const at = actual.findIndex((byte, i) => byte !== expected[i]);
  expect(at, `byte ${at} is ${actual[at]} instead of ${expected[at]}`).toBe(-1);
}

function sha256(data: Uint8Array | Uint8ClampedArray): string {
  return createHash('sha256').update(data).digest('hex');
}
