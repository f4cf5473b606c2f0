// Pictures in this process's memory: right for one server without Redis, gone when it ends.
// Bounded, so that clients that never fetch their results cannot fill the machine.
import { ApiError } from '../http/errors.ts';
import type { BlobStore } from '../jobs/types.ts';

/** {@link BlobStore} in memory. */
export class MemoryStore implements BlobStore {
  readonly #blobs = new Map<string, Uint8Array<ArrayBuffer>>();
  #bytes = 0;

  /** Empty. @param maxBytes of all blobs together; default 1 GiB */
  constructor(private readonly maxBytes = 2 ** 30) {}

  async put(key: string, bytes: Uint8Array): Promise<void> {
    const before = this.#blobs.get(key)?.length ?? 0;
    if (this.#bytes - before + bytes.length > this.maxBytes) {
      throw new ApiError(507, 'no-space', 'The server has no room for more pictures.', { retryAfterSeconds: 30 });
    }
    this.#bytes += bytes.length - before;
    this.#blobs.set(key, bytes.slice());
  }

  async get(key: string): Promise<Uint8Array<ArrayBuffer> | undefined> {
    return this.#blobs.get(key);
  }

  async remove(prefix: string): Promise<void> {
    for (const [key, { length }] of this.#blobs) {
      if (!key.startsWith(prefix)) continue;
      this.#blobs.delete(key);
      this.#bytes -= length;
    }
  }

  async close(): Promise<void> {
    this.#blobs.clear();
    this.#bytes = 0;
  }
}
