// Whether a picture is the right answer, how far from it, and how sure a share of right answers is.
import type { PixelImage } from '../../sdk/src/image/pixels.ts';
import { fromRgb, toRgb } from '../../sdk/src/image/pixels.ts';
import { nearestScene, render, SCENE_SIZE, type Scene, sameScene } from './scenes.ts';

/** A right answer's nearest scene is the true one, and it is recognisably that scene: 20 dB, as in the training's own evaluation. */
const RIGHT_DB = 20;

/** Whether `image` shows `target`, and the PSNR between the two in dB. */
export function judge(image: PixelImage, target: Scene): { right: boolean; psnr: number } {
  const rgb = toRgb(image);
  const psnr = decibels(rgb, render(target));
  return { right: psnr > RIGHT_DB && sameScene(nearestScene(rgb).scene, target), psnr };
}

/** PSNR of two pictures of one size, as RGB bytes; at most 88 dB, which is no difference. */
export function decibels(a: ArrayLike<number>, b: ArrayLike<number>): number {
  let squares = 0;
  for (let i = 0; i < a.length; i++) squares += (a[i]! - b[i]!) ** 2;
  return 10 * Math.log10(255 ** 2 / Math.max(squares / a.length, 1e-4));
}

export function picture(scene: Scene): PixelImage {
  return fromRgb(render(scene), SCENE_SIZE, SCENE_SIZE);
}

/** Mean absolute difference in grey levels over pixels that stayed; marks those that `truth` changed. */
export function drift(start: Uint8Array, now: Uint8Array, truth: Uint8Array, untouched: Uint8Array): number {
  let sum = 0;
  let count = 0;
  for (let p = 0; p < untouched.length; p++) {
    const at = [3 * p, 3 * p + 1, 3 * p + 2];
    if (at.some((i) => truth[i] !== start[i])) untouched[p] = 0;
    if (untouched[p] === 0) continue;
    for (const i of at) sum += Math.abs(now[i]! - start[i]!);
    count += 3;
  }
  return count === 0 ? 0 : sum / count;
}

/**
 * Where a share lies that was seen as `hits` of `n`, with 95 % confidence: Wilson's interval, which is sound near 0 and 1.
 *
 * @see Wilson 1927, https://doi.org/10.1080/01621459.1927.10502953
 */
export function wilson(hits: number, n: number): [low: number, high: number] {
  if (n === 0) return [0, 1];
  const z = 1.96;
  const share = hits / n;
  const centre = (share + z ** 2 / (2 * n)) / (1 + z ** 2 / n);
  const half = (z / (1 + z ** 2 / n)) * Math.sqrt((share * (1 - share)) / n + z ** 2 / (4 * n ** 2));
  return [Math.max(0, centre - half), Math.min(1, centre + half)];
}

export const mean = (values: readonly number[]): number => values.reduce((sum, v) => sum + v, 0) / values.length;

export function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  return (sorted[Math.floor((sorted.length - 1) / 2)]! + sorted[Math.ceil((sorted.length - 1) / 2)]!) / 2;
}

export const percent = (share: number): string => `${(100 * share).toFixed(0)} %`;
