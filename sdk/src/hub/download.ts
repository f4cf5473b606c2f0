// Downloads named files of a repository to disk, and tells where they are.
import { KontextError } from '../../../runtime/src/errors.ts';
import { environment, type HubOptions, type Repository } from './repository.ts';
import type { DownloadProgress } from './transfer.ts';

/** How to get a model from the hub. */
export interface HubLoad extends HubOptions {
  signal?: AbortSignal;
  /** Told of a download, over all of its files. */
  onProgress?: (event: DownloadProgress) => void;
  /** For plans: what is not on disk is read by range from the hub, and nothing is kept. */
  headersOnly?: boolean;
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

/** @throws KontextError `download-failed` where the user forbids to ask the hub */
export function assertOnline(text: string): void {
  if (environment('HF_HUB_OFFLINE') !== '1') return;
  throw new KontextError('download-failed', `${text} is not in the cache, and HF_HUB_OFFLINE forbids to fetch it.`);
}

/** Whether there is a disk to download to. */
export function hasDisk(): boolean {
  return typeof process !== 'undefined' && process.versions?.node !== undefined;
}
