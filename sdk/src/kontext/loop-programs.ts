// Every program that the denoising loop of a request binds, in the order it does: what is missing in a bundle is told before anything runs.
import { attentionGuidedOf, type DenoiseJob, evaluationsOf } from './denoiser.ts';
import { TOKEN_CHANNELS, tokenCount } from './latents.ts';
import type { Parts, ShapeRequest } from './parts.ts';
import { denoiseShape } from './velocity.ts';

/** @param transformer its widths and depths. A test holds this to what is bound */
export async function loopPrograms(
  job: DenoiseJob,
  { hidden, doubleBlocks, singleBlocks }: Parts['specs']['transformer'],
): Promise<ShapeRequest[]> {
  const tokens = tokenCount(job.target);
  const shapes: ShapeRequest[] = [];
  const part = (...components: ('denoise' | `denoise-${string}`)[]) => {
    for (const component of components) shapes.push(denoiseShape(component, job) as ShapeRequest);
  };
  const small = (...components: ('euler' | 'sampler' | 'keep-known' | 'cfg' | 'cfg-zero')[]) => {
    for (const component of components) shapes.push({ component, tokens, channels: TOKEN_CHANNELS });
  };
  const series = (rows: number, cols: number) => {
    for (const component of ['taylor-update', 'taylor-predict'] as const) shapes.push({ component, rows, cols });
  };
  const { cache } = job;
  if (job.nag) {
    part('denoise-nag');
    if (evaluationsOf(job) > attentionGuidedOf(job)) part('denoise');
  } else if (cache?.kind === 'first-block') part('denoise-first', 'denoise-rest', 'denoise-skip');
  else if (cache?.kind === 'taylor' && !cache.lite) {
    part('denoise-tell', 'denoise-given');
    const all = job.maxSequenceLength + [job.target, ...job.context].reduce((sum, size) => sum + tokenCount(size), 0);
    series((doubleBlocks + singleBlocks) * all, hidden);
  } else part('denoise');
  if (cache?.kind === 'taylor' && cache.lite) series(tokens, TOKEN_CHANNELS);
  if (cache?.kind === 'region' && job.mask) {
    const [{ regionOf }, { regionShape }] = await Promise.all([
      import('./stages/region-tokens.ts'),
      import('./stages/region.ts'),
    ]);
    const region = regionOf(cache, { mask: job.mask, target: job.target });
    if (region) shapes.push(regionShape(job, region.length));
  }
  small(job.euler ? 'euler' : 'sampler');
  if (job.mask) small('keep-known');
  if (job.branches === 2) small(job.cfgZero === undefined ? 'cfg' : 'cfg-zero');
  return shapes;
}
