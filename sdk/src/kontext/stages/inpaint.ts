// What the model sees of a masked edit, as diffusers' `FluxKontextInpaintPipeline` has it: picture, context and mask at the model's size.
import type { Host } from '../../host/module.ts';
import { fromRgb, type PixelImage, toRgb } from '../../image/pixels.ts';
import { fitted } from '../references.ts';
import type { ImageSize, PixelBox } from '../types.ts';
import { type GreyImage, latentMask, MASK_THRESHOLD, resizeGrey } from './mask.ts';
import { cropAndFill, cropBox } from './reference-crop.ts';

/** Pictures of an inpainting and where it may change. */
export interface Inpainting {
  /** Of the target's size: what is kept outside the mask and what the denoising starts from. */
  base: PixelImage;
  /** What the transformer sees beside the target. */
  context: PixelImage[];
  /** Packed `[tokens, 64]`: 1 may change, 0 is kept. */
  mask: Float32Array<ArrayBuffer>;
  /** The same before it was brought to latents, of the target's size. */
  grey: GreyImage;
  /** Of the target that was cut out, in its pixels. */
  box: PixelBox;
}

/**
 * @param pictures the input, then references; references replace the input as context
 * @param sizes of the target and of each picture
 * @throws KontextError `invalid-request` for an empty mask
 */
export async function referenceInpainting(
  host: Host,
  pictures: readonly PixelImage[],
  mask: GreyImage,
  sizes: { target: ImageSize; references: readonly ImageSize[] },
  paddingCrop: number | undefined,
  signal?: AbortSignal,
): Promise<Inpainting> {
  const { target } = sizes;
  const whole = { x: 0, y: 0, ...target };
  const box = paddingCrop === undefined ? whole : cropBox(mask, target, paddingCrop);
  const cropped = async (picture: PixelImage): Promise<PixelImage> => {
    if (paddingCrop === undefined) return picture;
    const { width, height } = picture;
    const { data } = await cropAndFill(host, { width, height, data: toRgb(picture), channels: 3 }, box, signal);
    return fromRgb(data, width, height);
  };
  const grey = await (paddingCrop === undefined
    ? resizeGrey(host, mask, target, signal)
    : croppedMask(host, mask, target, box, signal));
  const seen: PixelImage[] = [];
  for (const [i, picture] of pictures.entries()) {
    seen.push(await cropped(await fitted(host, picture, i === 0 ? target : sizes.references[i]!, signal)));
  }
  const [base, ...others] = seen as [PixelImage, ...PixelImage[]];
  return { base, context: others.length > 0 ? others : [base], mask: latentMask(grey), grey, box };
}

/** Cut out of the mask as given, then brought to the target's size with its aspect kept; black around it. */
async function croppedMask(
  host: Host,
  mask: GreyImage,
  target: ImageSize,
  box: PixelBox,
  signal?: AbortSignal,
): Promise<GreyImage> {
  const cut = await cropAndFill(host, { ...mask, channels: 1 }, box, signal);
  const fits = cut.width === target.width && cut.height === target.height;
  const grey = fits ? cut : await resizeGrey(host, cut, target, signal);
  return { ...target, data: grey.data.map((level) => (level >= MASK_THRESHOLD ? 255 : 0)) };
}
