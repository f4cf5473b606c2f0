// Pictures in and out of a page: every kind of source gives the same bytes, and none of them changes a colour.
// Wide-gamut and translucent sources are held to what the conversion says by hand.
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import type { Browser, Page } from 'playwright-core';
import sharp from 'sharp';
import { afterAll, beforeAll, expect, it } from 'vitest';
import type * as Sdk from '../../sdk/src/browser.ts';
import { decodeImage } from '../../sdk/src/image/node.ts';
import { PHOTO_HEIGHT, PHOTO_WIDTH, syntheticPhoto } from '../support/synthetic-photo.ts';
import { launch, openPage } from './support/chromium.ts';
import { serve, type TestServer } from './support/server.ts';

const root = fileURLToPath(new URL('../..', import.meta.url));
const input = '/examples/demo-model/inputs/panda-on-yellow.png';

let server: TestServer;
let browser: Browser;
let page: Page;

beforeAll(async () => {
  server = await serve(root);
  browser = await launch();
  ({ page } = await openPage(browser, `${server.url}/blank.html`));
});
afterAll(async () => {
  await browser?.close();
  await server?.close();
});

it('reads every kind of source to the bytes that Node reads', async () => {
  const expected = await decodeImage(readFileSync(`${root}${input}`), 'input');
  const results = await page.evaluate(async (input) => {
    const { decodeImage, toCanvas, toImageBitmap, toImageData } = (await importModule(
      '/dist/browser/kontext.js',
    )) as typeof Sdk;
    const blob = await (await fetch(input)).blob();
    const element = new Image();
    element.src = input;
    const original = await decodeImage(blob, 'blob');
    const bitmap = await createImageBitmap(blob, { premultiplyAlpha: 'none', colorSpaceConversion: 'none' });
    const sources: Record<string, Sdk.ImageInput> = {
      url: new URL(input, location.href),
      string: input,
      blob,
      file: new File([blob], 'panda.png', { type: 'image/png' }),
      bytes: new Uint8Array(await blob.arrayBuffer()),
      buffer: await blob.arrayBuffer(),
      bitmap,
      img: element,
      imageData: toImageData(original),
      canvas: toCanvas(original, document.createElement('canvas')),
      offscreen: toCanvas(original),
      ownBitmap: await toImageBitmap(original),
      frame: new VideoFrame(bitmap, { timestamp: 0 }),
    };
    const read: Record<string, { width: number; height: number; data: number[] }> = {};
    for (const [name, source] of Object.entries(sources)) {
      const { width, height, data } = await decodeImage(source, name);
      read[name] = { width, height, data: [...data] };
    }
    return read;
  }, input);
  expect(Object.keys(results)).toHaveLength(13);
  for (const [name, { width, height, data }] of Object.entries(results)) {
    expect([width, height], name).toEqual([expected.width, expected.height]);
    expect(Buffer.compare(Buffer.from(data), Buffer.from(expected.data)), name).toBe(0);
  }
});

it('writes a PNG, a bitmap and a canvas that hold the same bytes', async () => {
  const differences = await page.evaluate(async () => {
    const { toBlob, toCanvas, toImageBitmap, decodeImage } = (await importModule(
      '/dist/browser/kontext.js',
    )) as typeof Sdk;
    // All values of each channel, far from grey: a colour-space conversion would move them.
    const data = new Uint8ClampedArray(256 * 8 * 4);
    for (let i = 0; i < data.length / 4; i++) data.set([i & 255, (i * 7) & 255, (i * 31 + 5) & 255, 255], i * 4);
    const image = { width: 256, height: 8, data };
    const outs = {
      blob: await toBlob(image),
      canvas: toCanvas(image),
      bitmap: await toImageBitmap(image),
    };
    const counts: Record<string, number> = {};
    for (const [name, out] of Object.entries(outs)) {
      const back = await decodeImage(out, name);
      counts[name] = back.data.filter((value, i) => value !== data[i]).length;
    }
    return { ...counts, type: outs.blob.type };
  });
  expect(differences).toEqual({ blob: 0, canvas: 0, bitmap: 0, type: 'image/png' });
});

it('lays translucent pixels over white, and converts a wide gamut to sRGB', async () => {
  const read = await page.evaluate(async () => {
    const { decodeImage } = (await importModule('/dist/browser/kontext.js')) as typeof Sdk;
    const translucent = new ImageData(new Uint8ClampedArray([200, 100, 0, 128, 0, 0, 0, 0]), 2, 1);
    const bitmap = await createImageBitmap(translucent, { premultiplyAlpha: 'none' });
    // Green of Display P3 lies outside sRGB; its grey is the same grey.
    const wide = new ImageData(new Uint8ClampedArray([0, 255, 0, 255, 90, 90, 90, 255]), 2, 1, {
      colorSpace: 'display-p3',
    });
    return {
      pixels: [...(await decodeImage(translucent, 'a')).data],
      bitmap: [...(await decodeImage(bitmap, 'b')).data],
      wide: [...(await decodeImage(wide, 'c')).data],
    };
  });
  expect(read.pixels).toEqual([227, 177, 127, 255, 255, 255, 255, 255]);
  for (const [i, value] of read.bitmap.entries()) expect(Math.abs(value - read.pixels[i]!)).toBeLessThanOrEqual(1);
  expect(read.wide).toEqual([0, 255, 0, 255, 90, 90, 90, 255]);
});

