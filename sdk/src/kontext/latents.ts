// Between latent pixels and tokens: 2×2 latent pixels of 16 channels are one token of 64 values.
// Noise is drawn in picture order and used in token order, so the permutation decides whether a seed reproduces.
import type { ImageSize } from './types.ts';

/** Picture pixels along one side of a token. */
export const PATCH_PIXELS = 16;
/** Channels of a latent pixel. */
export const LATENT_CHANNELS = 16;
/** Values of a token. */
export const TOKEN_CHANNELS = 4 * LATENT_CHANNELS;

/** Channels beside the latents that each token of a model has: of a control picture, or of what is kept and of the mask. */
export const CONTROL_CHANNELS = { none: 0, picture: TOKEN_CHANNELS, fill: TOKEN_CHANNELS + 4 * 64 } as const;

/** Size in patches of a picture size in pixels. */
export function patches({ width, height }: ImageSize): ImageSize {
  return { width: width / PATCH_PIXELS, height: height / PATCH_PIXELS };
}

/** Number of tokens of a picture size in pixels. */
export function tokenCount({ width, height }: ImageSize): number {
  return (width / PATCH_PIXELS) * (height / PATCH_PIXELS);
}

/**
 * Latents `[16, height/8, width/8]` to tokens `[height/16 · width/16, 64]`; value 4c + 2y + x of a token is channel c of its
 * pixel (y, x).
 *
 * @param size of the picture, in pixels
 */
export function pack(latents: Float32Array, size: ImageSize): Float32Array<ArrayBuffer> {
  const out = new Float32Array(latents.length);
  eachValue(size, (pixel, token) => {
    out[token] = latents[pixel]!;
  });
  return out;
}

/** The opposite of {@link pack}. */
export function unpack(tokens: Float32Array, size: ImageSize): Float32Array<ArrayBuffer> {
  const out = new Float32Array(tokens.length);
  eachValue(size, (pixel, token) => {
    out[pixel] = tokens[token]!;
  });
  return out;
}

function eachValue({ width, height }: ImageSize, visit: (pixel: number, token: number) => void): void {
  const [columns, rows] = [width / 8, height / 8];
  for (let channel = 0, pixel = 0; channel < LATENT_CHANNELS; channel++) {
    for (let y = 0; y < rows; y++) {
      for (let x = 0; x < columns; x++, pixel++) {
        const token = (y >> 1) * (columns >> 1) + (x >> 1);
        visit(pixel, token * TOKEN_CHANNELS + 4 * channel + 2 * (y & 1) + (x & 1));
      }
    }
  }
}
