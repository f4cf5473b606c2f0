// Where cached pieces are kept: the origin's private file system, or Cache Storage where that cannot be written.
// Pieces are written whole or not at all by both, so a reload in mid-download finds only good ones.

/** Pieces by folder and name. */
export interface PieceStore {
  /** Which of the browser's stores it is. */
  readonly kind: 'opfs' | 'cache-storage';
  /** A piece, or undefined when it is not there. */
  get(folder: string, name: string): Promise<Uint8Array<ArrayBuffer> | undefined>;
  /** Keeps a piece, whole or not at all. @throws DOMException `QuotaExceededError` when the browser grants no more */
  put(folder: string, name: string, bytes: Uint8Array<ArrayBuffer>): Promise<void>;
  /** Forgets a folder's pieces; without a folder, everything. */
  clear(folder?: string): Promise<void>;
}

/** The best store this browser has; undefined in private windows and on insecure pages, which may have none. */
export async function openStore(name = 'kontext-models'): Promise<PieceStore | undefined> {
  try {
    const root = await navigator.storage.getDirectory();
    if ('createWritable' in FileSystemFileHandle.prototype) return opfs(root, name);
  } catch {
    // Refused: Cache Storage may still be there.
  }
  try {
    await caches.open(name);
    return cacheStorage(name);
  } catch {
    return undefined;
  }
}

function opfs(root: FileSystemDirectoryHandle, top: string): PieceStore {
  const folderOf = async (folder: string) =>
    (await root.getDirectoryHandle(top, { create: true })).getDirectoryHandle(folder, { create: true });
  return {
    kind: 'opfs',
    async get(folder, name) {
      try {
        const handle = await (await folderOf(folder)).getFileHandle(name);
        return new Uint8Array(await (await handle.getFile()).arrayBuffer());
      } catch (error) {
        if ((error as DOMException).name === 'NotFoundError') return undefined;
        throw error;
      }
    },
    async put(folder, name, bytes) {
      const handle = await (await folderOf(folder)).getFileHandle(name, { create: true });
      const writable = await handle.createWritable();
      try {
        await writable.write(bytes);
        await writable.close();
      } catch (error) {
        await writable.abort().catch(() => {});
        throw error;
      }
    },
    async clear(folder) {
      const parent = folder === undefined ? root : await root.getDirectoryHandle(top, { create: true });
      await parent.removeEntry(folder ?? top, { recursive: true }).catch((error: DOMException) => {
        if (error.name !== 'NotFoundError') throw error;
      });
    },
  };
}

/** The keys are URLs that nobody serves; they are never fetched. */
export function cacheStorage(top: string): PieceStore {
  const key = (folder: string, name: string) => `https://kontext.invalid/${folder}/${name}`;
  return {
    kind: 'cache-storage',
    async get(folder, name) {
      const response = await (await caches.open(top)).match(key(folder, name));
      return response && new Uint8Array(await response.arrayBuffer());
    },
    async put(folder, name, bytes) {
      await (await caches.open(top)).put(key(folder, name), new Response(bytes));
    },
    async clear(folder) {
      if (folder === undefined) {
        await caches.delete(top);
        return;
      }
      const cache = await caches.open(top);
      for (const request of await cache.keys()) {
        if (request.url.startsWith(key(folder, ''))) await cache.delete(request);
      }
    },
  };
}
