// What the model sees of a request: sizes, pictures beside the target, what the denoising starts from, where it may change.
// One small value, made before any work on the GPU, so that everything after it is the same for every kind of edit.
import type { Host } from '../../host/module.ts';
import { flattened, type PixelImage } from '../../image/pixels.ts';
import type { ModelDefaults } from '../options.ts';
import type { CheckedRequest } from '../request.ts';
import { type ChosenSizes, chooseSizes } from '../sizes.ts';
import type { ImageSize, PixelBox } from '../types.ts';
import { coveringMask, cutOut, paddedBox, putBack, widenedBox } from './exact.ts';
import { expanded } from './expand.ts';
import { referenceInpainting } from './inpaint.ts';
import { type GreyImage, openMask, resizeGrey } from './mask.ts';
import { stitched } from './stitch.ts';

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
  finish: (decoded: PixelImage) => PixelImage;
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

/** @throws KontextError `invalid-request` for a mask of another size or without anything white, and for sizes out of range */
export function sceneOf(host: Host, request: SceneRequest, defaults: ModelDefaults): Scene {
  const separate = separateScene(host, request, defaults);
  const { controlPicture } = request;
  const scene = {
    ...separate,
    ...(!request.context && { context: [] }),
    ...(controlPicture && { control: { picture: controlPicture, size: separate.sizes.target } }),
  };
  if (request.referencePositions !== 'stitched' || scene.context.length < 2) return scene;
  const strip = stitched(
    host,
    scene.context.map(({ picture }) => picture),
    scene.context[0]!.size,
    request.stitch,
  );
  const { width, height } = strip;
  return {
    ...scene,
    sizes: { target: scene.sizes.target, references: [{ width, height }] },
    context: [ownSize(strip)],
  };
}

/** With every reference by itself. */
function separateScene(host: Host, request: SceneRequest, defaults: ModelDefaults): Scene {
  const { mask } = request;
  const sources = [...request.pictures];
  let { maskPicture } = request;
  if (request.expand) {
    const grown = expanded(sources[0]!, maskPicture, request.expand);
    [sources[0], maskPicture] = [grown.canvas, grown.mask];
  }
  const pictures = sources.map(flattened);
  if (!mask || !maskPicture) return wholeScene(request, pictures, defaults);
  const grey = openMask(maskPicture, pictures[0]!);
  if (mask.mode === 'reference') {
    // Diffusers' inpainting works at the size the input is brought to.
    const size = request.size === 'auto' && !request.autoResize ? 'input' : request.size;
    const sizes = chooseSizes({ ...request, size }, pictures, defaults);
    const { base, context, ...of } = referenceInpainting(host, pictures, grey, sizes, mask.paddingCrop);
    return { sizes, context: context.map(ownSize), base: ownSize(base), ...of, finish: same };
  }
  const padded = paddedBox(grey, mask.paddingCrop);
  const { target } = chooseSizes(request, [padded], defaults);
  const box = widenedBox(padded, pictures[0]!, target);
  const [cut, ofBox] = [cutOut(pictures[0]!, box), cutOut(grey, box)];
  const references = pictures.slice(1);
  const sizes = { target, references: [target, ...chooseSizes(request, references, defaults).references] };
  const base = { picture: cut, size: target };
  return {
    sizes,
    context: [base, ...references.map((picture, i) => ({ picture, size: sizes.references[i + 1]! }))],
    base,
    mask: coveringMask(ofBox, target),
    grey: resizeGrey(host, ofBox, target),
    box,
    finish: (decoded) => putBack(host, sources[0]!, box, ofBox, decoded, mask.feather),
  };
}

function wholeScene(request: SceneRequest, pictures: PixelImage[], defaults: ModelDefaults): Scene {
  const sizes = chooseSizes(request, pictures, defaults);
  const context = pictures.map((picture, i) => ({ picture, size: sizes.references[i]! }));
  if (request.strength === 1) return { sizes, context, finish: same };
  return { sizes, context, base: { picture: pictures[0]!, size: sizes.target }, finish: same };
}

const same = (decoded: PixelImage): PixelImage => decoded;

const ownSize = (picture: PixelImage): SceneView => ({
  picture,
  size: { width: picture.width, height: picture.height },
});
