// References: pictures resized and encoded to the latent tokens that the transformer attends to.
// Kept by picture and size, so that undoing a turn and editing again does not encode twice; the numbers are the same.
import type { Executable } from '../../../runtime/src/execute/executable.ts';
import type { Host } from '../host/module.ts';
import { resizeInTurns } from '../host/resize.ts';
import type { PixelImage } from '../image/pixels.ts';
import { TOKEN_CHANNELS, tokenCount } from './latents.ts';
import type { Parts, Work } from './parts.ts';
import { checkFinite } from './stages/finite.ts';
import { encodeTiled, wholeOrTiled } from './tiling.ts';
import type { ImageSize } from './types.ts';

export class ReferenceEncoder {
  /** Lives as long as the picture object does. */
  readonly #cache = new WeakMap<PixelImage, Map<string, Float32Array<ArrayBuffer>>>();

  constructor(private readonly host: Host) {}

  has(image: PixelImage, size: ImageSize): boolean {
    return this.#cache.get(image)?.has(keyOf(size)) ?? false;
  }

  /** Packed latents `[tokens, 64]`, (mean − shift) · scale. Resized as Pillow's LANCZOS does. */
  async encode(parts: Parts, image: PixelImage, size: ImageSize, work: Work): Promise<Float32Array<ArrayBuffer>> {
    const known = this.#cache.get(image)?.get(keyOf(size));
    if (known) return known;
    const pixels = await fitted(this.host, image, size, work.signal);
    const latents = await encode(parts, pixels, work);
    const sizes = this.#cache.get(image) ?? new Map<string, Float32Array<ArrayBuffer>>();
    sizes.set(keyOf(size), latents);
    this.#cache.set(image, sizes);
    return latents;
  }
}

/**
 * A picture brought to a size as Pillow's LANCZOS does, in turns with what else the thread has to do; itself when it has that size. One
 * at a time: they share the module's memory.
 *
 * @throws KontextError `aborted`
 */
export async function fitted(
  host: Host,
  image: PixelImage,
  { width, height }: ImageSize,
  signal?: AbortSignal,
): Promise<PixelImage> {
  if (image.width === width && image.height === height) return image;
  return resizeInTurns(host, image, width, height, signal);
}

/**
 * Packed latents drawn from the encoder's posterior, as image-to-image of FLUX.1 [dev] and Fill take theirs: mean + std · noise.
 * Where the picture only fits in tiles, their mean is taken.
 *
 * @param noise `[height/8 · width/8, 16]`
 */
export function encodeSampled(
  parts: Parts,
  input: { picture: PixelImage } | { tensor: Float32Array<ArrayBuffer> },
  size: ImageSize,
  noise: Float32Array<ArrayBuffer>,
  work: Work,
): Promise<Float32Array<ArrayBuffer>> {
  const whole = async () => {
    const kind = 'tensor' in input ? { input: 'tensor' as const } : {};
    const executable = await parts.bind({ component: 'vae-encode', ...size, ...kind, sample: true }, work);
    return encodeWhole(parts, executable, size, work, () => {
      if ('tensor' in input) executable.write('tensor', input.tensor);
      else executable.write('pixels', input.picture.data);
      executable.write('noise', noise);
    });
  };
  if ('tensor' in input) return whole();
  return wholeOrTiled(size, whole, (tiling) => encodeTiled(parts, input.picture, tiling, work));
}

async function encodeWhole(
  parts: Parts,
  executable: Executable,
  size: ImageSize,
  work: Work,
  write: () => void,
): Promise<Float32Array<ArrayBuffer>> {
  write();
  await parts.run(executable, work);
  const latents = (await executable.read('latents')).slice(0, tokenCount(size) * TOKEN_CHANNELS);
  await checkFinite(latents, 'the autoencoder’s encoder', () => {
    write();
    return executable.firstUnsound({ signal: work.signal });
  });
  return latents;
}

function encode(parts: Parts, image: PixelImage, work: Work): Promise<Float32Array<ArrayBuffer>> {
  const { width, height } = image;
  const whole = async () => {
    const executable = await parts.bind({ component: 'vae-encode', width, height }, work);
    return encodeWhole(parts, executable, image, work, () => executable.write('pixels', image.data));
  };
  return wholeOrTiled(image, whole, (tiling) => encodeTiled(parts, image, tiling, work));
}

function keyOf({ width, height }: ImageSize): string {
  return `${width}×${height}`;
}
