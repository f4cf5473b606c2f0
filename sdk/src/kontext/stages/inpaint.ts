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
export function referenceInpainting(
  host: Host,
  pictures: readonly PixelImage[],
  mask: GreyImage,
  sizes: { target: ImageSize; references: readonly ImageSize[] },
  paddingCrop: number | undefined,
): Inpainting {
  const { target } = sizes;
  const [image, ...others] = pictures.map((picture, i) =>
    fitted(host, picture, i === 0 ? target : sizes.references[i]!),
  );
  const whole = { x: 0, y: 0, ...target };
  const box = paddingCrop === undefined ? whole : cropBox(mask, target, paddingCrop);
  const cropped = (picture: PixelImage): PixelImage => {
    if (paddingCrop === undefined) return picture;
    const { width, height } = picture;
    const { data } = cropAndFill(host, { width, height, data: toRgb(picture), channels: 3 }, box);
    return fromRgb(data, width, height);
  };
  const grey = paddingCrop === undefined ? resizeGrey(host, mask, target) : croppedMask(host, mask, target, box);
  const base = cropped(image!);
  return { base, context: others.length > 0 ? others.map(cropped) : [base], mask: latentMask(grey), grey, box };
}

/** Cut out of the mask as given, then brought to the target's size with its aspect kept; black around it. */
function croppedMask(host: Host, mask: GreyImage, target: ImageSize, box: PixelBox): GreyImage {
  const cut = cropAndFill(host, { ...mask, channels: 1 }, box);
  const grey = cut.width === target.width && cut.height === target.height ? cut : resizeGrey(host, cut, target);
  return { ...target, data: grey.data.map((level) => (level >= MASK_THRESHOLD ? 255 : 0)) };
}
