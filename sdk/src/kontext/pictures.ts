// The pictures of a request, opened in the order they are named, each for what it is used for.
import type { AccessPolicy } from '../../../runtime/src/net/access.ts';
import type { PixelDepth, PixelImage } from '../image/pixels.ts';
import type { PipelineRequest } from './pipeline.ts';
import type { CheckedRequest } from './request.ts';
import type { ImageInput } from './types.ts';

/** What an environment provides. */
export interface Platform {
  /**
   * @param role what the picture is for, named in errors
   * @param depth `own` keeps transparency and, where the platform can, 16 bits a channel; default `opaque`
   * @param access which hosts may be asked for it; default all
   */
  decodeImage(
    input: ImageInput,
    role: string,
    signal?: AbortSignal,
    depth?: PixelDepth,
    access?: AccessPolicy,
  ): Promise<PixelImage>;
}

/** @throws KontextError `image-invalid`, `download-failed`, `aborted` */
export async function openPictures(
  platform: Platform,
  request: CheckedRequest,
  access: AccessPolicy | undefined,
  signal: AbortSignal,
): Promise<Pick<PipelineRequest, 'pictures' | 'maskPicture' | 'controlPicture'>> {
  const open = (input: ImageInput, role: string, depth: PixelDepth = 'opaque') =>
    platform.decodeImage(input, role, signal, depth, access);
  const pictures: PixelImage[] = [];
  for (const [i, input] of request.references.entries()) {
    const first = i === 0;
    const depth = first && request.mask?.mode === 'exact' ? 'own' : 'opaque';
    pictures.push(await open(input, first ? 'input image' : `reference image ${i}`, depth));
  }
  const controlPicture = request.control && (await open(request.control, 'control picture'));
  const maskPicture = request.mask?.input && (await open(request.mask.input, 'mask'));
  return { pictures, ...(maskPicture && { maskPicture }), ...(controlPicture && { controlPicture }) };
}
