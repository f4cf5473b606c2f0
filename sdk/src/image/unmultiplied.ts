// Pixels of a picture that is not opaque, with their own colours: a 2D canvas keeps them multiplied by alpha, which loses bits.
// A WebGL texture takes an unmultiplied bitmap as it is, and a framebuffer gives it back.
import { KontextError } from '../../../runtime/src/errors.ts';
import type { PixelImage } from './pixels.ts';

/** @throws KontextError `image-invalid` where the page has no WebGL, or not for a picture of this size */
export function unmultipliedPixels(bitmap: ImageBitmap, role: string): PixelImage {
  const { width, height } = bitmap;
  const gl = new OffscreenCanvas(1, 1).getContext('webgl2');
  if (!gl || Math.max(width, height) > (gl.getParameter(gl.MAX_TEXTURE_SIZE) as number)) {
    throw new KontextError(
      'image-invalid',
      `The ${role} is transparent in places, which cannot be kept here at ${width}×${height}. Flatten it, or make it smaller.`,
      { width, height },
    );
  }
  try {
    gl.pixelStorei(gl.UNPACK_PREMULTIPLY_ALPHA_WEBGL, false);
    gl.pixelStorei(gl.UNPACK_COLORSPACE_CONVERSION_WEBGL, gl.NONE);
    gl.bindTexture(gl.TEXTURE_2D, gl.createTexture());
    gl.texImage2D(gl.TEXTURE_2D, 0, gl.RGBA8, gl.RGBA, gl.UNSIGNED_BYTE, bitmap);
    gl.bindFramebuffer(gl.FRAMEBUFFER, gl.createFramebuffer());
    const texture = gl.getParameter(gl.TEXTURE_BINDING_2D) as WebGLTexture;
    gl.framebufferTexture2D(gl.FRAMEBUFFER, gl.COLOR_ATTACHMENT0, gl.TEXTURE_2D, texture, 0);
    const data = new Uint8ClampedArray(width * height * 4);
    gl.readPixels(0, 0, width, height, gl.RGBA, gl.UNSIGNED_BYTE, new Uint8Array(data.buffer));
    return { width, height, data };
  } finally {
    gl.getExtension('WEBGL_lose_context')?.loseContext();
  }
}
