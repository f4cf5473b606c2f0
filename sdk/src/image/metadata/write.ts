// Puts what a picture was made with into its file: for other programs as they write it, for ours whole.

import { asKontextError } from '../../../../runtime/src/errors.ts';
import { MAX_JPEG_EXIF, withJpegExif, withWebpExif } from './containers.ts';
import { writeExif } from './exif.ts';
import { PARAMETERS, writeParameters } from './parameters.ts';
import { writePngText } from './png-text.ts';
import { writeOwn } from './settings.ts';
import type { MadeWith } from './types.ts';

/**
 * A JPEG file holds 64 KB of it: of a very long prompt only the other programs' text, or nothing, is kept there.
 *
 * @param size of the picture
 * @throws KontextError `invalid-request` for settings that no result has
 */
export function withSettings(
  file: Uint8Array<ArrayBuffer>,
  format: 'png' | 'jpeg' | 'webp',
  made: MadeWith,
  size: { width: number; height: number },
): Uint8Array<ArrayBuffer> {
  const { comment, own } = textsOf(made, size);
  if (format === 'png') return writePngText(writePngText(file, own), comment, PARAMETERS);
  if (format === 'webp') return withWebpExif(file, writeExif({ comment, own }));
  const block = [{ comment, own }, { comment }].map(writeExif).find(({ length }) => length <= MAX_JPEG_EXIF);
  return block ? withJpegExif(file, block) : file;
}

function textsOf(made: MadeWith, size: { width: number; height: number }): { comment: string; own: string } {
  try {
    return { comment: writeParameters(made, size), own: writeOwn(made) };
  } catch (cause) {
    throw asKontextError(cause, 'invalid-request', 'These settings cannot be written');
  }
}
