// Guidance by a negative prompt: what goes together, what has no effect, and the defaults its authors publish.
import { invalid, numeric } from './checks.ts';
import type { RequestOptions } from './types.ts';

/** Normalised attention guidance by the negative prompt. */
export interface AttentionGuidance {
  scale: number;
  tau: number;
  alpha: number;
  /** Applied from this share of noise up. */
  sigmaEnd: number;
}

/** Shares of the steps in which true guidance counts. */
export function checkInterval({ cfgInterval, trueCfgScale = 1 }: RequestOptions): readonly [number, number] {
  if (cfgInterval === undefined) return [0, 1];
  const [from, to] = Array.isArray(cfgInterval) ? (cfgInterval as readonly [number, number]) : [1, 0];
  if (cfgInterval?.length !== 2 || !(from >= 0 && from < to && to <= 1)) {
    throw invalid('cfgInterval must be two shares of the steps, rising, within 0 and 1.', { option: 'cfgInterval' });
  }
  if (trueCfgScale > 1) return [from, to];
  throw invalid('cfgInterval has no effect without a negativePrompt and a trueCfgScale above 1.', {
    option: 'cfgInterval',
  });
}

/** Steps that CFG-Zero* leaves out at the start; undefined without it. */
export function checkCfgZero(request: RequestOptions, trueCfgScale: number): number | undefined {
  const { cfgZeroStar = false, cfgZeroInitSteps } = request;
  if (typeof cfgZeroStar !== 'boolean') throw invalid('cfgZeroStar must be true or false.', { option: 'cfgZeroStar' });
  if (cfgZeroStar && trueCfgScale > 1) return numeric('cfgZeroInitSteps', cfgZeroInitSteps);
  if (cfgZeroStar) {
    throw invalid('cfgZeroStar has no effect without a negativePrompt and a trueCfgScale above 1.', {
      option: 'cfgZeroStar',
    });
  }
  if (cfgZeroInitSteps === undefined) return undefined;
  throw invalid('cfgZeroInitSteps belongs to cfgZeroStar. Leave it out, or give cfgZeroStar: true.', {
    option: 'cfgZeroInitSteps',
  });
}

/** Undefined without a scale above 1. */
export function checkNag(request: RequestOptions): AttentionGuidance | undefined {
  const scale = numeric('nagScale', request.nagScale);
  const { nagTau, nagAlpha, nagSigmaEnd, negativePrompt, cache } = request;
  if (scale === 1) {
    for (const [name, value] of Object.entries({ nagTau, nagAlpha, nagSigmaEnd })) {
      if (value === undefined) continue;
      throw invalid(`${name} has no effect without a nagScale above 1. Give nagScale: 5, for instance.`, {
        option: name,
      });
    }
    return undefined;
  }
  if (negativePrompt === undefined) {
    throw invalid(`nagScale ${scale} has no effect without a negativePrompt; "" is one.`, { option: 'nagScale' });
  }
  if (cache !== undefined) {
    throw invalid('nagScale and cache do not go together: cached steps know one text only. Leave out one of them.', {
      option: 'nagScale',
    });
  }
  return {
    scale,
    tau: numeric('nagTau', nagTau),
    alpha: numeric('nagAlpha', nagAlpha),
    sigmaEnd: numeric('nagSigmaEnd', nagSigmaEnd),
  };
}
