// Variants: several seeds go a few steps, the best go all the way. A step in, what a picture will be is mostly decided.
// The idea of choosing early is Zhang et al. 2025 (ICEdit, https://arxiv.org/abs/2504.20690), which asks a vision model; here the app chooses.
import { KontextError } from '../../../../runtime/src/errors.ts';
import type { Host } from '../../host/module.ts';
import type { PixelImage } from '../../image/pixels.ts';
import type { PipelineContext } from '../context.ts';
import { type DenoiseJob, type Denoiser, denoise, type Paused, type StepRange, stepsOf } from '../denoiser.ts';
import type { Work } from '../parts.ts';
import { fitted } from '../references.ts';
import type { Variants } from '../request.ts';
import type { Start } from '../starts.ts';
import type { Scene } from './plain-scene.ts';

/** A picture that goes on, and from where. */
export interface Going {
  start: Start;
  range?: StepRange;
}

/** Runs all variants up to the choice; without variants everything goes on from the beginning. */
export async function earlyChoice(
  { host, parts }: Pick<PipelineContext, 'host' | 'parts'>,
  variants: Variants,
  { job, denoiser, starts, scene }: { job: DenoiseJob; denoiser: Denoiser; starts: readonly Start[]; scene: Scene },
  work: Work,
): Promise<{ going: Going[]; skippedBefore: number }> {
  if (variants.count === 1) return { going: starts.map((start) => ({ start })), skippedBefore: 0 };
  const [from, to] = [variants.steps, stepsOf(job)];
  const paused: Paused[] = [];
  const previews: PixelImage[] = [];
  for (const start of starts) {
    const state = await denoise(parts, job, denoiser, start, work, { from: 0, to: from });
    paused.push(state);
    previews.push(await denoiser.preview!(state.outlook));
  }
  const input = scene.base?.picture ?? scene.context[0]?.picture;
  const chosen = await chooseVariants(host, variants, previews, input, work.signal);
  work.tracker.send({ type: 'choice', chosen });
  return {
    going: chosen.map((i) => ({ start: starts[i]!, range: { from, to, paused: paused[i]! } })),
    skippedBefore: paused.reduce((sum, { skipped }) => sum + skipped, 0),
  };
}

/**
 * Which variants go on.
 *
 * @param input for the built-in choice: the picture that is edited
 * @throws KontextError `invalid-request` when `choose` answers with anything but their indices
 */
export async function chooseVariants(
  host: Host,
  { choose, count }: Variants,
  previews: readonly PixelImage[],
  input: PixelImage | undefined,
  signal: AbortSignal,
): Promise<number[]> {
  const answer = choose ? await choose(previews, signal) : input && (await bestVariant(host, previews, input, signal));
  const chosen = [answer].flat();
  if (chosen.length > 0 && chosen.every((i) => Number.isInteger(i) && i! >= 0 && i! < count)) {
    return [...new Set(chosen as number[])];
  }
  throw new KontextError(
    'invalid-request',
    `choose answered ${JSON.stringify(answer)}; it must be the index of a preview, 0 to ${count - 1}, or a list of them.`,
    { option: 'choose' },
  );
}

/** Weight of a change where nothing should change against one where something should. */
const STRAY = 4;

/**
 * The variant that leaves most of the input alone and changes the rest most: mean difference of the tenth of the pixels that changed
 * most, less four times that of the half that changed least.
 */
async function bestVariant(
  host: Host,
  previews: readonly PixelImage[],
  input: PixelImage,
  signal: AbortSignal,
): Promise<number> {
  // All previews have one size.
  const before = (await fitted(host, input, previews[0]!, signal)).data;
  const scores = previews.map((preview) => {
    const { data } = preview;
    const differences = new Float32Array(data.length / 4);
    for (let i = 0, at = 0; i < differences.length; i++, at += 4) {
      for (let c = at; c < at + 3; c++) differences[i] = differences[i]! + Math.abs(data[c]! - before[c]!);
    }
    differences.sort();
    const mean = (values: Float32Array) => values.reduce((sum, v) => sum + v, 0) / Math.max(1, values.length);
    const half = differences.subarray(0, differences.length >> 1);
    const tenth = differences.subarray(Math.floor(differences.length * 0.9));
    return mean(tenth) - STRAY * mean(half);
  });
  return scores.indexOf(Math.max(...scores));
}
