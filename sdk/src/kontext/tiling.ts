// The autoencoder in tiles, for pictures whose activations do not fit the device in one piece.
// Tiles overlap and fade into each other; their group norms see the tile only, so the result is close to the untiled one, not equal.
import type { BundleShape } from '../../../kernels-codegen/src/bundle/types.ts';
import { KontextError } from '../../../runtime/src/errors.ts';
import type { Executable } from '../../../runtime/src/execute/executable.ts';
import type { PixelImage } from '../image/pixels.ts';
import { PATCH_PIXELS, TOKEN_CHANNELS, tokenCount } from './latents.ts';
import type { Parts, Work } from './parts.ts';
import { checkFinite } from './stages/finite.ts';
import type { ImageSize } from './types.ts';

/** Side of a tile and of the overlap with its neighbours, in picture pixels; multiples of 16. */
export interface Tiling {
  tile: number;
  overlap: number;
}

/**
 * What to try, in order. 512-pixel tiles need a quarter of 1024²'s memory; a quarter of the tile as overlap keeps seams below one grey
 * level. Those of 256 pixels keep FLUX's decoder within WebGPU's default of 128 MiB a binding; their norms see less of the picture, so
 * they overlap more.
 */
export const TILINGS: readonly Tiling[] = [
  { tile: 512, overlap: 128 },
  { tile: 256, overlap: 96 },
];

/** Where a tile lies along one side, and over how many pixels it fades into the tile before and after it. */
export interface TileSpan {
  start: number;
  size: number;
  fadeBefore: number;
  fadeAfter: number;
}

/** Tiles along a side of `length` pixels: equal sizes, the last one moved back to end with the picture. */
export function tileSpans(length: number, { tile, overlap }: Tiling): TileSpan[] {
  const size = Math.min(tile, length);
  const starts: number[] = [];
  for (let start = 0; ; start += size - overlap) {
    starts.push(Math.min(start, length - size));
    if (start + size >= length) break;
  }
  return starts.map((start, i) => ({
    start,
    size,
    fadeBefore: i === 0 ? 0 : starts[i - 1]! + size - start,
    fadeAfter: i === starts.length - 1 ? 0 : start + size - starts[i + 1]!,
  }));
}

/** True when a smaller piece may succeed where the whole did not. */
export function isTooLarge(error: unknown): boolean {
  return error instanceof KontextError && (error.code === 'out-of-memory' || error.code === 'limit-too-small');
}

/** A picture in one piece or, where that does not fit, in the largest tiles that do: a long denoising is not lost to a small GPU. */
export async function wholeOrTiled<T>(
  { width, height }: ImageSize,
  whole: () => Promise<T>,
  tiled: (tiling: Tiling) => Promise<T>,
): Promise<T> {
  const smaller = TILINGS.filter(({ tile }) => tile < Math.max(width, height));
  const attempts = [whole, ...smaller.map((tiling) => () => tiled(tiling))];
  for (const attempt of attempts.slice(0, -1)) {
    try {
      return await attempt();
    } catch (error) {
      if (!isTooLarge(error)) throw error;
    }
  }
  return attempts.at(-1)!();
}

/** Packed latents `[tokens, 64]` to a picture. */
export async function decodeTiled(
  parts: Parts,
  tokens: Float32Array,
  size: ImageSize,
  tiling: Tiling,
  work: Work,
): Promise<PixelImage> {
  const { width, height } = size;
  const columns = width / PATCH_PIXELS;
  const bytes = await joinTiles(parts, { size, tiling, scale: 1, channels: 3, output: 'image' }, work, {
    bind: (tile) => parts.bind({ component: 'vae-decode', ...tile, output: 'tensor' }, work),
    result: 'tensor',
    network: 'the autoencoder’s decoder',
    write: (executable, x, y) => {
      const rowValues = (x.size / PATCH_PIXELS) * TOKEN_CHANNELS;
      const piece = new Float32Array((y.size / PATCH_PIXELS) * rowValues);
      for (let row = 0; row < y.size / PATCH_PIXELS; row++) {
        const from = ((y.start / PATCH_PIXELS + row) * columns + x.start / PATCH_PIXELS) * TOKEN_CHANNELS;
        piece.set(tokens.subarray(from, from + rowValues), row * rowValues);
      }
      executable.write('latents', piece);
    },
  });
  return { width, height, data: new Uint8ClampedArray(bytes.buffer, 0, width * height * 4) };
}

