// Pictures in a folder: shared by servers and workers of one machine, or of many over a network file system.
// A file appears whole or not at all, and what nobody removed is swept after its time.
import { mkdir, open, readdir, readFile, rename, rm, stat } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { ApiError } from '../http/errors.ts';
import type { BlobStore } from '../jobs/types.ts';

const SWEEP_INTERVAL_MS = 60_000;

/** {@link BlobStore} on disk: one folder a job. */
export class FolderStore implements BlobStore {
  readonly #sweep: NodeJS.Timeout;

  /** Opens a folder. @param root made when it is missing @param keepMs age at which a job's folder is removed; default one day */
  constructor(
    private readonly root: string,
    private readonly keepMs = 86_400_000,
  ) {
    this.#sweep = setInterval(() => void this.#removeOld().catch(() => {}), SWEEP_INTERVAL_MS);
    this.#sweep.unref();
  }

  async put(key: string, bytes: Uint8Array): Promise<void> {
    const path = this.#path(key);
    const partial = `${path}.${crypto.randomUUID()}.part`;
    try {
      await mkdir(dirname(path), { recursive: true });
      const file = await open(partial, 'wx');
      try {
        await file.writeFile(bytes);
        await file.sync();
      } finally {
        await file.close();
      }
      await rename(partial, path);
    } catch (cause) {
      await rm(partial, { force: true }).catch(() => {});
      const full = ['ENOSPC', 'EDQUOT', 'EFBIG'].includes((cause as NodeJS.ErrnoException).code ?? '');
      if (full)
        throw new ApiError(507, 'no-space', 'The server has no room for more pictures.', { retryAfterSeconds: 30 });
      throw new ApiError(500, 'store-failed', 'The server could not store a picture.');
    }
  }

  async get(key: string): Promise<Uint8Array<ArrayBuffer> | undefined> {
    try {
      return new Uint8Array(await readFile(this.#path(key)));
    } catch {
      return undefined;
    }
  }

  async remove(prefix: string): Promise<void> {
    await rm(this.#path(prefix.replace(/\/$/, '')), { recursive: true, force: true }).catch(() => {});
  }

  async close(): Promise<void> {
    clearInterval(this.#sweep);
  }

  /** Keys are made by the server, an id and a name; anything else is a defect and must not leave the folder. */
  #path(key: string): string {
    if (!/^[\w-]+(\/[\w-]+(\.\w+)?)?$/.test(key)) throw new ApiError(500, 'internal', 'A blob key is malformed.');
    return join(this.root, key);
  }

  async #removeOld(): Promise<void> {
    for (const name of await readdir(this.root)) {
      const path = join(this.root, name);
      const { mtimeMs } = await stat(path);
      if (Date.now() - mtimeMs > this.keepMs) await rm(path, { recursive: true, force: true });
    }
  }
}
