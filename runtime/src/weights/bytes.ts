// Random access to the bytes of a file, wherever it lies: disk, memory, Blob, or a server.
// Weight readers ask for ranges only, so a 24 GB checkpoint needs no 24 GB of memory.

import { KontextError, throwIfAborted } from '../errors.ts';
import { type ByteSource, checkRange, truncated } from './byte-source.ts';

export { type ByteSource, memoryBytes } from './byte-source.ts';
export { type UrlBytesOptions, type UrlSource, urlBytes } from './url.ts';

/** A file on disk (Node, Deno): one descriptor, positional reads. */
export async function fileBytes(path: string): Promise<ByteSource> {
  const { open } = await import('node:fs/promises');
  const cannot = (cause: unknown): never => {
    const problem = `Cannot open ${path}: ${(cause as Error).message}`;
    throw new KontextError('weights-invalid', problem, { file: path }, { cause });
  };
  const handle = await open(path, 'r').catch(cannot);
  const { size, mtimeMs } = await handle.stat().catch(async (cause: unknown) => {
    await handle.close().catch(() => {});
    return cannot(cause);
  });
  return {
    name: path,
    size,
    async read(start, end, signal) {
      checkRange(path, size, start, end);
      const bytes = new Uint8Array(end - start);
      let filled = 0;
      while (filled < bytes.length) {
        throwIfAborted(signal);
        const { bytesRead } = await handle.read(bytes, filled, bytes.length - filled, start + filled);
        if (bytesRead === 0) throw truncated(path, start + filled, end);
        filled += bytesRead;
      }
      // A file written over while it is open would give half of one model and half of another.
      const now = await handle.stat();
      if (now.mtimeMs !== mtimeMs || now.size !== size) {
        throw new KontextError('weights-invalid', `${path} was changed while it was open. Load the model again.`, {
          file: path,
          changed: true,
        });
      }
      return bytes;
    },
    close: () => handle.close(),
  };
}

/** A File the user picked, or any Blob; the platform reads it from disk piece by piece. */
export function blobBytes(blob: Blob, name = (blob as { name?: string }).name ?? 'blob'): ByteSource {
  return {
    name,
    size: blob.size,
    async read(start, end, signal) {
      throwIfAborted(signal);
      checkRange(name, blob.size, start, end);
      const bytes = new Uint8Array(await blob.slice(start, end).arrayBuffer());
      throwIfAborted(signal);
      return bytes;
    },
    close: async () => {},
  };
}
