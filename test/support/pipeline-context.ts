// Runs requests through the pipeline on the tiny reference model, with the latents after every step.
// For comparing features with the reference implementation's own runs.
import type { KontextDevice } from '../../runtime/src/gpu/device.ts';
import { loadHost } from '../../sdk/src/host/module.ts';
import { decodeImage } from '../../sdk/src/image/node.ts';
import { familyOf } from '../../sdk/src/kontext/family.ts';
import { Parts } from '../../sdk/src/kontext/parts.ts';
import { type PipelineContext, type PipelineResult, runPipeline } from '../../sdk/src/kontext/pipeline.ts';
import { justInTime } from '../../sdk/src/kontext/programs.ts';
import { ProgressTracker } from '../../sdk/src/kontext/progress.ts';
import { ReferenceEncoder } from '../../sdk/src/kontext/references.ts';
import { checkRequest } from '../../sdk/src/kontext/request.ts';
import { TextEncoders } from '../../sdk/src/kontext/text.ts';
import type { EditRequest, GenerateRequest } from '../../sdk/src/kontext/types.ts';
import type { Model } from '../../sdk/src/model/open.ts';

/** What the pipeline needs of a model, all of it on the GPU in one precision. */
export async function pipelineContext(
  gpu: KontextDevice,
  model: Model,
  precision: 'f32' | 'f16' = 'f32',
): Promise<PipelineContext> {
  const host = await loadHost();
  const parts = await Parts.create(gpu, model, justInTime(), { precision, quantization: 'none', memory: 'resident' });
  const family = familyOf(model);
  return {
    host,
    model,
    parts,
    family,
    text: await TextEncoders.create(host, model),
    references: new ReferenceEncoder(host),
  };
}

/** One request, checked as the engine checks it, with conditioning as in float32. */
export async function runRequest(
  context: PipelineContext,
  request: EditRequest | GenerateRequest,
): Promise<PipelineResult & { steps: Float32Array[] }> {
  const checked = checkRequest(request, context.model.defaults);
  const pictures = await Promise.all(checked.references.map((input) => decodeImage(input, 'picture')));
  const maskPicture = checked.mask?.input && (await decodeImage(checked.mask.input, 'mask'));
  const controlPicture = checked.control && (await decodeImage(checked.control, 'control picture'));
  const steps: Float32Array[] = [];
  const work = { signal: new AbortController().signal, tracker: new ProgressTracker(request.onProgress), loadMs: 0 };
  const result = await runPipeline(
    context,
    {
      ...checked,
      conditioning: 'exact',
      pictures,
      ...(maskPicture && { maskPicture }),
      ...(controlPicture && { controlPicture }),
      afterStep: (_, __, latents) => steps.push(latents),
    },
    work,
  );
  return { ...result, steps };
}

/** The largest difference of two arrays. */
export function worstDifference(a: ArrayLike<number>, b: ArrayLike<number>): number {
  let worst = a.length === b.length ? 0 : Infinity;
  for (let i = 0; i < a.length; i++) worst = Math.max(worst, Math.abs(a[i]! - b[i]!));
  return worst;
}
