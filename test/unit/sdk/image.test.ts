// Pictures in and out of Node: every kind of file a camera or an editor writes, and every kind of broken file.
import { mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import sharp from 'sharp';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { readPngText, writePngText } from '../../../sdk/src/image/metadata/png-text.ts';
import { decodeImage, encodeImage, formatOf, saveImage } from '../../../sdk/src/image/node.ts';
import { fromRgb, type PixelImage, toRgb } from '../../../sdk/src/image/pixels.ts';

let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'kontext-image-'));
});
afterAll(() => rm(folder, { recursive: true }));

const gradient = (width: number, height: number): PixelImage =>
  fromRgb(
    Uint8Array.from({ length: width * height * 3 }, (_, i) => (i * 7) % 256),
    width,
    height,
  );
const picture = gradient(9, 5);
const raw = () => sharp(toRgb(picture), { raw: { width: 9, height: 5, channels: 3 } });
const pixel = (image: PixelImage, x: number, y: number) => [
  ...image.data.subarray(4 * (y * image.width + x), 4 * (y * image.width + x) + 4),
];
const failure = async (input: Parameters<typeof decodeImage>[0]) =>
  decodeImage(input, 'input image').then(
    () => 'it was accepted',
    (error: { code: string; message: string }) => `${error.code}: ${error.message}`,
  );

describe('decodeImage', () => {
  it('reads a path, a file URL, bytes, a Blob and a data URL alike', async () => {
    const png = await raw().png().toBuffer();
    const path = join(folder, 'a b.png');
    await writeFile(path, png);
    const inputs = [
      path,
      pathToFileURL(path),
      pathToFileURL(path).href,
      new Uint8Array(png),
      new Uint8Array(png).buffer,
      new Blob([new Uint8Array(png)]),
      `data:image/png;base64,${png.toString('base64')}`,
      picture,
    ];
    for (const input of inputs) expect(await decodeImage(input, 'input')).toEqual(picture);
  });

  it('applies EXIF orientation', async () => {
    const turned = await decodeImage(await raw().withMetadata({ orientation: 6 }).png().toBuffer(), 'input');
    expect([turned.width, turned.height]).toEqual([5, 9]);
    expect(pixel(turned, 4, 0)).toEqual(pixel(picture, 0, 0));
    expect(pixel(turned, 0, 8)).toEqual(pixel(picture, 8, 4));
  });

  it('lays transparency over white, in files and in raw pixels', async () => {
    const rgba = Uint8Array.of(100, 0, 200, 0, 100, 0, 200, 255, 100, 0, 200, 127);
    const expected = [255, 255, 255, 255, 100, 0, 200, 255, 178, 128, 228, 255];
    const png = await sharp(rgba, { raw: { width: 3, height: 1, channels: 4 } })
      .png()
      .toBuffer();
    const close = (data: ArrayLike<number>) => Array.from(data, (v, i) => Math.abs(v - expected[i]!) <= 1);
    expect(close((await decodeImage(png, 'input')).data)).toEqual(Array(12).fill(true));
    expect(close((await decodeImage({ width: 3, height: 1, data: new Uint8ClampedArray(rgba) }, 'i')).data)).toEqual(
      Array(12).fill(true),
    );
  });

  it('reads grey, 16-bit, palette, transparent 16-bit, CMYK and progressive files', async () => {
    const grey = await sharp(Uint8Array.of(0, 90, 255, 17), { raw: { width: 4, height: 1, channels: 1 } })
      .toColourspace('b-w')
      .png()
      .toBuffer();
    expect((await sharp(grey).metadata()).channels).toBe(1);
    expect(pixel(await decodeImage(grey, 'input'), 1, 0)).toEqual([90, 90, 90, 255]);

    const sixteen = await sharp(Uint16Array.of(0, 0x8080, 0xffff), { raw: { width: 1, height: 1, channels: 3 } })
      .toColourspace('rgb16')
      .png()
      .toBuffer();
    expect((await sharp(sixteen).metadata()).depth).toBe('ushort');
    expect(pixel(await decodeImage(sixteen, 'input'), 0, 0)).toEqual([0, 128, 255, 255]);

    const clear = await sharp(Uint16Array.of(0, 0, 0, 0), { raw: { width: 1, height: 1, channels: 4 } })
      .toColourspace('rgb16')
      .png()
      .toBuffer();
    expect((await sharp(clear).metadata()).depth).toBe('ushort');
    expect(pixel(await decodeImage(clear, 'input'), 0, 0)).toEqual([255, 255, 255, 255]);

    const two = await sharp(Uint8Array.of(255, 0, 0, 0, 0, 255), { raw: { width: 2, height: 1, channels: 3 } })
      .png({ palette: true })
      .toBuffer();
    expect(two[25]).toBe(3); // PNG colour type: palette
    expect((await decodeImage(two, 'input')).data).toEqual(Uint8ClampedArray.of(255, 0, 0, 255, 0, 0, 255, 255));

    const red = { create: { width: 16, height: 16, channels: 3 as const, background: '#e01020' } };
    const cmyk = await sharp(red).toColourspace('cmyk').jpeg().toBuffer();
    expect((await sharp(cmyk).metadata()).space).toBe('cmyk');
    const [r, g, b] = pixel(await decodeImage(cmyk, 'input'), 8, 8) as [number, number, number];
    expect(r > 180 && g < 80 && b < 90, `${r} ${g} ${b}`).toBe(true);

    const progressive = await sharp(red).jpeg({ progressive: true, quality: 100 }).toBuffer();
    expect(Math.abs(pixel(await decodeImage(progressive, 'input'), 3, 3)[0]! - 0xe0)).toBeLessThan(3);
  });

  it('converts an embedded profile to sRGB', async () => {
    const p3 = await sharp(Uint8Array.of(0, 255, 0), { raw: { width: 1, height: 1, channels: 3 } })
      .withIccProfile('p3')
      .png()
      .toBuffer();
    expect((await sharp(p3).metadata()).icc).toBeDefined();
    const stored = (await sharp(p3, { ignoreIcc: true }).raw().toBuffer())[0]!;
    // Pure sRGB green has red in P3, so the file's numbers differ from the picture's, which come back.
    expect(stored).toBeGreaterThan(50);
    expect(pixel(await decodeImage(p3, 'input'), 0, 0)[0]!).toBeLessThan(12);
  });

  it('takes the first frame of an animation', async () => {
    const frames = Uint8Array.of(255, 0, 0, 0, 255, 0);
    const gif = await sharp(frames, { raw: { width: 1, height: 2, channels: 3, pageHeight: 1 } })
      .gif()
      .toBuffer();
    const image = await decodeImage(gif, 'input');
    expect([image.width, image.height, ...pixel(image, 0, 0)]).toEqual([1, 1, 255, 0, 0, 255]);
  });

  it('refuses what is no picture, and says which and why', async () => {
    expect(await failure(join(folder, 'absent.png'))).toMatch(/image-invalid: .*absent.png.*no such file/);
    expect(await failure(folder)).toMatch(/image-invalid: .*cannot be opened/);
    const text = join(folder, 'text.png');
    await writeFile(text, 'this is not a picture');
    expect(await failure(text)).toMatch(/image-invalid: .*text.png.*cannot be read/);
    expect(await failure(new Uint8Array())).toMatch(/image-invalid/);
    const whole = await sharp(gradientBytes(64), { raw: { width: 64, height: 64, channels: 3 } })
      .png()
      .toBuffer();
    expect(await failure(whole.subarray(0, whole.length / 2))).toMatch(/image-invalid/);
    const svg = new TextEncoder().encode('<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"></svg>');
    expect(await failure(svg)).toMatch(/svg is not supported/);
  });

  it('refuses sizes out of range', async () => {
    expect(await failure({ width: 0, height: 0, data: new Uint8ClampedArray() })).toMatch(/0×0.*1 to 16384/);
    expect(await failure({ width: 2, height: 2, data: new Uint8ClampedArray(12) })).toMatch(/12 bytes.*are 16/);
    const wide = sharp({ create: { width: 30000, height: 2, channels: 3, background: 'red' } });
    expect(await failure(await wide.png().toBuffer())).toMatch(/30000×2.*Scale or crop/);
  });

  it('says when a server does not answer', async () => {
    expect(await failure('http://127.0.0.1:9/x.png')).toMatch(/download-failed: Could not fetch the input image/);
  });
});

