// What masked edits lose when only the mask's tokens go through the transformer in most steps.
import { fromRgb } from '../../../sdk/src/image/pixels.ts';
import type { CacheOptions, RegionCache } from '../../../sdk/src/kontext/types.ts';
import { render, SCENE_SIZE } from '../scenes.ts';
import type { Study, Task } from '../study.ts';

const STEPS = 12;

/** White where the true answer differs from the input, as a box. */
function maskOf({ context, target }: Task) {
  const [before, after] = [render(context), render(target)];
  let [left, top, right, bottom] = [SCENE_SIZE, SCENE_SIZE, 0, 0];
  for (let i = 0; i < before.length; i++) {
    if (before[i] === after[i]) continue;
    const [x, y] = [Math.floor(i / 3) % SCENE_SIZE, Math.floor(i / 3 / SCENE_SIZE)];
    [left, top, right, bottom] = [Math.min(left, x), Math.min(top, y), Math.max(right, x + 1), Math.max(bottom, y + 1)];
  }
  const inside = (p: number): boolean => {
    const [x, y] = [p % SCENE_SIZE, Math.floor(p / SCENE_SIZE)];
    return x >= left && x < right && y >= top && y < bottom;
  };
  const grey = Uint8Array.from({ length: before.length }, (_, i) => (inside(Math.floor(i / 3)) ? 255 : 0));
  return fromRgb(grey, SCENE_SIZE, SCENE_SIZE);
}

const masked = (name: string, cache?: RegionCache) => ({
  name,
  options: (task: Task) => ({ mask: maskOf(task), steps: STEPS, ...(cache && { cache: cache as CacheOptions }) }),
});

export const region: Study = {
  about: `${STEPS} steps, an exact mask around what the answer changes, no margin: 64 pixels are 4 × 4 tokens. Evaluations of the region count as none.`,
  kinds: ['replace', 'remove', 'add'],
  settings: [
    masked('none'),
    ...[2, 4, 8].map((interval) =>
      masked(`region, every ${interval}`, { kind: 'region', interval, start: 2, margin: 0 }),
    ),
  ],
};
