// Writes files whole or not at all, one or several together (Node).
// Beside the target first, flushed to the disk, then renamed: a reader never sees half a file, a power cut leaves the old or the new one.
import { chmod, copyFile, link, open, realpath, rename, rm } from 'node:fs/promises';
import { dirname } from 'node:path';
import { KontextError } from '../../../runtime/src/errors.ts';
import { isAbsent, statIfThere } from './stat.ts';

export interface FileToWrite {
  path: string;
  bytes: Uint8Array | string;
}

/** @throws KontextError `invalid-request`; a file that was there before is then still there */
export function writeWhole(path: string, bytes: Uint8Array | string): Promise<void> {
  return writeAllOrNone([{ path, bytes }]);
}

/**
 * All of them or, after a failure, none: what was there before is there again.
 *
 * @throws KontextError `invalid-request` naming the file that could not be written
 */
export async function writeAllOrNone(files: readonly FileToWrite[]): Promise<void> {
  const staged: Staged[] = [];
  const placed: Staged[] = [];
  let current = '';
  try {
    for (const { path, bytes } of files) {
      current = path;
      staged.push(await stage(path, bytes));
    }
    for (const file of staged) {
      current = file.path;
      await place(file);
      placed.push(file);
    }
  } catch (cause) {
    for (const file of placed.reverse()) await undo(file);
    throw new KontextError(
      'invalid-request',
      `Cannot write ${current}: ${reason(cause)}.`,
      { path: current },
      { cause },
    );
  } finally {
    for (const { partial, kept } of staged) {
      await rm(partial, { force: true }).catch(() => {});
      if (kept !== undefined) await rm(kept, { force: true }).catch(() => {});
    }
  }
}

/** A file written beside its place. */
interface Staged {
  path: string;
  /** Where links lead: they stay links. */
  target: string;
  partial: string;
  /** A second name of the file that was there, until all are in place. */
  kept?: string;
}

let counter = 0;

async function stage(path: string, bytes: Uint8Array | string): Promise<Staged> {
  // Whether something is there must be known: it would be replaced without a second name, or a link by a file.
  const target = await realpath(path).catch((error: unknown) => {
    if (isAbsent(error)) return path;
    throw error;
  });
  const old = await statIfThere(target);
  if (old && !old.isFile()) throw new Error('there is something else of this name');
  const name = `${target}.${process.pid}-${counter++}`;
  const partial = `${name}.part`;
  // Never over a file that is there, whatever its name.
  const handle = await open(partial, 'wx');
  try {
    try {
      await handle.writeFile(bytes);
      await handle.sync();
    } finally {
      await handle.close();
    }
    if (old) await chmod(partial, old.mode & 0o7777);
    const kept = old && `${name}.old`;
    // A second name costs nothing; file systems without links get a copy.
    if (kept !== undefined) await link(target, kept).catch(() => copyFile(target, kept));
    return { path, target, partial, ...(kept !== undefined && { kept }) };
  } catch (error) {
    await rm(partial, { force: true }).catch(() => {});
    throw error;
  }
}

async function place({ target, partial }: Staged): Promise<void> {
  await rename(partial, target);
  await syncFolder(dirname(target));
}

async function undo({ target, kept }: Staged): Promise<void> {
  await (kept === undefined ? rm(target, { force: true }) : rename(kept, target)).catch(() => {});
}

/** Makes the new name survive a power cut. Windows cannot open folders and needs no such thing. */
async function syncFolder(folder: string): Promise<void> {
  const handle = await open(folder, 'r').catch(() => undefined);
  // The file is in its place: what the folder's descriptor has to complain of undoes nothing.
  await handle?.sync().catch(() => {});
  await handle?.close().catch(() => {});
}

function reason(cause: unknown): string {
  return String((cause as Error)?.message ?? cause)
    .split('\n')[0]!
    .replace(/\.$/, '');
}
