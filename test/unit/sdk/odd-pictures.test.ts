// Pictures that need more than sharp: deep ones with profiles, bitmaps, HEIC, damaged JPEGs; and large ones, which must not block.
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { deflateSync } from 'node:zlib';
import sharp from 'sharp';
import { describe, expect, it } from 'vitest';
import { loadHost } from '../../../sdk/src/host/module.ts';
import { resize, resizeInTurns } from '../../../sdk/src/host/resize.ts';
import { conversionToSrgb } from '../../../sdk/src/image/icc.ts';
import { writePngChunk } from '../../../sdk/src/image/metadata/png-text.ts';
import { decodeImage } from '../../../sdk/src/image/node.ts';
import { fromRgb, type PixelImage, toRgb } from '../../../sdk/src/image/pixels.ts';
import { bitmaps } from '../../support/bitmaps.ts';
import { damagedJpegs } from '../../support/damaged-jpegs.ts';
import { PHOTO_HEIGHT, PHOTO_WIDTH, syntheticPhoto } from '../../support/synthetic-photo.ts';

const fixture = (name: string) => fileURLToPath(new URL(`../../fixtures/pictures/${name}`, import.meta.url));
const furthest = (image: PixelImage, rgb: ArrayLike<number>) =>
  toRgb(image).reduce((most, value, i) => Math.max(most, Math.abs(value - rgb[i]!)), 0);

describe('16-bit pictures with a profile', () => {
  it.each(['icc-p3-16.png', 'icc-adobergb-16.tif'])('%s is what LittleCMS makes of it', async (name) => {
    const expected = readFileSync(fixture(name.replace(/\..*/, '.expected.rgb')));
    expect(furthest(await decodeImage(fixture(name)), expected)).toBeLessThanOrEqual(4);
  });

  it('keep transparency over white and the turn of the camera', async () => {
    const samples = Uint16Array.of(65535, 0, 0, 65535, 65535, 0, 0, 0, 0, 65535, 0, 32768);
    const png = await sharp(samples, { raw: { width: 3, height: 1, channels: 4 } })
      .toColourspace('rgb16')
      .withIccProfile('p3')
      .withMetadata({ orientation: 6, icc: 'p3' })
      .png()
      .toBuffer();
    expect(await sharp(png).metadata()).toMatchObject({ depth: 'ushort', hasProfile: true, orientation: 6 });
    const image = await decodeImage(png);
    expect([image.width, image.height]).toEqual([1, 3]);
    expect([...image.data.subarray(4, 8)]).toEqual([255, 255, 255, 255]);
    expect(Math.abs(image.data[8]! - 127)).toBeLessThan(2);
  });

  it.each(['opaque', 'own'] as const)('of lookup tables, as LittleCMS does them (%s)', async (depth) => {
    // The same colours as the file's own profile of curves and a matrix; a linear space lies in two points an axis.
    const png = readFileSync(fixture('icc-p3-16.png'));
    const { icc: own } = await sharp(png).metadata();
    const name = Buffer.from('tables\0\0');
    const iccp = Buffer.concat([name, deflateSync(withTables(own!))]);
    const table = writePngChunk(withoutChunk(png, 'iCCP'), 'iCCP', iccp);
    expect(await sharp(table).metadata()).toMatchObject({ depth: 'ushort', hasProfile: true });
    const image = await decodeImage(table, 'x', undefined, depth);
    // LittleCMS resamples tables of linear light coarsely for eight bits: dark colours are a few levels off, as in any 8-bit file.
    expect(furthest(image, readFileSync(fixture('icc-p3-16.expected.rgb')))).toBeLessThanOrEqual(12);
    const eight = await sharp(table).keepIccProfile().toColourspace('srgb').png().toBuffer();
    expect(await sharp(eight).metadata()).toMatchObject({ depth: 'uchar', hasProfile: true });
    expect(furthest(image, toRgb(await decodeImage(eight)))).toBeLessThanOrEqual(1);
  });

  const curves: [string, Uint8Array, (x: number) => number][] = [
    ['none', tag('curv', u32(0)), (x) => x],
    ['a gamma of 2', tag('curv', u32(1), [2, 0]), (x) => x ** 2],
    [
      'samples',
      tag('curv', u32(3), [0, 0], [0x40, 0], [0xff, 0xff]),
      (x) => (x < 0.5 ? x / 2 : 0.25 + (x - 0.5) * 1.5),
    ],
    ['a parameter', tag('para', [0, 0, 0, 0], fixed(1.8)), (x) => x ** 1.8],
    [
      'that of sRGB',
      tag('para', [0, 3, 0, 0], ...[2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045].map(fixed)),
      (x) => (x >= 0.04045 ? ((x + 0.055) / 1.055) ** 2.4 : x / 12.92),
    ],
  ];
  it.each(curves)('takes as tone curve: %s', (_, curve, linear) => {
    const grey = conversionToSrgb(profile('GRAY', { kTRC: curve }))!;
    const primaries = {
      rXYZ: xyz(0.43607, 0.22249, 0.01392),
      gXYZ: xyz(0.38515, 0.71687, 0.09708),
      bXYZ: xyz(0.14307, 0.06061, 0.7141),
    };
    const colour = conversionToSrgb(profile('RGB ', { rTRC: curve, gTRC: curve, bTRC: curve, ...primaries }))!;
    const out = new Uint16Array(3);
    for (let sample = 0; sample <= 65535; sample += 771) {
      const light = linear(sample / 65535);
      const expected = 255 * (light <= 0.0031308 ? 12.92 * light : 1.055 * light ** (1 / 2.4) - 0.055);
      grey.convert(Uint16Array.of(sample), 0, out);
      for (const level of out) expect(Math.abs(level - 257 * expected)).toBeLessThan(2);
      // Primaries of sRGB are sRGB again: rounding of the profile's own numbers apart.
      colour.convert(Uint16Array.of(sample, sample, sample), 0, out);
      for (const level of out) expect(Math.abs(level - 257 * expected)).toBeLessThan(40);
    }
  });

  it('leaves profiles that are no matrix to sharp, and damaged ones', () => {
    expect(conversionToSrgb(profile('CMYK', {}))).toBeUndefined();
    expect(conversionToSrgb(profile('RGB ', { A2B0: tag('mft2') }))).toBeUndefined();
    expect(conversionToSrgb(profile('RGB ', {}))).toBeUndefined();
    const whole = profile('GRAY', { kTRC: tag('curv', u32(99)) });
    for (let end = 0; end < whole.length; end += 7) expect(conversionToSrgb(whole.subarray(0, end))).toBeUndefined();
  });
});

