// Paths of files below a folder on disk (Node, Deno).
// A name that a file says (an index's shard, a manifest's entry) leads nowhere else, and neither does a link behind it, save into the
// hub cache that the folder belongs to. What the user named, or the folder itself lists, is opened wherever its link leads: people
// keep models on another disk and link them.
import { KontextError, shown } from '../../../runtime/src/errors.ts';
import { refusedPermission } from '../../../runtime/src/permission.ts';
import { isPlainSegment } from './place-names.ts';

/** Whether links may leave the folder: `follow` for names that the user or the folder's own listing gave, or that this program knows. */
export type Links = 'inside' | 'follow';

/**
 * The path of a file below `folder`, or undefined when there is none.
 *
 * Hugging Face's cache keeps each file once, `models--OWNER--NAME/blobs/HASH`, and links to it from `snapshots/REVISION`: a link may
 * always lead to anywhere below that `models--…` folder.
 *
 * @param name with `/` between folders
 * @throws KontextError `weights-invalid` for a name that climbs or is absolute, and, unless followed, for a link that leaves the folder
 */
export async function pathBelow(folder: string, name: string, links: Links = 'inside'): Promise<string | undefined> {
  const { realpath, stat } = await import('node:fs/promises');
  const { relative, isAbsolute } = await import('node:path');
  const isSegment = links === 'follow' ? isListedSegment : isPlainSegment;
  if (typeof name !== 'string' || !name.split('/').every(isSegment))
    throw outside(folder, name, 'is not the name of a file below');
  const path = `${folder}/${name}`;
  // A disk that fails is not a file that is missing: without its scheduler or tokenizer a model makes other pictures.
  const absent = (cause: unknown): undefined => {
    if (ABSENT.includes((cause as { code?: string } | undefined)?.code ?? '')) return undefined;
    const refused = refusedPermission(cause);
    const problem = refused ? `Cannot open ${path}. ${refused}` : `Cannot open ${path}: ${(cause as Error).message}.`;
    throw new KontextError('weights-invalid', problem, { file: path }, { cause });
  };
  const real = await realpath(path).catch(absent);
  if (real === undefined || !(await stat(real).catch(absent))?.isFile()) return undefined;
  if (links === 'follow') return path;
  const within = (base: string) => {
    const way = relative(base, real);
    return way !== '' && !isAbsolute(way) && !/^\.\.(?:[\\/]|$)/.test(way);
  };
  const root = await realpath(folder).catch(() => folder);
  const cache = /^(.*[\\/]models--[^\\/]+)[\\/]snapshots(?:[\\/]|$)/.exec(root)?.[1];
  if (within(root) || (cache !== undefined && within(cache))) return path;
  throw outside(folder, name, 'is a link that leaves');
}

/** Names in a folder; none where there is no such folder. @throws KontextError `weights-invalid` with `details.unreadable` when it cannot be read */
export async function namesBelow(folder: string): Promise<string[]> {
  const { readdir } = await import('node:fs/promises');
  try {
    return await readdir(folder);
  } catch (cause) {
    if (ABSENT.includes((cause as { code?: string }).code ?? '')) return [];
    const problem = `Cannot read ${folder}: ${(cause as Error).message}.`;
    throw new KontextError('weights-invalid', problem, { folder, unreadable: true }, { cause });
  }
}

/** What the system says of names that lead to nothing. A reader may take too long a name or a ring of links for a missing file; who writes may not (`isAbsent`). */
const ABSENT = ['ENOENT', 'ENOTDIR', 'ENAMETOOLONG', 'ELOOP'];

/** A name as a directory may have it: `#` and `%` are people's, too. */
const isListedSegment = (segment: string): boolean =>
  segment !== '' && !/^\.{1,2}$/.test(segment) && !segment.includes('\0');

function outside(folder: string, name: string, how: string): KontextError {
  const named = shown(name);
  return new KontextError('weights-invalid', `${named} ${how} ${folder}.`, { file: named, folder });
}
