// Whether a picture is the right answer, and how near it is.
import { fromRgb, type PixelImage, toRgb } from '../../sdk/src/image/pixels.ts';
import { nearestScene, render, SCENE_SIZE, type Scene, sameScene } from './scenes.ts';

/** A right answer's nearest scene is the true one, and it is recognisably that scene: 20 dB, as in the training's own evaluation. */
const RIGHT_DB = 20;

export function judge(image: PixelImage, target: Scene): { right: boolean; psnr: number } {
  const rgb = toRgb(image);
  const truth = render(target);
  const squares = rgb.reduce((sum, v, i) => sum + (v - truth[i]!) ** 2, 0);
  const psnr = 10 * Math.log10(255 ** 2 / Math.max(squares / rgb.length, 1e-4));
  return { right: psnr > RIGHT_DB && sameScene(nearestScene(rgb).scene, target), psnr };
}

export function picture(scene: Scene): PixelImage {
  return fromRgb(render(scene), SCENE_SIZE, SCENE_SIZE);
}
