// Exact masks: whatever the model answers, pixels that are black in the mask are the input's own, bit for bit.
// Random masks, sizes, paddings, feathers; opaque, transparent and 16-bit inputs; from files and from pixels.
import { expect, it, vi } from 'vitest';
import { loadHost } from '../../../sdk/src/host/module.ts';
import { decodeImage, encodeImage } from '../../../sdk/src/image/node.ts';
import { isOpaque, type PixelImage } from '../../../sdk/src/image/pixels.ts';
import { checkRequest } from '../../../sdk/src/kontext/request.ts';
import { edgeDistances, featherWeights } from '../../../sdk/src/kontext/stages/feather.ts';
import { sceneOf } from '../../../sdk/src/kontext/stages/scene.ts';
import { seededRandom } from '../../quality/scenes.ts';

const host = await loadHost();
const random = seededRandom(20261125);
const whole = (most: number) => Math.floor(random() * most);
const bytes = (count: number) => Uint8ClampedArray.from({ length: count }, () => whole(256));

type Kind = 'opaque' | 'transparent' | 'deep';

function picture(width: number, height: number, kind: Kind): PixelImage {
  const data = bytes(4 * width * height);
  if (kind === 'opaque') for (let i = 3; i < data.length; i += 4) data[i] = 255;
  if (kind !== 'deep') return { width, height, data };
  const data16 = Uint16Array.from({ length: data.length }, () => whole(65536));
  return { width, height, data: Uint8ClampedArray.from(data16, (v) => v >> 8), data16 };
}

/** A blob, a box or noise, hard or soft, as an opaque picture; never empty. */
function mask(width: number, height: number): PixelImage {
  const [cx, cy, radius] = [whole(width), whole(height), 1 + whole(Math.max(width, height) / 2)];
  const style = whole(3);
  const data = new Uint8ClampedArray(4 * width * height).fill(255);
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      const distance = style === 0 ? Math.hypot(x - cx, y - cy) : Math.max(Math.abs(x - cx), Math.abs(y - cy));
      let level = distance < radius ? 255 : 0;
      if (style === 2) level = distance < radius ? 1 + whole(255) : 0;
      if (x === cx && y === cy) level = 255;
      data.fill(level, 4 * (y * width + x), 4 * (y * width + x) + 3);
    }
  }
  return { width, height, data };
}

const sizes = {
  preferredSizes: [
    [64, 64],
    [96, 48],
    [48, 96],
  ] as [number, number][],
};

it('changes nothing where the mask is black, and something where it is white', async () => {
  for (let round = 0; round < 60; round++) {
    const [width, height] = [1 + whole(180), 1 + whole(180)];
    const input = picture(width, height, (['opaque', 'transparent', 'deep'] as const)[round % 3]!);
    const maskPicture = mask(width, height);
    const request = checkRequest({
      image: input,
      mask: maskPicture,
      prompt: 'x',
      ...(round % 2 && { maskPaddingCrop: whole(40), maskFeather: whole(12) }),
    });
    const scene = await sceneOf(host, { ...request, pictures: [input], maskPicture }, sizes);
    const { target } = scene.sizes;
    expect(sizes.preferredSizes).toContainEqual([target.width, target.height]);
    const decoded = picture(target.width, target.height, 'opaque');
    const result = await scene.finish(decoded);
    expect([result.width, result.height, result.data16 !== undefined]).toEqual([width, height, round % 3 === 2]);
    let [outside, inside] = [0, 0];
    for (let i = 0; i < result.data.length; i++) {
      const changed =
        result.data[i] !== input.data[i] || (input.data16 !== undefined && result.data16![i] !== input.data16[i]);
      if (!changed) continue;
      if (maskPicture.data[i - (i % 4)] === 0) outside++;
      else inside++;
    }
    expect(outside, `round ${round}: ${width}×${height}`).toBe(0);
    expect(inside).toBeGreaterThan(0);
  }
});

it('keeps the bits of files: 8 and 16 bits, with and without alpha, PNG and WebP', async () => {
  for (const kind of ['opaque', 'transparent', 'deep'] as const) {
    for (const format of kind === 'deep' ? (['png'] as const) : (['png', 'webp'] as const)) {
      const input = picture(40, 24, kind);
      const file = await encodeImage(input, format, { quality: 100 });
      const opened = await decodeImage(file, 'input', undefined, 'own');
      expect(opened.data, `${kind} ${format}`).toEqual(input.data);
      expect(opened.data16, `${kind} ${format}`).toEqual(input.data16);
      const flat = await decodeImage(file, 'input');
      expect(isOpaque(flat)).toBe(true);
      expect(flat.data16).toBeUndefined();
    }
  }
});

