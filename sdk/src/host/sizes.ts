// Which sizes FLUX.1 Kontext works in, and how the two reference implementations choose among them.
// They disagree on real photos, so every rule carries the name of its implementation.
import { KontextError } from '../../../runtime/src/errors.ts';

/** Pixels. */
export interface Size {
  width: number;
  height: number;
}

/** `'bfl'`: black-forest-labs/flux, `prepare_kontext`; `'diffusers'`: huggingface/diffusers, `FluxKontextPipeline`. */
export type SizeRule = 'bfl' | 'diffusers';

/** The sizes (width, height) that Kontext was trained on: about a megapixel, multiples of 16, from 3:7 to 7:3. */
export const PREFERRED_KONTEXT_SIZES: readonly (readonly [width: number, height: number])[] = [
  [672, 1568],
  [688, 1504],
  [720, 1456],
  [752, 1392],
  [800, 1328],
  [832, 1248],
  [880, 1184],
  [944, 1104],
  [1024, 1024],
  [1104, 944],
  [1184, 880],
  [1248, 832],
  [1328, 800],
  [1392, 752],
  [1456, 720],
  [1504, 688],
  [1568, 672],
];

/** Pixels of a side per token: 8 of the autoencoder times 2 of the patch. */
const MULTIPLE = 16;
const DEFAULT_AREA = 1024 * 1024;

/** What {@link targetSize} starts from. */
export type TargetSizeOptions =
  | {
      rule: 'bfl';
      /** Size of the input image in pixels. */
      width: number;
      height: number;
    }
  | {
      rule: 'diffusers';
      /** The size asked for in pixels; default 1024 × 1024 whatever the input image is. */
      width?: number;
      height?: number;
      /** Pixels the size is scaled to, keeping its aspect ratio; default 1024². */
      maxArea?: number;
    };

/**
 * The size of the picture to make.
 *
 * - `bfl`: the preferred size nearest to the input image's aspect ratio (|Δ(width / height)|, ties to the narrower).
 * - `diffusers`: the size asked for, always scaled to `maxArea` and cut down to multiples of 16; so 512 × 512 becomes
 *   1024 × 1024 unless `maxArea` says otherwise.
 *
 * @throws KontextError `invalid-request` for sizes that are no whole numbers from 1, or an aspect ratio so extreme that
 *   a side falls below 16 pixels
 */
export function targetSize(options: TargetSizeOptions): Size {
  if (options.rule === 'bfl') return nearestPreferred(checked(options));
  const { width, height } = checked({ width: options.width ?? 1024, height: options.height ?? 1024 });
  const area = checkedArea(options.maxArea ?? DEFAULT_AREA);
  const aspect = width / height;
  return floorToMultiple({ width: roundEven(Math.sqrt(area * aspect)), height: roundEven(Math.sqrt(area / aspect)) });
}

/** What {@link referenceSize} starts from. */
export interface ReferenceSizeOptions extends Size {
  rule: SizeRule;
  /** `diffusers` only: false keeps the image's own size, cut down to multiples of 16; default true. */
  autoResize?: boolean;
}

/**
 * The size to which an input image of `width` × `height` pixels is resampled before it is encoded.
 *
 * Both rules take the preferred size of nearest aspect ratio, but diffusers cuts the size down to multiples of 16 first:
 * for 1061 × 977 BFL takes 1104 × 944 and diffusers 1024 × 1024.
 *
 * @throws KontextError `invalid-request` for sizes that are no whole numbers from 1; with `diffusers` also for an image
 *   with a side below 16 pixels
 */
export function referenceSize(options: ReferenceSizeOptions): Size {
  const size = checked(options);
  if (options.rule === 'bfl') return nearestPreferred(size);
  const floored = floorToMultiple(size);
  return (options.autoResize ?? true) ? nearestPreferred(floored) : floored;
}

/**
 * BFL's rule for a size asked for: each side rounded up to a multiple of 16 pixels (1000 × 700 becomes 1008 × 704).
 *
 * @throws KontextError `invalid-request` for sizes that are no whole numbers from 1
 */
export function requestedSize(size: Size): Size {
  const { width, height } = checked(size);
  return { width: Math.ceil(width / MULTIPLE) * MULTIPLE, height: Math.ceil(height / MULTIPLE) * MULTIPLE };
}

/**
 * BFL's size for an aspect ratio: `area` pixels in that shape, cut down to multiples of 16 (16 / 9 becomes 1360 × 768).
 *
 * @param aspectRatio width / height, above 0
 * @param area pixels; default 1024²
 * @throws KontextError `invalid-request` when either is not above 0 and finite, or a side falls below 16 pixels
 */
export function sizeForAspectRatio(aspectRatio: number, area = DEFAULT_AREA): Size {
  if (!(aspectRatio > 0 && aspectRatio < Infinity)) {
    throw invalid(`An aspect ratio is above 0 and finite, not ${aspectRatio}.`, { aspectRatio });
  }
  checkedArea(area);
  return floorToMultiple({ width: Math.sqrt(area * aspectRatio), height: Math.sqrt(area / aspectRatio) });
}

function nearestPreferred({ width, height }: Size): Size {
  const aspect = width / height;
  let best = PREFERRED_KONTEXT_SIZES[0]!;
  for (const size of PREFERRED_KONTEXT_SIZES) {
    if (Math.abs(aspect - size[0] / size[1]) < Math.abs(aspect - best[0] / best[1])) best = size;
  }
  return { width: best[0], height: best[1] };
}

function floorToMultiple({ width, height }: Size): Size {
  const floored = { width: Math.floor(width / MULTIPLE) * MULTIPLE, height: Math.floor(height / MULTIPLE) * MULTIPLE };
  if (floored.width === 0 || floored.height === 0) {
    throw invalid(
      `${Math.round(width)} × ${Math.round(height)} has a side below ${MULTIPLE} pixels, the size of one token. Use a larger image or a less extreme aspect ratio.`,
      { width, height },
    );
  }
  return floored;
}

/** Python's round(). */
function roundEven(value: number): number {
  const floor = Math.floor(value);
  if (value - floor !== 0.5) return Math.round(value);
  return floor + (floor % 2);
}

function checked({ width, height }: Size): Size {
  if (!Number.isInteger(width) || !Number.isInteger(height) || width < 1 || height < 1) {
    throw invalid(`A size is two whole numbers of pixels from 1, not ${width} × ${height}.`, { width, height });
  }
  return { width, height };
}

function checkedArea(area: number): number {
  if (!(area > 0 && area < Infinity)) throw invalid(`An area is a number of pixels above 0, not ${area}.`, { area });
  return area;
}

function invalid(message: string, details: Record<string, unknown>): KontextError {
  return new KontextError('invalid-request', message, details);
}
