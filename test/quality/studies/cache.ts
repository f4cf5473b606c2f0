// What steps that reuse earlier ones cost in right answers and gain in evaluations.
import type { CacheOptions, FirstBlockCache, TaylorCache } from '../../../sdk/src/kontext/types.ts';
import type { Study } from '../study.ts';

/** FLUX's usual number, so that neighbouring steps are as alike as there. */
const STEPS = 28;

const cached = (name: string, cache: FirstBlockCache | TaylorCache) => ({
  name,
  options: () => ({ steps: STEPS, cache: cache as CacheOptions }),
});

export const cache: Study = {
  about: `${STEPS} steps. A skipped evaluation counts as none, although first-block runs the first block.`,
  settings: [
    { name: 'none', options: () => ({ steps: STEPS }) },
    ...[0.03, 0.05, 0.08, 0.12, 0.2, 0.3].map((threshold) =>
      cached(`first-block ${threshold}`, { kind: 'first-block', threshold }),
    ),
    ...[2, 3, 5].flatMap((interval) =>
      ([1, 2] as const).map((order) =>
        cached(`taylor ${order}, every ${interval}`, { kind: 'taylor', order, interval }),
      ),
    ),
  ],
};

/** The defaults against none, on many scenes. */
export const cacheDefault: Study = {
  about: `${STEPS} steps, the default threshold and the default series against every step whole.`,
  settings: [
    { name: 'none', options: () => ({ steps: STEPS }) },
    cached('first-block', { kind: 'first-block' }),
    cached('taylor', { kind: 'taylor' }),
  ],
};
