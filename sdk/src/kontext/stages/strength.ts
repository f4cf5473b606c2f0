// Strength: how much of the way from noise to picture is gone again, starting from the picture that is there.
// The rule is diffusers' for its image-to-image and inpainting pipelines, so that results can be compared.
import { KontextError } from '../../../../runtime/src/errors.ts';

/**
 * Index of the first step that is run; those before it are left out.
 *
 * @param strength above 0, up to 1
 * @throws KontextError `invalid-request` when no step would be left
 */
export function firstStep(steps: number, strength: number): number {
  const first = Math.trunc(Math.max(steps - Math.min(steps * strength, steps), 0));
  if (strength > 0 && first < steps) return first;
  throw new KontextError(
    'invalid-request',
    `strength is ${strength}: no step would run and nothing would change. Use a value above 0, such as 0.6.`,
    { option: 'strength', strength, steps },
  );
}

/** σ · noise + (1 − σ) · picture: where on the way a start at `sigma` lies (Liu et al. 2022, arXiv:2209.03003). */
export function noised(known: Float32Array, noise: Float32Array, sigma: number): Float32Array<ArrayBuffer> {
  const s = Math.fround(sigma);
  const rest = Math.fround(1 - s);
  return Float32Array.from(known, (value, i) => Math.fround(s * noise[i]!) + Math.fround(rest * value));
}
