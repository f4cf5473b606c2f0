// What the model sees of a request with a mask, an expanded canvas or stitched references.
// One small value, made before any work on the GPU, so that everything after it is the same for every kind of edit.
import type { Host } from '../../host/module.ts';
import { flattened, type PixelImage } from '../../image/pixels.ts';
import { breather } from '../../image/slices.ts';
import type { ModelDefaults } from '../options.ts';
import { chooseSizes } from '../sizes.ts';
import { coveringMask, cutOut, paddedBox, putBack, widenedBox } from './exact.ts';
import { expanded } from './expand.ts';
import { referenceInpainting } from './inpaint.ts';
import { openMask, resizeGrey } from './mask.ts';
import { type Scene, type SceneRequest, type SceneView, same, wholeScene } from './plain-scene.ts';
import { stitched } from './stitch.ts';

/**
 * Large pictures are resized in turns with what else the thread has to do.
 *
 * @throws KontextError `invalid-request` for a mask of another size or without anything white, and for sizes out of range; `aborted`
 */
export async function sceneOf(
  host: Host,
  request: SceneRequest,
  defaults: ModelDefaults,
  signal?: AbortSignal,
): Promise<Scene> {
  const separate = await separateScene(host, request, defaults, signal);
  const { controlPicture } = request;
  const scene = {
    ...separate,
    ...(!request.context && { context: [] }),
    ...(controlPicture && { control: { picture: controlPicture, size: separate.sizes.target } }),
  };
  if (request.referencePositions !== 'stitched' || scene.context.length < 2) return scene;
  const strip = await stitched(
    host,
    scene.context.map(({ picture }) => picture),
    scene.context[0]!.size,
    request.stitch,
    signal,
  );
  const { width, height } = strip;
  return {
    ...scene,
    sizes: { target: scene.sizes.target, references: [{ width, height }] },
    context: [ownSize(strip)],
  };
}

/** With every reference by itself. */
async function separateScene(
  host: Host,
  request: SceneRequest,
  defaults: ModelDefaults,
  signal: AbortSignal | undefined,
): Promise<Scene> {
  const { mask } = request;
  const sources = [...request.pictures];
  let { maskPicture } = request;
  if (request.expand) {
    const grown = expanded(sources[0]!, maskPicture, request.expand);
    [sources[0], maskPicture] = [grown.canvas, grown.mask];
  }
  const pictures = sources.map(flattened);
  if (!mask || !maskPicture) return wholeScene(request, pictures, defaults);
  const pause = breather(signal);
  const grey = openMask(maskPicture, pictures[0]!);
  await pause();
  if (mask.mode === 'reference') {
    // Diffusers' inpainting works at the size the input is brought to.
    const size = request.size === 'auto' && !request.autoResize ? 'input' : request.size;
    const sizes = chooseSizes({ ...request, size }, pictures, defaults);
    const { base, context, ...of } = await referenceInpainting(host, pictures, grey, sizes, mask.paddingCrop, signal);
    return { sizes, context: context.map(ownSize), base: ownSize(base), ...of, finish: same };
  }
  const padded = paddedBox(grey, mask.paddingCrop);
  await pause();
  const { target } = chooseSizes(request, [padded], defaults);
  const box = widenedBox(padded, pictures[0]!, target);
  const [cut, ofBox] = [cutOut(pictures[0]!, box), cutOut(grey, box)];
  await pause();
  const references = pictures.slice(1);
  const others = chooseSizes(
    { autoResize: request.autoResize, size: target, maxArea: undefined },
    references,
    defaults,
  );
  const sizes = { target, references: [target, ...others.references] };
  const base = { picture: cut, size: target };
  return {
    sizes,
    context: [base, ...references.map((picture, i) => ({ picture, size: sizes.references[i + 1]! }))],
    base,
    mask: coveringMask(ofBox, target),
    grey: await resizeGrey(host, ofBox, target, signal),
    box,
    finish: (decoded) => putBack(host, sources[0]!, box, ofBox, decoded, mask.feather, signal),
  };
}

const ownSize = (picture: PixelImage): SceneView => ({
  picture,
  size: { width: picture.width, height: picture.height },
});