const gradientBytes = (side: number) => toRgb(gradient(side, side));

describe('encodeImage', () => {
  it('writes PNG and lossless WebP exactly, JPEG and WebP closely', async () => {
    const smooth = fromRgb(
      Uint8Array.from({ length: 32 * 32 * 3 }, (_, i) => 4 * (Math.floor(i / 3) % 32) + (i % 3)),
      32,
      32,
    );
    expect(await decodeImage(await encodeImage(smooth, 'png'), 'x')).toEqual(smooth);
    expect(await decodeImage(await encodeImage(smooth, 'webp', { quality: 100 }), 'x')).toEqual(smooth);
    for (const format of ['jpeg', 'webp'] as const) {
      const back = await decodeImage(await encodeImage(smooth, format), 'x');
      const worst = Math.max(...back.data.map((value, i) => Math.abs(value - smooth.data[i]!)));
      expect(worst).toBeLessThan(16);
    }
  });

  it('keeps text in PNG that other readers ignore', async () => {
    const text = JSON.stringify({ prompt: 'Montréal – été ☀', seed: 7 });
    const png = await encodeImage(picture, 'png', { metadata: text });
    expect(readPngText(png)).toBe(text);
    expect(readPngText(await encodeImage(picture, 'png'))).toBeUndefined();
    expect(await decodeImage(png, 'x')).toEqual(picture);
    expect(() => writePngText(Uint8Array.of(1, 2, 3), 'x')).toThrow(/not a PNG/);
  });

  it('writes whole files or none', async () => {
    const path = join(folder, 'out.jpg');
    await saveImage(path, picture);
    expect((await sharp(await readFile(path)).metadata()).format).toBe('jpeg');
    await expect(saveImage(join(folder, 'no', 'such', 'x.png'), picture)).rejects.toThrow(/Cannot write/);
    expect((await readdir(folder)).filter((name) => name.endsWith('.part'))).toEqual([]);
    expect(() => formatOf('picture.bmp')).toThrow(/must end in .png, .jpg, .jpeg, .webp/);
  });
});
