// What FLUX.1 Fill, Canny and Depth see beside the latents: further channels of each token, made of a picture of the target's size.

import type { PixelImage } from '../../image/pixels.ts';
import { toRgb } from '../../image/pixels.ts';
import { CONTROL_CHANNELS, TOKEN_CHANNELS } from '../latents.ts';
import type { ImageSize } from '../types.ts';
import { type GreyImage, MASK_THRESHOLD } from './mask.ts';

/** The picture in [−1, 1] with what is to be filled at 0, as the autoencoder takes it: `[height · width, 4]`, fourth channel 0. */
export function maskedPixels(picture: PixelImage, mask: GreyImage): Float32Array<ArrayBuffer> {
  const rgb = toRgb(picture);
  return Float32Array.from({ length: mask.data.length * 4 }, (_, i) => {
    const [pixel, channel] = [i >> 2, i & 3];
    if (channel === 3 || mask.data[pixel]! >= MASK_THRESHOLD) return 0;
    return Math.fround(Math.fround(rgb[3 * pixel + channel]! / 255) * 2 - 1);
  });
}

/**
 * Channels of FLUX.1 Fill: 64 of the masked picture's latents, then 256 of the mask: pixel (y, x) of latent pixel (v, u) of a token is
 * channel (8y + x)·4 + 2v + u, 1 where it is filled.
 *
 * @returns `[tokens, 320]`
 */
export function fillControl(masked: Float32Array, mask: GreyImage): Float32Array<ArrayBuffer> {
  const width = CONTROL_CHANNELS.fill;
  const columns = mask.width / 16;
  const out = new Float32Array((masked.length / TOKEN_CHANNELS) * width);
  for (let token = 0; token * width < out.length; token++) {
    out.set(masked.subarray(token * TOKEN_CHANNELS, (token + 1) * TOKEN_CHANNELS), token * width);
  }
  for (let y = 0; y < mask.height; y++) {
    for (let x = 0; x < mask.width; x++) {
      if (mask.data[y * mask.width + x]! < MASK_THRESHOLD) continue;
      const token = (y >> 4) * columns + (x >> 4);
      const channel = (8 * (y & 7) + (x & 7)) * 4 + 2 * ((y >> 3) & 1) + ((x >> 3) & 1);
      out[token * width + TOKEN_CHANNELS + channel] = 1;
    }
  }
  return out;
}

/** Normals `[16, height/8, width/8]` as they are drawn, as rows of pixels `[height/8 · width/8, 16]`, which the encoder adds up. */
export function pixelNoise(drawn: Float32Array, { width, height }: ImageSize): Float32Array<ArrayBuffer> {
  const pixels = (width / 8) * (height / 8);
  const channels = drawn.length / pixels;
  return Float32Array.from(drawn, (_, i) => drawn[(i % channels) * pixels + Math.floor(i / channels)]!);
}
