// Which tokens of the target a region cache evaluates, and when: pure, for the loop, for plans and for bundles.
import { patches, TOKEN_CHANNELS, tokenCount } from '../latents.ts';
import type { ImageSize, RegionCache } from '../types.ts';

/** Regions come in eighths of the picture: seven programs serve every mask, so a bundle can hold them. */
const SHARES = 8;

/** Numbers of tokens that a region of a picture of `tokens` can have, rising; the whole is none of them. */
export function regionSizes(tokens: number): number[] {
  const sizes = Array.from({ length: SHARES - 1 }, (_, i) => Math.ceil(((i + 1) * tokens) / SHARES));
  return [...new Set(sizes)].filter((size) => size < tokens);
}

/** The size of the region that holds `wanted` tokens of `tokens`; undefined where that is the whole picture. */
export function regionSize(tokens: number, wanted: number): number | undefined {
  return regionSizes(tokens).find((size) => size >= wanted);
}

/**
 * The tokens of a request's region: those that may change, their surroundings, and the nearest others up to a size that there are
 * programs for.
 *
 * @param mask packed `[tokens, 64]`, 0 where nothing may change
 * @returns their numbers, rising; undefined where it is the whole picture
 */
export function regionOf(
  { margin }: Required<RegionCache>,
  { mask, target }: { mask: Float32Array; target: ImageSize },
): number[] | undefined {
  const grid = patches(target);
  const tokens = regionTokens(mask, grid, margin);
  const size = regionSize(tokenCount(target), tokens.length);
  return size === undefined ? undefined : grown(tokens, grid, size);
}

/**
 * Tokens of which the mask lets anything change, and those within `margin` tokens of one.
 *
 * @param mask packed `[tokens, 64]`, 0 where nothing may change
 * @param grid in tokens
 * @returns their numbers, rising
 */
export function regionTokens(mask: Float32Array, { width, height }: ImageSize, margin: number): number[] {
  const free = (x: number, y: number): boolean => {
    const at = (y * width + x) * TOKEN_CHANNELS;
    return mask.subarray(at, at + TOKEN_CHANNELS).some((value) => value > 0);
  };
  const wanted = new Uint8Array(width * height);
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      if (!free(x, y)) continue;
      const [left, right] = [Math.max(0, x - margin), Math.min(width, x + margin + 1)];
      for (let row = Math.max(0, y - margin); row < Math.min(height, y + margin + 1); row++) {
        wanted.fill(1, row * width + left, row * width + right);
      }
    }
  }
  return [...wanted.keys()].filter((token) => wanted[token] === 1);
}

/**
 * With the nearest other tokens (the lower number first where several are as near), until there are `size`.
 *
 * @param tokens numbers, rising
 * @param grid in tokens
 * @returns numbers, rising
 */
export function grown(tokens: readonly number[], { width, height }: ImageSize, size: number): number[] {
  const known = new Set(tokens);
  let edge: number[] = [...tokens];
  while (edge.length > 0 && known.size < size) {
    const next = new Set<number>();
    for (const token of edge) {
      const [x, y] = [token % width, Math.floor(token / width)];
      for (let row = Math.max(0, y - 1); row < Math.min(height, y + 2); row++) {
        for (let column = Math.max(0, x - 1); column < Math.min(width, x + 2); column++) {
          const near = row * width + column;
          if (!known.has(near)) next.add(near);
        }
      }
    }
    edge = [...next].sort((a, b) => a - b);
    for (const token of edge.slice(0, size - known.size)) known.add(token);
  }
  // Where no token may change there is none to be near to.
  for (let token = 0; known.size < size; token++) known.add(token);
  return [...known].sort((a, b) => a - b);
}

/** Tokens that follow each other: where they begin in the picture, where in the region, and how many. */
export function pieces(tokens: readonly number[]): { from: number; to: number; count: number }[] {
  const found: { from: number; to: number; count: number }[] = [];
  for (const [to, from] of tokens.entries()) {
    const last = found.at(-1);
    if (last && last.from + last.count === from) last.count++;
    else found.push({ from, to, count: 1 });
  }
  return found;
}

/** Whether an evaluation is of the whole picture: those before `start`, then every `interval`-th. */
export const isWhole = ({ start, interval }: Required<RegionCache>, k: number): boolean =>
  k < start || (k - start + 1) % interval === 0;
