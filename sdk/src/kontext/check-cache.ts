// Which steps may reuse earlier ones: defaults by kind, and what each kind needs.
import { invalid, show } from './checks.ts';
import type { ModelDefaults } from './options.ts';
import type { CacheOptions, EditRequest, FirstBlockCache, GenerateRequest, RegionCache, TaylorCache } from './types.ts';

const CACHE_DEFAULTS = {
  'first-block': { kind: 'first-block', threshold: 0.08 },
  taylor: { kind: 'taylor', order: 1, interval: 5, start: 3, end: Number.MAX_SAFE_INTEGER, lite: true },
  region: { kind: 'region', interval: 4, start: 2, margin: 1 },
} as const satisfies Record<string, CacheOptions>;

/** With every default filled in; undefined when no step may. */
export function checkCache(
  { cache, cfgZeroStar, ...request }: EditRequest | GenerateRequest,
  model: Pick<ModelDefaults, 'sampler'> = {},
): CacheOptions | undefined {
  if (cache === undefined) return undefined;
  const standard = typeof cache === 'object' && cache !== null ? CACHE_DEFAULTS[cache.kind] : undefined;
  if (!standard)
    throw invalid('cache must be an object with kind "first-block", "taylor" or "region".', { option: 'cache' });
  for (const key of Object.keys(cache)) {
    if (!(key in standard))
      throw invalid(`cache.${key} is no option of ${cache.kind}; it has ${Object.keys(standard).join(', ')}.`);
  }
  const full = { ...standard, ...cache } as CacheOptions;
  if (full.kind === 'region') {
    const masked = 'image' in request && (request.mask !== undefined || request.expand !== undefined);
    if (!masked)
      throw invalid('cache of kind "region" needs a mask or expand: that tells what can stand still.', {
        option: 'cache',
      });
    if (cfgZeroStar)
      throw invalid('cfgZeroStar measures the whole picture; it does not go with a region cache.', { option: 'cache' });
  }
  if (full.kind === 'taylor' && (request.sampler ?? model.sampler) === 'heun') {
    throw invalid(
      'cache of kind "taylor" extrapolates from step to step; sampler "heun" evaluates twice a step. Choose another of them.',
      { option: 'cache' },
    );
  }
  const problem = CACHE_CHECKS[full.kind](full as never);
  if (problem === undefined) return full;
  throw invalid(problem, { option: 'cache' });
}

const whole = (value: number, least: number): boolean => Number.isInteger(value) && value >= least;

/** What is wrong with the numbers of a cache, in words. */
const CACHE_CHECKS = {
  'first-block': ({ threshold }: Required<FirstBlockCache>) =>
    threshold > 0 && threshold <= 10
      ? undefined
      : `cache.threshold is ${show(threshold)}; it must be above 0, such as 0.08, and at most 10.`,
  taylor: ({ order, interval, start, end, lite }: Required<TaylorCache>) =>
    (order === 1 || order === 2) && [interval, start, end].every((n) => whole(n, 1)) && typeof lite === 'boolean'
      ? undefined
      : 'cache of kind "taylor" takes order 1 or 2, and interval, start and end as whole numbers of at least 1.',
  region: ({ interval, start, margin }: Required<RegionCache>) =>
    [interval, start].every((n) => whole(n, 1)) && whole(margin, 0)
      ? undefined
      : 'cache of kind "region" takes interval and start as whole numbers of at least 1, and margin as one of at least 0.',
} as const;
