// Downloads files of a repository into the browser's own storage: resumed, in parallel ranges, verified.
import { KontextError, throwIfAborted } from '../../../runtime/src/errors.ts';
import { cachedFiles, clearCache } from '../cache/model-cache.ts';
import { openStore } from '../cache/store.ts';
import type { ModelFiles } from '../model/files.ts';
import { namesIn, type Repository } from './repository.ts';
import { plainSha256 } from './sha256.ts';
import { type DownloadProgress, progressOver, transfer } from './transfer.ts';

/** Folder of the store that remembers which SHA-256 have been found right. */
const VERIFIED = 'hub-verified';

/** The files of a repository, read through the browser's storage. */
export async function pageFiles(repository: Repository): Promise<ModelFiles> {
  const base = new URL(repository.url('x').href.replace(/x$/, ''));
  const { fetch, ...request } = repository.request;
  const cached = cachedFiles(base, { request, ...(fetch && { fetch }) });
  return {
    label: repository.label,
    async open(name, signal) {
      if (!repository.files.has(name)) return undefined;
      return cached.open(name, signal).catch((error: unknown) => {
        throw repository.explain(error);
      });
    },
    list: async (folder) => namesIn(repository, folder),
  };
}

/**
 * Reads each file once from end to end, which stores its pieces; those that are there come from the storage. Without a storage (private
 * windows) nothing is done: the files are then read by range, unverified.
 *
 * @throws KontextError `download-failed` when a file does not have the hub's SHA-256; `aborted`
 */
export async function downloadToPage(
  repository: Repository,
  files: ModelFiles,
  names: readonly string[],
  options: { signal?: AbortSignal; onProgress?: (event: DownloadProgress) => void },
): Promise<void> {
  const store = await openStore();
  if (!store) return;
  const { signal, onProgress } = options;
  const wanted = names.map((name) => repository.files.get(name)!);
  const count = progressOver(
    wanted.reduce((sum, { size = 0 }) => sum + size, 0),
    onProgress,
  );
  for (const { name, size = 0, sha256 } of wanted) {
    throwIfAborted(signal);
    // Small files have no hash on the hub, and are read whole when the model is opened.
    if (sha256 === undefined || (await store.get(VERIFIED, sha256).catch(() => undefined))) {
      count(name, size, false);
      continue;
    }
    const source = await files.open(name, signal);
    if (!source) throw new KontextError('download-failed', `${repository.label}: ${name} is listed, but not there.`);
    try {
      const hash = plainSha256();
      await transfer(
        source,
        0,
        async (bytes) => {
          hash.update(bytes);
          count(name, bytes.length, true);
        },
        signal,
      );
      if (hash.digest() !== sha256) {
        await clearCache(repository.url(name));
        throw new KontextError(
          'download-failed',
          `${repository.label}: ${name} came with another SHA-256 than the hub lists: it was damaged. Try again.`,
          { file: name },
        );
      }
    } finally {
      await source.close();
    }
    await store.put(VERIFIED, sha256, new Uint8Array([1])).catch(() => {});
  }
}