it('cuts out no more than the surroundings, and at least half of the model’s size', async () => {
  const input = picture(1000, 700, 'opaque');
  const dot: PixelImage = { width: 1000, height: 700, data: new Uint8ClampedArray(4 * 700_000) };
  for (let y = 300; y < 310; y++) dot.data.fill(255, 4 * (y * 1000 + 500), 4 * (y * 1000 + 510));
  const boxOf = async (more: object) => {
    const request = checkRequest({ image: input, mask: dot, prompt: 'x', ...more });
    const asked = { ...request, pictures: [input], maskPicture: dot };
    return (await sceneOf(host, asked, { preferredSizes: [[256, 256]] })).box!;
  };
  expect(await boxOf({})).toEqual({ x: 441, y: 241, width: 128, height: 128 });
  expect(await boxOf({ maskPaddingCrop: 95 })).toEqual({ x: 405, y: 205, width: 200, height: 200 });
  expect(await boxOf({ maskPaddingCrop: 2000 })).toEqual({ x: 0, y: 0, width: 1000, height: 700 });
});

it('fades inside the mask only, by the distance to its edge', () => {
  const data = new Uint8Array(40 * 40);
  for (let y = 10; y < 30; y++) data.fill(255, y * 40 + 10, y * 40 + 30);
  const distances = edgeDistances({ width: 40, height: 40, data });
  for (let y = 0; y < 40; y++) {
    for (let x = 0; x < 40; x++) {
      let nearest = Infinity;
      for (let v = 0; v < 40; v++)
        for (let u = 0; u < 40; u++) if (data[v * 40 + u] === 0) nearest = Math.min(nearest, Math.hypot(u - x, v - y));
      expect(distances[y * 40 + x]).toBeCloseTo(nearest, 5);
    }
  }
  const weights = featherWeights({ width: 40, height: 40, data }, 3);
  expect([9, 10, 11, 12, 13, 14].map((x) => weights[20 * 40 + x])).toEqual([0, 0.25, 0.5, 0.75, 1, 1]);
  // A mask that is white everywhere has no edge.
  expect(featherWeights({ width: 2, height: 2, data: new Uint8Array(4).fill(255) })).toEqual(
    Float32Array.of(1, 1, 1, 1),
  );
});

it('lets others have their turn while a large photo is brought to the model’s size and back', async () => {
  const [width, height] = [3000, 2000];
  const input: PixelImage = { width, height, data: new Uint8ClampedArray(4 * width * height).fill(255) };
  const request = checkRequest({ image: input, mask: input, prompt: 'x' });
  // Every look at the clock finds the slice used up, so that no machine is too quick for a turn.
  let now = 0;
  const clock = vi.spyOn(performance, 'now').mockImplementation(() => (now += 1000));
  let turns = 0;
  let next: NodeJS.Immediate;
  const count = () => {
    turns++;
    next = setImmediate(count);
  };
  count();
  try {
    turns = 0;
    const scene = await sceneOf(host, { ...request, pictures: [input], maskPicture: input }, sizes);
    expect(turns).toBeGreaterThan(10);
    turns = 0;
    const { target } = scene.sizes;
    await scene.finish(picture(target.width, target.height, 'opaque'));
    expect(turns).toBeGreaterThan(2);
    const stop = new AbortController();
    setImmediate(() => stop.abort());
    const stopped = sceneOf(host, { ...request, pictures: [input], maskPicture: input }, sizes, stop.signal);
    await expect(stopped).rejects.toMatchObject({ code: 'aborted' });
  } finally {
    clearImmediate(next!);
    clock.mockRestore();
  }
});

it('refuses what would do nothing or cannot be meant', async () => {
  const input = picture(32, 32, 'opaque');
  const black: PixelImage = { width: 32, height: 32, data: new Uint8ClampedArray(4096) };
  const scene = (maskPicture: PixelImage, maskMode: 'exact' | 'reference') => {
    const request = checkRequest({ image: input, mask: maskPicture, maskMode, prompt: 'x' });
    return sceneOf(host, { ...request, pictures: [input], maskPicture }, sizes);
  };
  for (const mode of ['exact', 'reference'] as const) {
    await expect(scene(black, mode)).rejects.toThrow(/mask is empty/);
    await expect(scene(mask(32, 16), mode)).rejects.toThrow(/32×16, the picture 32×32/);
  }
  // With a larger canvas too, whose mask is made anew.
  const small = mask(32, 16);
  const wide = checkRequest({ image: input, mask: small, expand: { left: 16 }, prompt: 'x' });
  await expect(sceneOf(host, { ...wide, pictures: [input], maskPicture: small }, sizes)).rejects.toThrow(
    /32×16, the picture 32×32/,
  );
  const wrong: [object, RegExp][] = [
    [{ strength: 0 }, /strength is 0/],
    [{ strength: 1.5 }, /strength is 1.5/],
    [{ maskMode: 'exact' }, /maskMode has no effect without a mask/],
    [{ mask: input, maskMode: 'soft' }, /must be one of "exact", "reference"/],
    [{ mask: input, maskMode: 'reference', maskFeather: 2 }, /maskFeather belongs to maskMode "exact"/],
    [{ mask: input, maskPaddingCrop: -1 }, /maskPaddingCrop is -1/],
    [{ references: 'b.png' }, /references/],
  ];
  for (const [more, message] of wrong) {
    expect(() => checkRequest({ image: input, prompt: 'x', ...more } as never)).toThrow(message);
  }
});
