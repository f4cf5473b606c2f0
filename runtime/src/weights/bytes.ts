// Random access to the bytes of a file, wherever it lies: disk, memory, Blob, or a server.
// Weight readers ask for ranges only, so a 24 GB checkpoint needs no 24 GB of memory.

import { abortedError, KontextError, throwIfAborted } from '../errors.ts';

/** Random access to the bytes of one file. Implement it to read weights from anywhere else. */
export interface ByteSource {
  /** For error messages. */
  readonly name: string;
  /** Bytes of the whole file. */
  readonly size: number;
  /**
   * Bytes `[start, end)`, exactly that many.
   *
   * @throws `weights-invalid` past the end, `download-failed` from a server, `aborted`
   */
  read(start: number, end: number, signal?: AbortSignal): Promise<Uint8Array<ArrayBuffer>>;
  /** Gives the file back; the source is not used afterwards. */
  close(): Promise<void>;
}

/** A file on disk (Node, Deno): one descriptor, positional reads. */
export async function fileBytes(path: string): Promise<ByteSource> {
  const { open } = await import('node:fs/promises');
  const handle = await open(path, 'r').catch((cause: unknown) => {
    throw new KontextError(
      'weights-invalid',
      `Cannot open ${path}: ${(cause as Error).message}`,
      { file: path },
      { cause },
    );
  });
  const { size } = await handle.stat();
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
      return bytes;
    },
    close: () => handle.close(),
  };
}

/** Bytes already in memory. */
export function memoryBytes(bytes: Uint8Array, name = 'memory'): ByteSource {
  return {
    name,
    size: bytes.length,
    async read(start, end, signal) {
      throwIfAborted(signal);
      checkRange(name, bytes.length, start, end);
      return bytes.slice(start, end) as Uint8Array<ArrayBuffer>;
    },
    close: async () => {},
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

export interface UrlBytesOptions {
  signal?: AbortSignal;
  /** Sent with each request, e.g. an authorization. */
  headers?: Record<string, string>;
  /** Replaces the platform's. */
  fetch?: typeof fetch;
  /** Attempts for each range before giving up; waits 0.5 s, 1 s, 2 s … between them. */
  attempts?: number;
}

/**
 * A file on a server, by HTTP range requests. A server without ranges will do for files up to 64 MiB, which are then
 * kept in memory.
 *
 * @throws `download-failed` with the status, or that the server has no range requests
 */
export async function urlBytes(url: string | URL, options: UrlBytesOptions = {}): Promise<ByteSource> {
  const name = String(url);
  const probe = await request(name, 0, 1, options, options.signal);
  if (probe.status === 200) {
    const length = Number(probe.headers.get('content-length') ?? Number.NaN);
    if (!(length <= WHOLE_FILE_BYTES)) {
      await probe.body?.cancel();
      throw new KontextError(
        'download-failed',
        `The server of ${name} does not support range requests, which weight files over 64 MiB need. Use another server.`,
        { url: name },
      );
    }
    return memoryBytes(new Uint8Array(await probe.arrayBuffer()), name);
  }
  await probe.arrayBuffer();
  const size = Number(/\/(\d+)$/.exec(probe.headers.get('content-range') ?? '')?.[1] ?? Number.NaN);
  if (!Number.isSafeInteger(size)) {
    throw new KontextError('download-failed', `The server of ${name} does not tell the file's size.`, { url: name });
  }
  return {
    name,
    size,
    async read(start, end, signal) {
      checkRange(name, size, start, end);
      if (start === end) return new Uint8Array(0);
      return withRetries(name, options.attempts ?? 4, signal, async () => {
        const response = await request(name, start, end, { ...options, attempts: 1 }, signal);
        const bytes = response.status === 206 ? new Uint8Array(await response.arrayBuffer()) : undefined;
        if (bytes?.length !== end - start)
          throw new Error(`the server sent ${bytes?.length ?? 'all'} bytes of ${end - start}`);
        return bytes;
      });
    },
    close: async () => {},
  };
}

const WHOLE_FILE_BYTES = 64 * 2 ** 20;

async function request(
  url: string,
  start: number,
  end: number,
  options: UrlBytesOptions,
  signal: AbortSignal | undefined,
): Promise<Response> {
  return withRetries(url, options.attempts ?? 4, signal, async () => {
    const get = options.fetch ?? fetch;
    const headers = { ...options.headers, Range: `bytes=${start}-${end - 1}` };
    const response = await get(url, { headers, signal });
    if (response.status === 200 || response.status === 206) return response;
    await response.body?.cancel();
    const retry = response.status === 429 || response.status >= 500;
    throw new HttpError(`HTTP ${response.status} ${response.statusText}`, response.status, retry);
  });
}

class HttpError extends Error {
  constructor(
    message: string,
    readonly status: number,
    readonly retry: boolean,
  ) {
    super(message);
  }
}

async function withRetries<T>(
  url: string,
  attempts: number,
  signal: AbortSignal | undefined,
  work: () => Promise<T>,
): Promise<T> {
  for (let attempt = 1; ; attempt++) {
    throwIfAborted(signal);
    try {
      return await work();
    } catch (cause) {
      if (signal?.aborted) throw abortedError(signal);
      if (cause instanceof KontextError) throw cause;
      if (attempt >= attempts || (cause instanceof HttpError && !cause.retry)) {
        const status = cause instanceof HttpError ? cause.status : undefined;
        throw new KontextError(
          'download-failed',
          `Download of ${url} failed: ${(cause as Error).message}`,
          { url, status },
          { cause },
        );
      }
      await new Promise((resolve) => setTimeout(resolve, 500 * 2 ** (attempt - 1)));
    }
  }
}

function checkRange(name: string, size: number, start: number, end: number): void {
  if (start < 0 || end < start) throw new RangeError(`bad byte range ${start}…${end}`);
  if (end > size) throw truncated(name, size, end);
}

function truncated(name: string, at: number, wanted: number): KontextError {
  return new KontextError(
    'weights-invalid',
    `${name} ends at byte ${at}, but byte ${wanted} is needed: the file is truncated. Download it again.`,
    {
      file: name,
      size: at,
    },
  );
}
