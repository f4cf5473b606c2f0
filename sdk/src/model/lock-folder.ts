// Writes the lock of a model's folder, and checks every byte of a model against its lock.
import { KontextError, throwIfAborted } from '../../../runtime/src/errors.ts';
import type { ByteSource } from '../../../runtime/src/weights/byte-source.ts';
import { whereTheyLie } from '../../../runtime/src/weights/integrity/damage.ts';
import { LOCK_FILE, type Lock, PIECE_BYTES, sha256 } from '../../../runtime/src/weights/integrity/lock.ts';
import { folderFiles, type ModelFiles } from './files.ts';
import { readLock } from './locked.ts';
import { tensorNamesAt } from './tensor-names.ts';

/** Told after each piece. */
export type PieceProgress = (done: { file: string; bytes: number; totalBytes: number }) => void;

export interface FolderOptions {
  signal?: AbortSignal;
  onProgress?: PieceProgress;
}

/**
 * Writes `kontext.lock.json` into a model's folder: SHA-256 of each 4 MiB of each file in it (not those whose names begin with a dot).
 *
 * @throws KontextError `weights-invalid` when the folder cannot be read or written; `aborted`
 */
export async function lockFolder(folder: string, { signal, onProgress }: FolderOptions = {}): Promise<Lock> {
  const names = await filesBelow(folder);
  const files = folderFiles(folder);
  const opened: [string, ByteSource][] = [];
  const lock: Lock = { version: 1, pieceBytes: PIECE_BYTES, files: {} };
  try {
    for (const name of names) opened.push([name, (await files.open(name, signal))!]);
    const totalBytes = opened.reduce((sum, [, { size }]) => sum + size, 0);
    let bytes = 0;
    for (const [name, source] of opened) {
      const hashes: string[] = [];
      for (let start = 0; start < source.size; start += PIECE_BYTES) {
        throwIfAborted(signal);
        const end = Math.min(source.size, start + PIECE_BYTES);
        hashes.push(await sha256(await source.read(start, end, signal)));
        bytes += end - start;
        onProgress?.({ file: name, bytes, totalBytes });
      }
      lock.files[name] = { size: source.size, sha256: hashes };
    }
  } finally {
    await Promise.all(opened.map(([, source]) => source.close()));
  }
  await writeWhole(`${folder}/${LOCK_FILE}`, `${JSON.stringify(lock, null, 1)}\n`);
  return lock;
}

/** What {@link verifyFiles} found. */
export interface Damage {
  file: string;
  /** What is wrong, for people. */
  problem: string;
  /** Of the wrong piece, in bytes; absent when the file is missing or has another size. */
  offset?: number;
  end?: number;
  /** Tensors with a byte in the piece. */
  tensors?: string[];
}

/**
 * Reads every byte of a model and compares it with the lock; unlike loading, it goes on after a wrong piece.
 *
 * @returns everything that is wrong; empty for a sound model
 * @throws KontextError `weights-invalid` when there is no lock or it is broken; `download-failed`; `aborted`
 */
export async function verifyFiles(files: ModelFiles, { signal, onProgress }: FolderOptions = {}): Promise<Damage[]> {
  const lock = await readLock(files, signal);
  if (!lock) {
    throw new KontextError('weights-invalid', `${files.label} has no ${LOCK_FILE}. Write one with kontext lock.`, {
      folder: files.label,
    });
  }
  const totalBytes = Object.values(lock.files).reduce((sum, { size }) => sum + size, 0);
  const found: Damage[] = [];
  let bytes = 0;
  for (const [file, { size, sha256: hashes }] of Object.entries(lock.files)) {
    const source = await files.open(file, signal);
    try {
      if (source?.size !== size) {
        const problem = source ? `has ${source.size} bytes, not ${size}` : 'is not there';
        found.push({ file, problem });
        bytes += size;
        continue;
      }
      const wrong: number[] = [];
      for (const [index, expected] of hashes.entries()) {
        throwIfAborted(signal);
        const start = index * lock.pieceBytes;
        const end = Math.min(size, start + lock.pieceBytes);
        if ((await sha256(await source.read(start, end, signal))) !== expected) wrong.push(start);
        bytes += end - start;
        onProgress?.({ file, bytes, totalBytes });
      }
      for (const offset of wrong) {
        const end = Math.min(size, offset + lock.pieceBytes);
        const tensors = await tensorNamesAt(source, offset, end);
        found.push({
          file,
          problem: `is damaged between byte ${offset} and ${end}${whereTheyLie(tensors)}`,
          offset,
          end,
          tensors,
        });
      }
    } finally {
      await source?.close();
    }
  }
  if (files.list) {
    const { list } = files;
    const unlisted = (await list()).filter((name) => !name.startsWith('.') && name !== LOCK_FILE);
    for (const name of unlisted) {
      const known = Object.keys(lock.files).some((file) => file === name || file.startsWith(`${name}/`));
      if (!known) found.push({ file: name, problem: 'is not in the lock' });
    }
  }
  return found;
}

/** All of it or nothing, also when the power goes. */
async function writeWhole(path: string, text: string): Promise<void> {
  const { open, rename, rm } = await import('node:fs/promises');
  const part = `${path}.${process.pid}.part`;
  try {
    const file = await open(part, 'w');
    try {
      await file.writeFile(text);
      await file.sync();
    } finally {
      await file.close();
    }
    await rename(part, path);
  } catch (cause) {
    await rm(part, { force: true }).catch(() => {});
    throw new KontextError(
      'weights-invalid',
      `Cannot write ${path}: ${(cause as Error).message}`,
      { file: path },
      { cause },
    );
  }
}

/** Names of all files below a folder, sorted, with `/`; links are followed only to files. */
async function filesBelow(folder: string): Promise<string[]> {
  const { readdir, stat } = await import('node:fs/promises');
  const names: string[] = [];
  const walk = async (below: string) => {
    for (const entry of await readdir(`${folder}/${below}`, { withFileTypes: true })) {
      if (entry.name.startsWith('.')) continue;
      const name = below + entry.name;
      if (entry.isDirectory()) await walk(`${name}/`);
      else if (name !== LOCK_FILE && (await stat(`${folder}/${name}`)).isFile()) names.push(name);
    }
  };
  try {
    await walk('');
  } catch (cause) {
    throw new KontextError(
      'weights-invalid',
      `Cannot read ${folder}: ${(cause as Error).message}`,
      { folder },
      { cause },
    );
  }
  return names.sort();
}
