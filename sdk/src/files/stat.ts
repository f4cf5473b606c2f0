// What lies at a path (Node, Deno), told apart from what cannot be known: a disk that fails is not an empty place.
import type { Stats } from 'node:fs';
import { stat } from 'node:fs/promises';

/** @returns undefined when nothing is there. @throws what the system says when it cannot tell */
export async function statIfThere(path: string): Promise<Stats | undefined> {
  try {
    return await stat(path);
  } catch (error) {
    if (isAbsent(error)) return undefined;
    throw error;
  }
}

/** Whether an error says that there is no such file or folder. */
export const isAbsent = (error: unknown): boolean =>
  ['ENOENT', 'ENOTDIR'].includes((error as { code?: string } | undefined)?.code ?? '');