describe('bitmaps', () => {
  it.each(bitmaps().map(({ name, bytes, expected }) => [name, bytes, expected] as const))(
    '%s',
    async (_, bytes, expected) => {
      const image = await decodeImage(bytes);
      expect([image.width, image.height]).toEqual([5, 3]);
      expect(furthest(image, expected)).toBeLessThan(1);
    },
  );

  it('cut off anywhere are pictures or refused, and never take more than they hold', async () => {
    for (const { bytes } of bitmaps()) {
      for (let end = 0; end < bytes.length; end++) {
        await decodeImage(bytes.slice(0, end)).then(
          ({ width, height }) => expect([width, height]).toEqual([5, 3]),
          (error) => expect(error).toMatchObject({ code: 'image-invalid' }),
        );
      }
    }
    const huge = bitmaps()[0]!.bytes.slice();
    new DataView(huge.buffer).setInt32(18, 8000, true);
    new DataView(huge.buffer).setInt32(22, 8000, true);
    await expect(decodeImage(huge)).rejects.toThrow(/ends before its last row/);
  });
});

it('HEIC is refused with what to do', async () => {
  await expect(decodeImage(fixture('photo.heic'))).rejects.toMatchObject({
    code: 'image-invalid',
    message: expect.stringMatching(/HEIC.*Save it as JPEG/),
  });
});

it('slightly damaged JPEGs are read as browsers read them, cut ones refused', async () => {
  for (const [name, bytes] of Object.entries(await damagedJpegs())) {
    const read = decodeImage(bytes);
    if (/gone|header|end mark/.test(name)) await expect(read, name).rejects.toMatchObject({ code: 'image-invalid' });
    else expect([name, (await read).width]).toEqual([name, 96]);
  }
});

describe('a photo of 12 megapixels', () => {
  it('is resized to the same bytes, in slices that leave the event loop free', async () => {
    const host = await loadHost();
    const data = syntheticPhoto();
    const image = fromRgb(data, PHOTO_WIDTH, PHOTO_HEIGHT);
    let beats = 0;
    const beat = setInterval(() => beats++, 1);
    const small = await resizeInTurns(host, image, 1184, 880);
    clearInterval(beat);
    // It goes in turns of 25 ms, of which a fast machine needs few; at once there would be one beat at most.
    expect(beats).toBeGreaterThan(1);
    const whole = resize(host, { data, width: PHOTO_WIDTH, height: PHOTO_HEIGHT, channels: 3 }, 1184, 880);
    expect(Buffer.compare(toRgb(small), whole.data)).toBe(0);
  });

  it('is given up at once when that is asked for', async () => {
    const host = await loadHost();
    const image = fromRgb(syntheticPhoto(), PHOTO_WIDTH, PHOTO_HEIGHT);
    const stop = new AbortController();
    let asked = 0;
    setTimeout(() => {
      asked = performance.now();
      stop.abort();
    }, 20);
    await expect(resizeInTurns(host, image, 1184, 880, stop.signal)).rejects.toMatchObject({
      code: 'aborted',
    });
    expect(performance.now() - asked).toBeLessThan(200);
    // The host is as good as new.
    expect((await resizeInTurns(host, fromRgb(new Uint8Array(12), 2, 2), 4, 4)).width).toBe(4);
    await expect(
      decodeImage(await sharp(fixture('icc-p3-16.png')).png().toBuffer(), 'x', stop.signal),
    ).rejects.toMatchObject({
      code: 'aborted',
    });
  });
});