it('names what cannot be read', async () => {
  const codes = await page.evaluate(async () => {
    const { decodeImage } = (await importModule('/dist/browser/kontext.js')) as typeof Sdk;
    const codeOf = (input: unknown) =>
      decodeImage(input as Sdk.ImageInput, 'input').then(
        () => 'read',
        (error: Sdk.KontextError) => error.code,
      );
    const broken = new Image();
    broken.src = '/nowhere.png';
    const gone = await createImageBitmap(new ImageData(1, 1));
    gone.close();
    return [
      await codeOf(new Blob(['text'])),
      await codeOf(broken),
      await codeOf(gone),
      await codeOf({ width: 2, height: 2, data: new Uint8ClampedArray(3) }),
      await codeOf(new Date()),
      await codeOf('/nowhere.png'),
    ];
  });
  expect(codes).toEqual([
    'image-invalid',
    'image-invalid',
    'image-invalid',
    'image-invalid',
    'image-invalid',
    'download-failed',
  ]);
});

it('says of a file that no browser reads what it is and what to do, and reads BMP', async () => {
  const said = await page.evaluate(async () => {
    const { decodeImage } = (await importModule('/dist/browser/kontext.js')) as typeof Sdk;
    const bytes = (text: string) => Uint8Array.from(text, (char) => char.charCodeAt(0));
    const messageOf = (input: Uint8Array) =>
      decodeImage(input, 'picture').then(
        () => 'read',
        (error: Sdk.KontextError) => `${error.code}: ${error.message}`,
      );
    // A BMP of two pixels, 24 bits each: a blue and a red one, rows padded to 4 bytes.
    const bmp = new Uint8Array(62);
    const view = new DataView(bmp.buffer);
    bmp.set(bytes('BM'));
    for (const [at, value] of [
      [2, 62],
      [10, 54],
      [14, 40],
      [18, 2],
      [22, 1],
    ] as const)
      view.setUint32(at, value, true);
    view.setUint16(26, 1, true);
    view.setUint16(28, 24, true);
    bmp.set([255, 0, 0, 0, 0, 255], 54);
    return {
      bmp: [...(await decodeImage(bmp)).data],
      heic: await messageOf(bytes('\0\0\0\x18ftypheic\0\0\0\0mif1heic')),
      tiff: await messageOf(bytes('II*\0\x08\0\0\0')),
      svg: await messageOf(bytes('<svg xmlns="http://www.w3.org/2000/svg"/>')),
      pdf: await messageOf(bytes('%PDF-1.7')),
      jpeg: await messageOf(bytes('\xff\xd8\xff\xe0 nothing more')),
      text: await messageOf(bytes('hello')),
      empty: await messageOf(bytes('')),
    };
  });
  expect(said.bmp).toEqual([0, 0, 255, 255, 255, 0, 0, 255]);
  expect(said.heic).toMatch(/^image-invalid: .*HEIC.*JPEG.*Safari/);
  expect(said.tiff).toMatch(/TIFF/);
  expect(said.svg).toMatch(/SVG/);
  expect(said.pdf).toMatch(/PDF/);
  expect(said.jpeg).toMatch(/damaged JPEG/);
  expect(said.text).toMatch(/cannot be read as a picture/);
  expect(said.empty).toMatch(/is empty/);
});

it('agrees with Node on damaged JPEGs: what is cut off is refused, other damage gives the same bytes', async () => {
  const photo = sharp(syntheticPhoto(), { raw: { width: PHOTO_WIDTH, height: PHOTO_HEIGHT, channels: 3 } });
  const whole = await photo.resize(128, 96).jpeg().toBuffer();
  const changed = (change: (bytes: Buffer) => void) => {
    const copy = Buffer.from(whole);
    change(copy);
    return copy;
  };
  const files = {
    whole,
    'bytes after the end': Buffer.concat([whole, Buffer.from('more')]),
    'without its last two bytes': whole.subarray(0, -2),
    'without its last half': whole.subarray(0, whole.length / 2),
    'a byte changed': changed((bytes) =>
      bytes.writeUInt8(bytes[Math.floor(bytes.length * 0.6)]! ^ 0x55, Math.floor(bytes.length * 0.6)),
    ),
    'zeros in between': changed((bytes) => bytes.fill(0, bytes.length - 200, bytes.length - 100)),
    'an end in the middle': changed((bytes) => bytes.writeUInt16BE(0xffd9, Math.floor(bytes.length / 2))),
  };
  for (const [name, bytes] of Object.entries(files)) {
    const inNode = await decodeImage(bytes, 'input').then(
      ({ data }) => Buffer.from(data).toString('base64'),
      (error: Sdk.KontextError) => error.code,
    );
    const inPage = await page.evaluate(
      async (bytes) => {
        const { decodeImage } = (await importModule('/dist/browser/kontext.js')) as typeof Sdk;
        return decodeImage(new Uint8Array(bytes), 'input').then(
          ({ data }) => [...data],
          (error: Sdk.KontextError) => error.code,
        );
      },
      [...bytes],
    );
    expect(typeof inPage === 'string' ? inPage : Buffer.from(inPage).toString('base64') === inNode, name).toBe(
      typeof inPage === 'string' ? inNode : true,
    );
    if (name === 'whole') expect(typeof inPage).toBe('object');
    if (name.startsWith('without')) expect(inPage).toBe('image-invalid');
  }
});
