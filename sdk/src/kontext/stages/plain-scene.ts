// What the model sees of a request without a mask: sizes, pictures beside the target, what the denoising starts from.
// Apart from masks, expanding and stitching, which a page loads when a request asks for them.
import { flattened, type PixelImage } from '../../image/pixels.ts';
import type { ModelDefaults } from '../options.ts';
import type { CheckedRequest } from '../request.ts';
import { type ChosenSizes, chooseSizes } from '../sizes.ts';
import type { ImageSize, PixelBox } from '../types.ts';
import type { GreyImage } from './mask.ts';

/** A picture and the size it is encoded at. */
export interface SceneView {
  picture: PixelImage;
  size: ImageSize;
}

export interface Scene {
  sizes: ChosenSizes;
  /** What the transformer sees beside the target. */
  context: SceneView[];
  /** What the denoising starts from and what is kept outside the mask; its size is the target's. */
  base?: SceneView;
  /** Packed `[tokens, 64]`: 1 may change, 0 is kept. */
  mask?: Float32Array<ArrayBuffer>;
  /** Of the target's size: white from half up is filled. */
  grey?: GreyImage;
  /** What FLUX.1 Canny or Depth follows. */
  control?: SceneView;
  /** Of the input that is edited, in its pixels; with a mask only. */
  box?: PixelBox;
  /** Makes the result of a decoded picture. */
  finish: (decoded: PixelImage) => PixelImage | Promise<PixelImage>;
}

export interface SceneRequest
  extends Pick<
    CheckedRequest,
    'mask' | 'strength' | 'size' | 'maxArea' | 'autoResize' | 'referencePositions' | 'stitch' | 'context' | 'expand'
  > {
  /** The input as it came, with alpha, then references. */
  pictures: readonly PixelImage[];
  maskPicture?: PixelImage;
  controlPicture?: PixelImage;
}

/** Whether a request needs more than {@link plainScene}. */
export const isPlain = ({ mask, referencePositions, pictures }: SceneRequest): boolean =>
  mask === undefined && (referencePositions !== 'stitched' || pictures.length < 2);

/** The scene of a request without a mask, every reference by itself. */
export function plainScene(request: SceneRequest, defaults: ModelDefaults): Scene {
  const { controlPicture } = request;
  const scene = wholeScene(request, request.pictures.map(flattened), defaults);
  return {
    ...scene,
    ...(!request.context && { context: [] }),
    ...(controlPicture && { control: { picture: controlPicture, size: scene.sizes.target } }),
  };
}

export function wholeScene(request: SceneRequest, pictures: PixelImage[], defaults: ModelDefaults): Scene {
  const sizes = chooseSizes(request, pictures, defaults);
  const context = pictures.map((picture, i) => ({ picture, size: sizes.references[i]! }));
  if (request.strength === 1) return { sizes, context, finish: same };
  return { sizes, context, base: { picture: pictures[0]!, size: sizes.target }, finish: same };
}

/** Of a result that is the decoded picture. */
export const same = (decoded: PixelImage): PixelImage => decoded;