/** A picture to packed latents `[tokens, 64]`. */
export async function encodeTiled(
  parts: Parts,
  image: PixelImage,
  tiling: Tiling,
  work: Work,
): Promise<Float32Array<ArrayBuffer>> {
  const size = { width: image.width, height: image.height };
  const channels = TOKEN_CHANNELS / 4;
  const bytes = await joinTiles(parts, { size, tiling, scale: 8, channels, output: 'packed' }, work, {
    bind: (tile) => parts.bind({ component: 'vae-encode', ...tile, packed: false }, work),
    result: 'latents',
    network: 'the autoencoder’s encoder',
    write: (executable, x, y) => {
      const piece = new Uint8ClampedArray(x.size * y.size * 4);
      for (let row = 0; row < y.size; row++) {
        const from = ((y.start + row) * size.width + x.start) * 4;
        piece.set(image.data.subarray(from, from + x.size * 4), row * x.size * 4);
      }
      executable.write('pixels', piece);
    },
  });
  return new Float32Array(bytes.buffer, 0, tokenCount(size) * TOKEN_CHANNELS);
}

/** Programs of every tiling that {@link wholeOrTiled} may try. */
export function tilePrograms(part: 'encode' | 'decode', size: ImageSize): BundleShape[] {
  return TILINGS.flatMap((tiling) => programsOf(part, size, tiling));
}

/** Those that {@link encodeTiled} or {@link decodeTiled} ask for: none for a picture that is no larger than a tile. */
function programsOf(part: 'encode' | 'decode', size: ImageSize, tiling: Tiling): BundleShape[] {
  const [columns, rows] = [tileSpans(size.width, tiling), tileSpans(size.height, tiling)];
  if (columns.length === 1 && rows.length === 1) return [];
  const tile = { width: columns[0]!.size, height: rows[0]!.size };
  const [scale, channels] = part === 'encode' ? [8, TOKEN_CHANNELS / 4] : [1, 3];
  const whole = { width: size.width / scale, height: size.height / scale, channels };
  return [
    part === 'encode'
      ? { component: 'vae-encode', ...tile, packed: false }
      : { component: 'vae-decode', ...tile, output: 'tensor' },
    { component: 'tile-blend', ...whole, tileWidth: tile.width / scale, tileHeight: tile.height / scale },
    { component: 'tile-finish', ...whole, output: part === 'encode' ? 'packed' : 'image' },
  ];
}

interface Join {
  size: ImageSize;
  tiling: Tiling;
  /** Picture pixels per pixel of what is joined. */
  scale: 1 | 8;
  channels: number;
  output: 'image' | 'packed';
}

interface TileProgram {
  bind: (tile: ImageSize) => Promise<Executable>;
  /** Output port with a tile's values. */
  result: string;
  /** As errors name it. */
  network: string;
  write: (executable: Executable, x: TileSpan, y: TileSpan) => void;
}

/**
 * Runs the program on every tile, adds the results up on the GPU, divides by the weights.
 *
 * @returns the output's bytes
 * @throws KontextError `weights-invalid` naming the layer in which a tile's numbers stop being finite
 */
async function joinTiles(parts: Parts, join: Join, work: Work, program: TileProgram): Promise<Uint8Array<ArrayBuffer>> {
  const { size, tiling, scale, channels, output } = join;
  const [rows, columns] = [tileSpans(size.height, tiling), tileSpans(size.width, tiling)];
  const tile = { width: columns[0]!.size, height: rows[0]!.size };
  const executable = await program.bind(tile);
  const whole = { width: size.width / scale, height: size.height / scale, channels };
  const piece = { tileWidth: tile.width / scale, tileHeight: tile.height / scale };
  const blend = await parts.bind({ component: 'tile-blend', ...whole, ...piece }, work, {
    tile: executable.port(program.result),
  });
  let first = true;
  for (const y of rows) {
    for (const x of columns) {
      program.write(executable, x, y);
      await parts.run(executable, work);
      // Each by itself: the norms of one tile spread what is not finite over that tile, and the picture of the others hides it.
      const where = `${program.network}, in the tile at ${x.start}, ${y.start}`;
      await checkFinite(await executable.read(program.result), where, () => {
        program.write(executable, x, y);
        return executable.firstUnsound({ signal: work.signal });
      });
      const place = [y.start, x.start, y.fadeBefore, x.fadeBefore, y.fadeAfter, x.fadeAfter].map((v) => v / scale);
      blend.write('position', Float32Array.of(...place, 0, 0));
      await parts.run(blend, work, first ? { before: (encoder) => encoder.clearBuffer(blend.port('sum')) } : {});
      first = false;
    }
  }
  const finish = await parts.bind({ component: 'tile-finish', ...whole, output }, work, { sum: blend.port('sum') });
  await parts.run(finish, work);
  const bytes = await finish.read(output === 'image' ? 'image' : 'latents', 'bytes');
  for (const component of ['tile-finish', 'tile-blend'] as const) await parts.unbind(component);
  return bytes;
}
