// What belongs to one file of a repository: the other parts of a split file, the shards that an index names, its network's config.
import { KontextError } from '../../../runtime/src/errors.ts';
import type { ModelFiles } from '../model/files.ts';
import { INDEX, SHARD, WEIGHTS } from '../model/weight-names.ts';
import { openWeightsFile } from '../model/weights-file.ts';

/**
 * @param files the repository
 * @returns names, `file` first; what they are is read from headers, weights are not
 * @throws KontextError `weights-invalid` when a part is not there or is none; `download-failed`; `aborted`
 */
export async function withCompanions(files: ModelFiles, file: string, signal?: AbortSignal): Promise<string[]> {
  const names = new Set([file]);
  if (isSplit(file)) await openSplit(files, file, signal, (name) => names.add(name));
  if (WEIGHTS.test(file) || INDEX.test(file)) {
    const config = `${folderOf(file)}config.json`;
    if ((await files.list?.(folderOf(file).slice(0, -1)))?.includes('config.json')) names.add(config);
  }
  return [...names];
}

/** Whether a place has a file with all that belongs to it. */
export async function isWhole(files: ModelFiles, file: string, signal?: AbortSignal): Promise<boolean> {
  try {
    if (isSplit(file)) {
      await openSplit(files, file, signal, () => {});
      return true;
    }
    const bytes = await files.open(file, signal, 'follow');
    await bytes?.close();
    return bytes !== undefined;
  } catch (error) {
    if (error instanceof KontextError && error.code === 'aborted') throw error;
    return false;
  }
}

/** With a slash at its end, or empty. */
export const folderOf = (name: string): string => name.replace(/[^/]*$/, '');

const isSplit = (file: string): boolean => SHARD.test(file) || INDEX.test(file);

async function openSplit(
  files: ModelFiles,
  file: string,
  signal: AbortSignal | undefined,
  tell: (name: string) => void,
): Promise<void> {
  const bytes = await files.open(file, signal, 'follow');
  if (!bytes) throw new KontextError('download-failed', `${files.label} has no file ${file}.`, { file });
  const { source } = await openWeightsFile(bytes, signal, (name, links) => {
    tell(folderOf(file) + name);
    return files.open(folderOf(file) + name, signal, links);
  });
  await source.close();
}
