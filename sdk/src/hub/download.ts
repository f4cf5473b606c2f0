// Downloads named files of a repository to disk, and tells where they are.
import { KontextError } from '../../../runtime/src/errors.ts';
import type { HubOptions, Repository } from './repository.ts';
import type { DownloadProgress } from './transfer.ts';

/** How to get a model from the hub. */
export interface HubLoad extends HubOptions {
  signal?: AbortSignal;
  /** Told of a download, over all of its files. */
  onProgress?: (event: DownloadProgress) => void;
}

/** @param into folder; default one below the user's cache, by repository and commit. @returns the folder */
export async function downloadFiles(
  repository: Repository,
  names: readonly string[],
  load: HubLoad,
  into?: string,
): Promise<string> {
  const { downloadToDisk } = await import('./to-disk.ts');
  const { downloadFolder } = await import('./cache-folder.ts');
  const absent = names.find((name) => !repository.files.has(name));
  if (absent !== undefined) {
    throw new KontextError('download-failed', `${repository.label} has no file ${absent}.`, { file: absent });
  }
  const folder = into ?? (await downloadFolder(repository.address.repository, repository.commit, load.folder));
  await downloadToDisk(repository, names, folder, load);
  return folder;
}

/** Whether there is a disk to download to. */
export function hasDisk(): boolean {
  return typeof process !== 'undefined' && process.versions?.node !== undefined;
}
