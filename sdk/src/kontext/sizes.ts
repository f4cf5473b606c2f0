// Chooses the size of the picture and of each reference, by the rules of the reference implementations.
// Preferred sizes are the model's own when its folder names some, else those FLUX.1 Kontext was trained on.
import { KontextError } from '../../../runtime/src/errors.ts';
import { PREFERRED_KONTEXT_SIZES, targetSize } from '../host/sizes.ts';
import { MAX_OUTPUT_SIDE, type ModelDefaults } from './options.ts';
import type { CheckedRequest } from './request.ts';
import type { ImageSize } from './types.ts';

export interface ChosenSizes {
  /** Of the picture to make, in pixels. */
  target: ImageSize;
  /** To which each reference is resized. */
  references: ImageSize[];
}

/**
 * `auto` takes the preferred size nearest the first reference's aspect ratio (|Δ(width / height)|, ties to the narrower), as
 * BFL does; without a reference the preferred size nearest a square. `maxArea` scales whatever was chosen (with `auto` the
 * input's own aspect) to that many pixels and floors to multiples of 16, as diffusers does.
 *
 * @param inputs sizes of the references as they came, in pixels
 * @throws KontextError `invalid-request` when a side would fall below 16 or rise above the largest
 */
export function chooseSizes(
  request: Pick<CheckedRequest, 'size' | 'maxArea' | 'autoResize'>,
  inputs: readonly ImageSize[],
  {
    preferredSizes = PREFERRED_KONTEXT_SIZES,
  }: { preferredSizes?: ModelDefaults['preferredSizes'] | typeof PREFERRED_KONTEXT_SIZES },
): ChosenSizes {
  const target = chooseTarget(request, inputs[0], preferredSizes);
  checkSides(target, 'The picture would be', 'Give a size or a maxArea.');
  const references = inputs.map((input) => (request.autoResize ? nearest(input, preferredSizes) : floored(input)));
  for (const size of references) checkSides(size, 'A reference is', 'Leave autoResize on, or scale it down.');
  return { target, references };
}

function checkSides({ width, height }: ImageSize, what: string, advice: string): void {
  if (Math.max(width, height) <= MAX_OUTPUT_SIDE) return;
  throw new KontextError(
    'invalid-request',
    `${what} ${width}×${height}; sides go up to ${MAX_OUTPUT_SIDE}. ${advice}`,
    { width, height, max: MAX_OUTPUT_SIDE },
  );
}

type Preferred = readonly (readonly [number, number])[];

function chooseTarget(
  { size, maxArea }: Pick<CheckedRequest, 'size' | 'maxArea'>,
  input: ImageSize | undefined,
  preferred: Preferred,
): ImageSize {
  const square = { width: 1, height: 1 };
  const wanted = typeof size === 'object' ? size : (input ?? square);
  if (maxArea !== undefined) return targetSize({ rule: 'diffusers', ...wanted, maxArea });
  if (size === 'auto') return nearest(wanted, preferred);
  return size === 'input' ? floored(wanted) : { width: wanted.width, height: wanted.height };
}

function nearest({ width, height }: ImageSize, preferred: Preferred): ImageSize {
  const distance = ([w, h]: readonly [number, number]) => Math.abs(width / height - w / h);
  const [best] = [...preferred].sort((a, b) => distance(a) - distance(b) || a[0] - b[0]);
  return { width: best![0], height: best![1] };
}

function floored({ width, height }: ImageSize): ImageSize {
  const size = { width: width - (width % 16), height: height - (height % 16) };
  if (size.width > 0 && size.height > 0) return size;
  throw new KontextError(
    'invalid-request',
    `A picture of ${width}×${height} has a side below 16 pixels. Use a larger one, or leave autoResize on.`,
    { width, height },
  );
}
