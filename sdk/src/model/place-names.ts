// Names of files below a place: folders and a name of plain characters, never a way out of the place.
// They come from indexes and manifests, which come from outside.
import { KontextError } from '../../../runtime/src/errors.ts';

/**
 * The address of a file below `base`; the base's own query (a signature, say) is kept.
 *
 * @throws KontextError `weights-invalid` for a name that climbs, is absolute, names another host, or brings a query
 */
export function addressBelow(base: URL, name: string): URL {
  const segments = name.split('/');
  if (!segments.every(isPlainSegment)) {
    throw new KontextError(
      'weights-invalid',
      `${JSON.stringify(name.slice(0, 200))} is not the name of a file below ${base.origin}${base.pathname}.`,
      { file: name.slice(0, 200) },
    );
  }
  const url = new URL(base);
  url.hash = '';
  url.pathname = base.pathname.replace(/\/*$/, '/') + segments.map(encodeURIComponent).join('/');
  return url;
}

/**
 * Whether a part between slashes is a plain name: not empty, no dots alone, nothing that an address or a drive gives a meaning. Windows
 * drops dots and spaces at the end, so that `.. ` climbs there, and has devices for files of some names.
 */
export function isPlainSegment(segment: string): boolean {
  return segment !== '' && !/[. ]$/.test(segment) && !FORBIDDEN.test(segment) && !DEVICE.test(segment);
}

// biome-ignore lint/suspicious/noControlCharactersInRegex: control characters are what is looked for
const FORBIDDEN = /[\\?#%:\u0000-\u001f\u007f]/;
/** With or without an extension. */
const DEVICE = /^(?:con|prn|aux|nul|com[\d¹²³]|lpt[\d¹²³]|conin\$|conout\$) *(?:\.|$)/i;
