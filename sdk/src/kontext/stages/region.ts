// Steps of a masked edit in which only the tokens that may change go through the transformer; the others keep their last velocity.
// The idea is Chen et al. 2025 (RegionE, https://arxiv.org/abs/2510.25590), which has to guess the region; with a mask it is known.
import { KontextError } from '../../../../runtime/src/errors.ts';
import { patches, TOKEN_CHANNELS } from '../latents.ts';
import type { Parts, ShapeRequest, Work } from '../parts.ts';
import { ropeTable } from '../rope.ts';
import type { RegionCache } from '../types.ts';
import {
  type Branch,
  branchCopies,
  denoiseShape,
  type Velocity,
  type VelocityJob,
  wholeVelocity,
  writeContext,
} from '../velocity.ts';
import { isWhole, pieces, regionOf } from './region-tokens.ts';

/** Bytes of a token's latents. */
const TOKEN_BYTES = TOKEN_CHANNELS * 4;

/** The program for a region of so many tokens. */
export const regionShape = (job: Omit<VelocityJob, 'places'>, tokens: number) =>
  ({ ...denoiseShape('denoise-region', job), image: { height: 1, width: tokens } }) as ShapeRequest;

/**
 * The region sees itself, the text and all references; what else the target has, it sees in evaluations of the whole only. With a mask
 * the latents of those tokens are put back after each step, so that nothing of them is lost between.
 *
 * @param context packed latents of what the transformer sees beside the target
 * @throws KontextError `invalid-request` without a mask in the latents
 */
export async function regionVelocity(
  cache: Required<RegionCache>,
  parts: Parts,
  job: VelocityJob & { mask?: Float32Array },
  context: readonly Float32Array[],
  branches: readonly Branch[],
  work: Work,
): Promise<Velocity> {
  if (!job.mask) {
    throw new KontextError(
      'invalid-request',
      'cache of kind "region" needs a mask or expand, and not FLUX.1 Fill: it is the mask that tells what can stand still.',
      { option: 'cache' },
    );
  }
  const whole = await wholeVelocity(parts, job, context, branches, work);
  const tokens = regionOf(cache, { mask: job.mask, target: job.target });
  if (!tokens) return whole;

  const grid = patches(job.target);
  const region = await parts.bind(regionShape(job, tokens.length), work);
  const { axes, theta } = parts.specs.transformer;
  const text = job.maxSequenceLength;
  const rope = ropeTable(axes, theta, text, grid, job.places);
  const size = axes.reduce((sum, axis) => sum + axis, 0);
  const rows = [...Array(text).keys(), ...tokens.map((token) => text + token)];
  for (let row = text + grid.width * grid.height; row * size < rope.length; row++) rows.push(row);
  const own = new Float32Array(rows.length * size);
  for (const [to, from] of rows.entries()) own.set(rope.subarray(from * size, (from + 1) * size), to * size);
  region.write('rope', own);
  writeContext(region, context);
  const runs = pieces(tokens);
  const gather = runs.map(({ from, to, count }) => ({
    from: whole.latents,
    fromOffset: from * TOKEN_BYTES,
    to: 'latents',
    toOffset: to * TOKEN_BYTES,
    bytes: count * TOKEN_BYTES,
  }));
  const scatter = (encoder: GPUCommandEncoder): void => {
    for (const { from, to, count } of runs) {
      encoder.copyBufferToBuffer(
        region.port('velocity'),
        to * TOKEN_BYTES,
        whole.velocity,
        from * TOKEN_BYTES,
        count * TOKEN_BYTES,
      );
    }
  };
  const evaluations = [0, 0];
  let skipped = 0;
  return {
    latents: whole.latents,
    velocity: whole.velocity,
    writeLatents: whole.writeLatents,
    writeControl: whole.writeControl,
    read: whole.read,
    run(branch, step, after) {
      const k = evaluations[branch]!++;
      if (isWhole(cache, k)) return whole.run(branch, step, after);
      skipped++;
      return parts.run(region, work, {
        copies: [...branchCopies(branches[branch]!, step), ...gather],
        after: (encoder) => {
          scatter(encoder);
          after?.(encoder);
        },
      });
    },
    locate: whole.locate,
    reset() {
      evaluations.fill(0);
      skipped = 0;
    },
    get skipped() {
      return skipped;
    },
    dispose: () => parts.unbind('denoise-region'),
  };
}
