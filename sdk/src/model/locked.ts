// A model's files under their lock: what the lock lists is held to it, what it does not list is not there.
// So the lock is also the one place that tells which files a folder on a server has.
import { KontextError } from '../../../runtime/src/errors.ts';
import { checkLock, LOCK_FILE, type Lock, MAX_LOCK_BYTES } from '../../../runtime/src/weights/integrity/lock.ts';
import { VerifiedPieces, verifiedBytes } from '../../../runtime/src/weights/integrity/verified.ts';
import { type ModelFiles, readJson } from './files.ts';
import { addressBelow } from './place-names.ts';
import { tensorNamesAt } from './tensor-names.ts';

/** The lock of a place, or undefined when it has none. @throws KontextError `weights-invalid` for one that is broken */
export async function readLock(files: ModelFiles, signal?: AbortSignal): Promise<Lock | undefined> {
  const bytes = await files.open(LOCK_FILE, signal, 'follow');
  if (!bytes) return undefined;
  if (bytes.size > MAX_LOCK_BYTES) {
    await bytes.close();
    throw new KontextError('weights-invalid', `${bytes.name} has ${bytes.size} bytes, too many for a lock.`, {
      file: bytes.name,
    });
  }
  const lock = checkLock(await readJson(bytes, 'weights-invalid', signal), bytes.name);
  // Names from outside become paths and addresses.
  for (const name of Object.keys(lock.files)) addressBelow(new URL('file:///model/'), name);
  return lock;
}

/** `files` itself when it has no lock. */
export async function lockedFiles(files: ModelFiles, signal?: AbortSignal): Promise<ModelFiles> {
  const lock = await readLock(files, signal);
  return lock ? withLock(files, lock) : files;
}

/** Every byte read is held to the lock. */
export function withLock(files: ModelFiles, lock: Lock): ModelFiles {
  const pieces = new VerifiedPieces();
  return {
    label: files.label,
    ...(files.file !== undefined && { file: files.file }),
    async open(name, signal, links) {
      const entry = lock.files[name];
      // On a server, a file that is not listed is not asked for.
      if (!entry && !files.list) return undefined;
      const bytes = await files.open(name, signal, links);
      try {
        if (!bytes && !entry) return undefined;
        if (!bytes) throw broken(files, name, 'is in the lock, but not there: the model was not copied completely');
        if (!entry) throw broken(files, name, 'is not in the lock. Write it again with kontext lock');
        return verifiedBytes(bytes, entry, lock.pieceBytes, name, pieces, tensorNamesAt);
      } catch (error) {
        await bytes?.close();
        throw error;
      }
    },
    async list(folder = '') {
      const below = folder === '' ? '' : `${folder}/`;
      const names = Object.keys(lock.files).filter((name) => name.startsWith(below));
      return [...new Set(names.map((name) => name.slice(below.length).split('/')[0]!))];
    },
  };
}

function broken(files: ModelFiles, name: string, problem: string): KontextError {
  return new KontextError('weights-invalid', `${files.label}: ${name} ${problem}.`, {
    file: name,
    folder: files.label,
  });
}
