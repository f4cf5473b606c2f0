// Making ready what requests of a size will ask for, before the first of them.

import { KontextError } from '../../../runtime/src/errors.ts';
import { rowsAtOnce } from '../../../runtime/src/program/modulation-rows.ts';
import type { PipelineContext } from './context.ts';
import { FAMILY_DEFAULTS, seesContext } from './family.ts';
import { namesOf } from './known-options.ts';
import { patches } from './latents.ts';
import type { Work } from './parts.ts';
import { checkRequest } from './request.ts';
import { chooseSizes } from './sizes.ts';
import type { PrepareRequest } from './types.ts';

/** Binds what the memory mode will keep: the transformer, and with `resident` everything. */
export async function prepareShapes(
  { model, parts, family }: PipelineContext,
  request: PrepareRequest,
  work: Work,
): Promise<void> {
  const { maxSequenceLength, steps } = checkRequest(
    {
      prompt: 'prepare',
      ...(request.steps !== undefined && { steps: request.steps }),
      ...(request.maxSequenceLength !== undefined && { maxSequenceLength: request.maxSequenceLength }),
    },
    { ...FAMILY_DEFAULTS[family], ...model.defaults },
  );
  const wanted = request.width !== undefined && request.height !== undefined;
  const size = wanted ? { width: request.width!, height: request.height! } : ('auto' as const);
  checkRequest({ prompt: 'prepare', size });
  const { target } = chooseSizes({ size, maxArea: undefined, autoResize: true }, [], model.defaults);
  const references = checkPreparedSizes(request.references) ?? (seesContext(family) ? [target] : []);
  const image = patches(target);
  await parts.bind(
    { component: 'denoise', textTokens: maxSequenceLength, image, references: references.map(patches) },
    work,
  );
  if (parts.options.memory !== 'resident') return;
  await parts.bind({ component: 'clip', tokens: 77 }, work);
  await parts.bind({ component: 't5', tokens: maxSequenceLength }, work);
  const { specs, target: profile } = parts;
  const rows = rowsAtOnce(steps, specs.transformer, profile.limits);
  await parts.bind({ component: 'modulation', steps: rows }, work);
  for (const reference of references) await parts.bind({ component: 'vae-encode', ...reference }, work);
  await parts.bind({ component: 'vae-decode', ...target }, work);
}

/** @throws KontextError `invalid-request` unless it is absent or a list of sizes that a reference can have */
function checkPreparedSizes(sizes: PrepareRequest['references']): PrepareRequest['references'] {
  if (sizes === undefined) return undefined;
  if (!Array.isArray(sizes)) throw new KontextError('invalid-request', 'references must be a list of sizes.');
  for (const size of sizes) checkRequest({ prompt: 'prepare', size });
  return sizes;
}

export const PREPARE_KEYS = namesOf<PrepareRequest>({
  width: true,
  height: true,
  references: true,
  steps: true,
  maxSequenceLength: true,
  signal: true,
  onProgress: true,
});
