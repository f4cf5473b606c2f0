// Numbers that are not finite end a request with where they began, not with a black picture.
// Results that are on the CPU anyway are looked at always; step and layer are found by a second run that looks at everything.
import { KontextError } from '../../../../runtime/src/errors.ts';
import type { Unsound } from '../../../../runtime/src/execute/executable.ts';

/** Finds the layer in which a network's numbers stop being finite, by running it again. */
export type Locate = () => Promise<Unsound | undefined>;

/**
 * @param where the network, as the message names it
 * @throws KontextError `weights-invalid` when a value is NaN or infinite, with `details.part`, `details.layer` and `details.kind`
 */
export async function checkFinite(values: Float32Array, where: string, locate: Locate): Promise<void> {
  if (!allFinite(values)) throw notFinite(where, {}, await locate());
}

/** Whether all are finite. The sum of x·0 is 0 for those and NaN for the others, without a branch in the loop. */
export function allFinite(values: Float32Array): boolean {
  let sum = 0;
  for (let i = 0; i < values.length; i++) sum += values[i]! * 0;
  return sum === 0;
}

/**
 * Checks a decoded picture. Normalisation spreads a number that is not finite over the whole picture, which is then of one colour: a picture
 * that is so by right costs a second look.
 *
 * @throws KontextError as {@link checkFinite}
 */
export async function checkDecoded(rgba: Uint8Array | Uint8ClampedArray, locate: Locate): Promise<void> {
  for (let i = 4; i < rgba.length; i++) if (rgba[i] !== rgba[i - 4]) return;
  const unsound = await locate();
  if (unsound) throw notFinite('the autoencoder’s decoder', {}, unsound);
}

/** Called after each evaluation of a checked run. @param read the velocity, mixed of all prompts */
export type Look = (step: number, read: () => Promise<Float32Array>, locate: Locate) => Promise<void>;

/**
 * Checks a finished picture's latents; when they are not finite, makes it again and looks at every evaluation.
 *
 * @param again runs the same loop with a look at it
 * @throws KontextError `weights-invalid` with `details.step` (from 1), `details.part`, `details.layer` and `details.kind`
 */
export async function checkDenoised(
  latents: Float32Array,
  image: number,
  again: (look: Look) => Promise<{ latents: Float32Array }>,
): Promise<void> {
  if (allFinite(latents)) return;
  const repeated = await again(async (step, read, locate) => {
    if (allFinite(await read())) return;
    const where = `the transformer, in step ${step + 1} (picture ${image})`;
    throw notFinite(where, { image, step: step + 1 }, await locate());
  });
  const sound = allFinite(repeated.latents);
  throw notFinite(
    sound
      ? `the transformer, in a step that was sound when run again (picture ${image})`
      : `the sampler (picture ${image}): every velocity was finite`,
    { image },
  );
}

function notFinite(where: string, details: Record<string, unknown>, unsound?: Unsound): KontextError {
  const began = unsound ? `, beginning with ${unsound.layer} (${unsound.kind})` : '';
  return new KontextError(
    'weights-invalid',
    `Numbers that are not finite came out of ${where}${began}. The weights are damaged, or too large for this precision: verify the files, or load with precision "f32".`,
    { part: where.split(/,| \(/)[0], ...details, ...unsound },
  );
}
