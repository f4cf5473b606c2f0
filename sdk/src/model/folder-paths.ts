// Paths of files below a folder on disk: a name leads nowhere else, and neither does a link, save into the hub cache it belongs to.
// Names come from indexes and manifests; folders are unpacked from archives, which can hold links to anywhere (Node, Deno).
import { KontextError, shown } from '../../../runtime/src/errors.ts';
import { refusedPermission } from '../../../runtime/src/permission.ts';
import { isPlainSegment } from './place-names.ts';

/**
 * The real path of a file below `folder`, or undefined when there is none.
 *
 * Hugging Face's cache keeps each file once, `models--OWNER--NAME/blobs/HASH`, and links to it from `snapshots/REVISION`: a link may
 * lead to anywhere below that `models--…` folder.
 *
 * @param name with `/` between folders
 * @throws KontextError `weights-invalid` for a name that climbs or is absolute, and for a link that leaves the folder
 */
export async function pathBelow(folder: string, name: string): Promise<string | undefined> {
  const { realpath, stat } = await import('node:fs/promises');
  const { relative, isAbsolute } = await import('node:path');
  if (typeof name !== 'string' || !name.split('/').every(isPlainSegment))
    throw outside(folder, name, 'is not the name of a file below');
  const path = `${folder}/${name}`;
  const real = await realpath(path).catch((cause: unknown) => {
    const refused = refusedPermission(cause);
    if (refused)
      throw new KontextError('weights-invalid', `Cannot open ${path}. ${refused}`, { file: path }, { cause });
    return undefined;
  });
  if (real === undefined || !(await stat(real).catch(() => undefined))?.isFile()) return undefined;
  const within = (base: string) => {
    const way = relative(base, real);
    return way !== '' && !isAbsolute(way) && !/^\.\.(?:[\\/]|$)/.test(way);
  };
  const root = await realpath(folder).catch(() => folder);
  const cache = /^(.*[\\/]models--[^\\/]+)[\\/]snapshots(?:[\\/]|$)/.exec(root)?.[1];
  if (within(root) || (cache !== undefined && within(cache))) return path;
  throw outside(folder, name, 'is a link that leaves');
}

function outside(folder: string, name: string, how: string): KontextError {
  const named = shown(name);
  return new KontextError('weights-invalid', `${named} ${how} ${folder}.`, { file: named, folder });
}
