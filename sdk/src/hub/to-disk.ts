// Downloads files of a repository into a folder (Node, Deno): resumed, verified, whole under their name or not there.
import { KontextError, throwIfAborted } from '../../../runtime/src/errors.ts';
import { versionKey } from '../../../runtime/src/net/version.ts';
import type { UrlSource } from '../../../runtime/src/weights/url.ts';
import { expectedSha256, type HubFile, type Repository } from './repository.ts';
import { streamSha256 } from './sha256.ts';
import { type DownloadProgress, progressOver, RANGE_BYTES, transfer } from './transfer.ts';

/**
 * Files that are there in full size are kept. A file comes into being as `NAME.part` with the release it is of beside it; a part of
 * another release is not gone on with.
 *
 * @throws KontextError `download-failed` when bytes do not have the hub's SHA-256, or there is no room; `aborted`
 */
export async function downloadToDisk(
  repository: Repository,
  names: readonly string[],
  folder: string,
  options: { signal?: AbortSignal; onProgress?: (event: DownloadProgress) => void },
): Promise<void> {
  const { signal, onProgress } = options;
  const { mkdir, stat } = await import('node:fs/promises');
  const { dirname } = await import('node:path');
  const wanted: { file: HubFile; source: UrlSource; path: string; there: boolean }[] = [];
  try {
    for (const name of names) {
      throwIfAborted(signal);
      const source = await repository.open(name, signal);
      if (!source) throw failed(repository, name, 'is listed, but not there');
      const path = `${folder}/${name}`;
      const found = await stat(path).catch(() => undefined);
      wanted.push({ file: repository.files.get(name)!, source, path, there: found?.size === source.size });
    }
    const total = wanted.reduce((sum, { source }) => sum + source.size, 0);
    await checkRoom(
      folder,
      wanted.reduce((sum, { source, there }) => sum + (there ? 0 : source.size), 0),
    );
    const count = progressOver(total, onProgress);
    for (const { file, source, path, there } of wanted) {
      if (there) count(file.name, source.size, false);
      else {
        try {
          await mkdir(dirname(path), { recursive: true });
          await downloadFile(repository, file, source, path, count, signal);
        } catch (cause) {
          if (cause instanceof KontextError) throw cause;
          throw failed(repository, file.name, `cannot be written to ${path}: ${(cause as Error).message}`, cause);
        }
      }
    }
  } finally {
    await Promise.all(wanted.map(({ source }) => source.close()));
  }
}

async function downloadFile(
  repository: Repository,
  file: HubFile,
  source: UrlSource,
  path: string,
  count: (file: string, bytes: number, downloaded: boolean) => void,
  signal: AbortSignal | undefined,
): Promise<void> {
  const { open, readFile, rename, rm, writeFile } = await import('node:fs/promises');
  const part = `${path}.part`;
  const release = `${part}.release`;
  const key = versionKey(source.version);
  if ((await readFile(release, 'utf8').catch(() => undefined)) !== key) {
    await rm(part, { force: true });
    await writeFile(release, key);
  }
  const hash = await streamSha256();
  const handle = await open(part, 'a+');
  try {
    // What is there is read again, for the hash; the last range may have been cut by a crash.
    const { size } = await handle.stat();
    let at = Math.min(size, source.size);
    await handle.truncate(at);
    for (let done = 0; done < at; ) {
      throwIfAborted(signal);
      const bytes = new Uint8Array(Math.min(RANGE_BYTES, at - done));
      const { bytesRead } = await handle.read(bytes, 0, bytes.length, done);
      if (bytesRead === 0) break;
      hash.update(bytes.subarray(0, bytesRead));
      done += bytesRead;
    }
    count(file.name, at, false);
    await transfer(
      source,
      at,
      async (bytes) => {
        hash.update(bytes);
        await handle.appendFile(bytes);
        at += bytes.length;
        count(file.name, bytes.length, true);
      },
      signal,
    );
    await handle.sync();
  } finally {
    await handle.close();
  }
  const expected = expectedSha256(file, source);
  if (expected !== undefined && hash.digest() !== expected) {
    await rm(part, { force: true });
    await rm(release, { force: true });
    throw failed(repository, file.name, 'came with another SHA-256 than the hub lists: it was damaged. Try again');
  }
  await rename(part, path);
  await rm(release, { force: true });
}

async function checkRoom(folder: string, bytes: number): Promise<void> {
  const { mkdir, statfs } = await import('node:fs/promises');
  const look = async () => {
    await mkdir(folder, { recursive: true });
    return statfs(folder);
  };
  const { bavail, bsize } = await look().catch((cause: Error) => {
    throw new KontextError('download-failed', `Cannot write to ${folder}: ${cause.message}.`, { folder }, { cause });
  });
  if (bavail * bsize >= bytes) return;
  const gb = (value: number) => `${(value / 1e9).toFixed(1)} GB`;
  throw new KontextError(
    'download-failed',
    `${folder} has ${gb(bavail * bsize)} free, the model needs ${gb(bytes)}. Free some, or name another folder.`,
    { folder, freeBytes: bavail * bsize, neededBytes: bytes },
  );
}

function failed(repository: Repository, name: string, problem: string, cause?: unknown): KontextError {
  return new KontextError('download-failed', `${repository.label}: ${name} ${problem}.`, { file: name }, { cause });
}
