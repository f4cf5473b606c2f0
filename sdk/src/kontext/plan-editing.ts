// What guided attention and a region cache change of what is planned for: counted here, so that the plan itself only adds up programs.
import { loadHost } from '../host/module.ts';
import type { Model } from '../model/open.ts';
import { invalid, show } from './checks.ts';
import { checkFamily, familyOf } from './family.ts';
import { tokenCount } from './latents.ts';
import type { PlanOptions } from './load-options.ts';
import type { PlannedRegion, PlannedRequest } from './plan.ts';
import { checkRequest } from './request.ts';
import { isWhole, regionSize } from './stages/region-tokens.ts';
import { requestSigmas } from './stages/schedule.ts';
import type { CacheOptions } from './types.ts';

/** @throws KontextError `invalid-request` for what a request would be refused for, and for caches whose savings only a run shows */
export async function withEditing(
  model: Model,
  planned: PlannedRequest,
  { nagScale, nagSigmaEnd, cache, maskShare, host }: PlanOptions,
): Promise<PlannedRequest> {
  const masked = cache !== undefined && { image: 'planned', mask: 'planned', cache };
  const guided = nagScale !== undefined && { nagScale, negativePrompt: '' };
  const checked = checkRequest(
    { prompt: 'plan', ...masked, ...guided, ...(nagSigmaEnd !== undefined && { nagSigmaEnd }) },
    model.defaults,
  );
  const { steps, size } = planned;
  const region = checkRegion(checked.cache, maskShare, steps, tokenCount(size));
  if (region) checkFamily(familyOf(model), checked);
  if (!checked.nag) return { ...planned, ...(region && { region }) };
  const { sigmaEnd } = checked.nag;
  const sigmas = await requestSigmas(await loadHost(host), model.schedule, { ...checked, steps }, tokenCount(size));
  return { ...planned, guided: sigmas.subarray(0, steps).filter((sigma) => sigma >= sigmaEnd).length };
}

function checkRegion(
  cache: CacheOptions | undefined,
  share: number | undefined,
  steps: number,
  tokens: number,
): PlannedRegion | undefined {
  const option = { option: cache ? 'cache' : 'maskShare' };
  if (!cache) {
    if (share === undefined) return undefined;
    throw invalid(
      'maskShare belongs to a cache of kind "region". Give cache: { kind: "region" }, or leave it out.',
      option,
    );
  }
  if (cache.kind !== 'region') {
    throw invalid(
      `cache of kind "${cache.kind}" cannot be planned: what it spares shows when it runs. Leave out cache, or plan for "region".`,
      option,
    );
  }
  if (!(typeof share === 'number' && share > 0 && share <= 1)) {
    throw invalid(
      `maskShare is ${show(share)}; a region cache is planned for the share of the picture that may change, above 0 and at most 1, such as 0.1.`,
      { option: 'maskShare' },
    );
  }
  const size = regionSize(tokens, Math.ceil(share * tokens));
  if (size === undefined) return { tokens, steps: 0 };
  return { tokens: size, steps: Array.from({ length: steps }, (_, k) => k).filter((k) => !isWhole(cache, k)).length };
}
