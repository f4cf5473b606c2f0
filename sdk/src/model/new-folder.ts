// A folder that is filled whole or not at all (Node, Deno).
import { KontextError } from '../../../runtime/src/errors.ts';

export interface NewFolder {
  /** Takes away what has come into the folder since, and the folders that were made for it. Never throws. */
  restore(): Promise<void>;
}

/**
 * A folder to fill: made where there is none, else it must be empty. Names that begin with a dot do not count and are not touched.
 *
 * @throws KontextError `invalid-request` when it is not empty; what the system says when it cannot be made
 */
export async function newFolder(folder: string): Promise<NewFolder> {
  const { mkdir, readdir, rm, rmdir } = await import('node:fs/promises');
  const { dirname, resolve } = await import('node:path');
  const top = await mkdir(folder, { recursive: true });
  const restore = async () => {
    const names = await readdir(folder).catch(() => []);
    for (const name of names) {
      if (!name.startsWith('.')) await rm(`${folder}/${name}`, { force: true }).catch(() => {});
    }
    if (top === undefined) return;
    // From the inside out; one that others have put something into stays.
    for (let at = resolve(folder); at.length >= resolve(top).length; at = dirname(at)) {
      if (
        !(await rmdir(at).then(
          () => true,
          () => false,
        ))
      )
        return;
    }
  };
  try {
    if ((await readdir(folder)).every((name) => name.startsWith('.'))) return { restore };
  } catch (cause) {
    await restore();
    throw cause;
  }
  throw new KontextError('invalid-request', `${folder} is not empty. Pack into a new folder.`, { folder });
}
