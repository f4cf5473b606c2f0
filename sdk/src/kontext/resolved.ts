// What a result tells of its request: every option as it was used, so that the same picture can be made again.
import type { PipelineRequest, PipelineResult } from './pipeline.ts';
import type { CheckedRequest } from './request.ts';
import type { ResolvedOptions, UsedAdapter } from './types.ts';

/** @param adapters that were used, when any were ever */
export function resolvedOptions(
  request: Omit<PipelineRequest, 'pictures'>,
  { box, sizes }: PipelineResult['scene'],
  precision: ResolvedOptions['precision'],
  adapters: readonly UsedAdapter[],
): ResolvedOptions {
  return {
    ...sizes.target,
    prompt: request.prompt,
    ...(request.negativePrompt !== undefined && { negativePrompt: request.negativePrompt }),
    trueCfgScale: request.trueCfgScale,
    ...guidanceOf(request),
    steps: request.steps,
    guidance: request.guidance,
    maxSequenceLength: request.maxSequenceLength,
    conditioning: request.conditioning,
    precision,
    references: sizes.references,
    ...samplingOf(request, adapters.length > 0),
    ...(adapters.length > 0 && { adapters: [...adapters] }),
    ...(request.strength < 1 && { strength: request.strength }),
    ...(request.mask && box && { mask: { mode: request.mask.mode, box } }),
  };
}

/** Guidance by the negative prompt beyond the plain kind. */
function guidanceOf({ cfgZero, nag }: CheckedRequest): Partial<ResolvedOptions> {
  return {
    ...(cfgZero !== undefined && { cfgZeroStar: true, cfgZeroInitSteps: cfgZero }),
    ...(nag && { nagScale: nag.scale, nagTau: nag.tau, nagAlpha: nag.alpha, nagSigmaEnd: nag.sigmaEnd }),
  };
}

/**
 * What differs from how the model is published; with it all, the same picture can be made again.
 *
 * @param adapted adapters may want another sampler or schedule than the model: what was used is then told in any case
 */
function samplingOf(request: CheckedRequest, adapted: boolean): Partial<ResolvedOptions> {
  const { sampler, eta, schedule, sigmas, referencePositions, stitch, references } = request;
  return {
    ...(request.clipPrompt !== undefined && { clipPrompt: request.clipPrompt }),
    ...(request.cache && { cache: request.cache }),
    ...(request.expand && { expand: request.expand }),
    ...((request.guided[0] > 0 || request.guided[1] < 1) && { cfgInterval: [...request.guided] as [number, number] }),
    ...(!request.context && { context: false }),
    ...((adapted || sampler !== 'euler') && { sampler }),
    ...(sampler === 'euler_ancestral' && { eta }),
    ...((adapted ? !sigmas : schedule !== 'model') && { schedule }),
    ...(sigmas && { sigmas: [...sigmas] }),
    ...(references.length > 1 && referencePositions !== 'offset' && { referencePositions }),
    ...(references.length > 1 &&
      referencePositions === 'stitched' && { stitchDirection: stitch.direction, stitchSpacing: stitch.spacing }),
  };
}
