// Numbers that are not finite end a request with where they began, not with a black picture.
// Texts, references and results are on the CPU anyway and looked at always; where in the loop it began is found by a second, checked run.
import { KontextError } from '../../../../runtime/src/errors.ts';

/**
 * @param where stage and network, as the message names it
 * @throws KontextError `weights-invalid` when a value is NaN or infinite
 */
export function checkFinite(values: Float32Array, where: string): void {
  if (allFinite(values)) return;
  throw notFinite(where, {});
}

/** Whether all are finite. The sum of x·0 is 0 for those and NaN for the others, without a branch in the loop. */
export function allFinite(values: Float32Array): boolean {
  let sum = 0;
  for (let i = 0; i < values.length; i++) sum += values[i]! * 0;
  return sum === 0;
}

/**
 * Checks a finished picture's latents; when they are not finite, makes it again and looks at every step.
 *
 * @param again runs the same loop, with a look at the latents `[tokens, 64]` after each step
 * @throws KontextError `weights-invalid` with `details.step` (from 1) and `details.part`
 */
export async function checkDenoised(
  latents: Float32Array,
  image: number,
  again: (look: (image: number, step: number, latents: Float32Array) => void) => Promise<unknown>,
): Promise<void> {
  if (allFinite(latents)) return;
  let first: number | undefined;
  await again((_, step, values) => {
    if (first === undefined && !allFinite(values)) first = step + 1;
  });
  const step = first === undefined ? {} : { step: first };
  throw notFinite(
    first === undefined
      ? `the transformer, in a step that was sound when run again (picture ${image})`
      : `the transformer's blocks, in step ${first} (picture ${image}): text, references and noise were finite`,
    { image, ...step },
  );
}

function notFinite(where: string, details: Record<string, unknown>): KontextError {
  return new KontextError(
    'weights-invalid',
    `Numbers that are not finite came out of ${where}. The weights are damaged, or too large for this precision: verify the files, or load with precision "f32".`,
    { part: where.split(',')[0], ...details },
  );
}