/** A profile of curves and a matrix as one of lookup tables (lut16Type, ICC.1:2022 10.10). */
function withTables(own: Uint8Array): Uint8Array {
  const view = new DataView(own.buffer, own.byteOffset, own.byteLength);
  const tags = new Map<string, Uint8Array>();
  for (let i = 0; i < view.getUint32(128); i++) {
    const [at, start, length] = [0, 4, 8].map((of) => view.getUint32(132 + 12 * i + of)) as [number, number, number];
    tags.set(String.fromCharCode(...u32(at)), own.subarray(start, start + length));
  }
  const column = (name: string) =>
    [8, 12, 16].map((at) => view.getInt32(tags.get(name)!.byteOffset - own.byteOffset + at) / 65536);
  const [r, g, b] = ['rXYZ', 'gXYZ', 'bXYZ'].map(column) as [number[], number[], number[]];
  const gamma = tags.get('rTRC')!;
  const power = (gamma[12]! * 256 + gamma[13]!) / 256;
  const u16 = (value: number) => [value >> 8, value & 255];
  const curve = Array.from({ length: 4096 }, (_, i) => u16(Math.round(65535 * (i / 4095) ** power))).flat();
  // Blue runs fastest; 1 is 32768.
  const corners = Array.from({ length: 8 }, (_, i) =>
    [0, 1, 2].map((c) => (i & 4 ? r[c]! : 0) + (i & 2 ? g[c]! : 0) + (i & 1 ? b[c]! : 0)),
  );
  const lut = [
    ...[3, 3, 2, 0],
    ...[1, 0, 0, 0, 1, 0, 0, 0, 1].flatMap(fixed),
    ...u16(4096),
    ...u16(2),
    ...[curve, curve, curve].flat(),
    ...corners.flat().flatMap((value) => u16(Math.max(0, Math.round(value * 32768)))),
    ...[0, 65535, 0, 65535, 0, 65535].flatMap(u16),
  ];
  const kept = ['desc', 'cprt', 'wtpt'].map((name) => [name, tags.get(name)!] as const);
  const made = profile('RGB ', Object.fromEntries([...kept, ['A2B0', tag('mft2', lut)] as const]));
  // The header as it was, but for its size and the rendering intent, which is perceptual.
  made.set(own.subarray(4, 64), 4);
  made.set(own.subarray(68, 128), 68);
  made.set(u32(made.length));
  return made;
}

function withoutChunk(png: Uint8Array, type: string): Uint8Array {
  const at = Buffer.from(png).indexOf(type) - 4;
  const length = new DataView(png.buffer, png.byteOffset).getUint32(at) + 12;
  return Uint8Array.from([...png.subarray(0, at), ...png.subarray(at + length)]);
}

/** An ICC profile of nothing but what the conversion looks at. */
function profile(space: string, tags: Record<string, Uint8Array>): Uint8Array {
  const entries = Object.entries(tags);
  let at = 132 + 12 * entries.length;
  const table = entries.map(([name, { length }]) => {
    const entry = [...Buffer.from(name), ...u32(at), ...u32(length)];
    at += length;
    return entry;
  });
  const header = Buffer.alloc(128);
  header.write(space, 16);
  header.write('XYZ ', 20);
  return Uint8Array.from([
    ...header,
    ...u32(entries.length),
    ...table.flat(),
    ...entries.flatMap(([, tag]) => [...tag]),
  ]);
}

function tag(kind: string, ...values: number[][]): Uint8Array {
  return Uint8Array.from([...Buffer.from(kind), 0, 0, 0, 0, ...values.flat()]);
}

function xyz(...values: number[]): Uint8Array {
  return tag('XYZ ', ...values.map(fixed));
}

function u32(value: number): number[] {
  return [value >>> 24, (value >> 16) & 255, (value >> 8) & 255, value & 255];
}

function fixed(value: number): number[] {
  return u32(Math.round(value * 65536));
}
