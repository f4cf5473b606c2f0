// Where each picture's denoising begins: the seed's noise, the picture it starts from, what a Fill or Canny model follows.
// Everything random is drawn here, in the order of the reference pipelines, so that a seed gives their picture.
import type { Host } from '../host/module.ts';
import { TorchGenerator } from '../host/random.ts';
import { type Family, seesContext } from './family.ts';
import { LATENT_CHANNELS, pack, TOKEN_CHANNELS, tokenCount } from './latents.ts';
import type { Parts, Work } from './parts.ts';
import { encodeSampled, fitted, type ReferenceEncoder } from './references.ts';
import type { CheckedRequest } from './request.ts';
import { fillControl, maskedPixels, pixelNoise } from './stages/control.ts';
import type { Scene, SceneView } from './stages/plain-scene.ts';
import { noised } from './stages/strength.ts';

/** One picture before its first step. */
export interface Start {
  /** Which one it is, for its events. */
  image: number;
  /** Packed latents `[tokens, 64]` at the first σ. */
  start: Float32Array;
  /** What it started from, and what is kept of the picture; for masks. */
  noise: Float32Array;
  known?: Float32Array<ArrayBuffer>;
  /** Further channels of each token, for models that take some. */
  control?: Float32Array<ArrayBuffer>;
  /** Draws what an ancestral step adds. */
  freshNoise: () => Float32Array;
  dispose(): void;
}

/** What all starts of a request have in common. */
export interface StartJob {
  host: Host;
  parts: Parts;
  references: ReferenceEncoder;
  family: Family;
  request: Pick<CheckedRequest, 'seed' | 'latents' | 'context' | 'strength'>;
  scene: Scene;
  /** The σ it starts at. */
  sigma: number;
}

/**
 * Kontext takes the middle of the autoencoder's posterior; image-to-image of the others and Fill draw from it, before the noise, and
 * Fill once more after it.
 */
export async function makeStart(job: StartJob, image: number, work: Work): Promise<Start> {
  const { host, parts, references, family, request, scene, sigma } = job;
  const size = scene.sizes.target;
  const generator = TorchGenerator.create(host, BigInt.asUintN(64, request.seed + BigInt(image)));
  const normals = () => generator.randn([LATENT_CHANNELS, size.height / 8, size.width / 8]);
  const draw = () => pack(normals(), size);
  const sample = async (view: SceneView) => {
    const noise = pixelNoise(normals(), size);
    return encodeSampled(parts, { picture: await fitted(host, view.picture, size, work.signal) }, size, noise, work);
  };
  const sampled = async (view: SceneView, needed: boolean) => {
    if (needed) return sample(view);
    normals();
    return undefined;
  };
  try {
    const { base, control: follow } = scene;
    let control = follow && (await sample(follow));
    const known =
      base &&
      (request.context && seesContext(family)
        ? await references.encode(parts, base.picture, base.size, work)
        : await sampled(base, scene.mask !== undefined || request.strength < 1));
    const values = tokenCount(size) * TOKEN_CHANNELS;
    const noise = request.latents?.slice(image * values, (image + 1) * values) ?? draw();
    if (family === 'fill' && base && scene.grey) {
      const tensor = maskedPixels(await fitted(host, base.picture, size, work.signal), scene.grey);
      const masked = await encodeSampled(parts, { tensor }, size, pixelNoise(normals(), size), work);
      control = fillControl(masked, scene.grey);
    }
    return {
      image,
      start: known ? noised(known, noise, sigma) : noise,
      noise,
      ...(known && { known }),
      ...(control && { control }),
      freshNoise: draw,
      dispose: () => generator.dispose(),
    };
  } catch (error) {
    generator.dispose();
    throw error;
  }
}
