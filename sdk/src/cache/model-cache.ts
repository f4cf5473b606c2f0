// Keeps a model's files in the browser: what was downloaded once is read from there, piece by piece.
// A cut download goes on where it stopped, a damaged piece is fetched again, and a full disk costs only the caching.
import { KontextError } from '../../../runtime/src/errors.ts';
import { type ByteSource, urlBytes } from '../../../runtime/src/weights/bytes.ts';
import type { ModelFiles } from '../model/files.ts';
import { openStore, type PieceStore } from './store.ts';

/** Options of {@link cachedFiles}. */
export interface CacheOptions {
  /** Told once when the browser grants no space, with numbers; the model still loads. Default: a warning on the console. */
  onFull?: (message: string, details: { usedBytes: number; quotaBytes: number }) => void;
  /** Bytes of one piece; a smaller one costs requests, a larger one costs a restart more. Default 4 MiB. */
  pieceBytes?: number;
  /** Replaces the platform's. */
  fetch?: typeof fetch;
  /** Replaces the browser's own. */
  store?: PieceStore;
}

/**
 * Files below a URL, kept in this browser. Once a piece is cached it is never asked for again, also offline: publish a changed
 * model under another URL, or call {@link clearCache}.
 *
 * Each piece is kept with its SHA-256 and held to it whenever it is read. A file that changes on the server while some of its
 * pieces are cached is refused by its ETag, not mixed.
 */
export function cachedFiles(base: string | URL, options: CacheOptions = {}): ModelFiles {
  const url = new URL(base);
  if (!url.pathname.endsWith('/')) url.pathname += '/';
  let store: Promise<PieceStore | undefined> | undefined;
  return {
    label: url.href,
    async open(name, signal) {
      store ??= options.store ? Promise.resolve(options.store) : openStore();
      return openCached(new URL(name, url), await store, options, signal);
    },
  };
}

/** Forgets one file's pieces, or without a URL everything cached. */
export async function clearCache(url?: string | URL): Promise<void> {
  const store = await openStore();
  await store?.clear(url === undefined ? undefined : await folderOf(new URL(url)));
}

/** What is known of a file without asking the server. */
type Known = { missing: true } | { size: number; etag: string | null; pieceBytes: number };

const INDEX = 'index.json';

async function openCached(
  url: URL,
  store: PieceStore | undefined,
  options: CacheOptions,
  signal?: AbortSignal,
): Promise<ByteSource | undefined> {
  const folder = await folderOf(url);
  const pieceBytes = options.pieceBytes ?? 4 * 2 ** 20;
  let known = parse(await store?.get(folder, INDEX).catch(() => undefined));
  let etag: string | null = known && 'etag' in known ? known.etag : null;
  const observed: typeof fetch = async (input, init) => {
    // no-store: the browser's own cache would keep the same bytes a second time, and splits ranges it knows a part of.
    const response = await (options.fetch ?? fetch)(input, { ...init, cache: 'no-store' });
    const found = response.headers.get('etag');
    if (etag !== null && found !== null && found !== etag) {
      await response.body?.cancel();
      throw new KontextError(
        'download-failed',
        `${url} has changed on its server since it was cached. Clear the cache.`,
        {
          url: url.href,
        },
      );
    }
    etag ??= found;
    return response;
  };
  const remote = () => urlBytes(url, { ...(signal && { signal }), fetch: observed });
  let source: ByteSource | undefined;
  if (!known) {
    try {
      source = await remote();
      known = { size: source.size, etag, pieceBytes };
    } catch (error) {
      if (!(error instanceof KontextError && error.details.status === 404)) throw error;
      known = { missing: true };
    }
    await keep(store, folder, INDEX, new TextEncoder().encode(JSON.stringify(known)), options);
  }
  if ('missing' in known) return undefined;
  const { size, pieceBytes: step } = known;
  const fetchPiece = async (index: number) => {
    source ??= await remote();
    if (source.size !== size) {
      throw new KontextError(
        'download-failed',
        `${url} has ${source.size} bytes, ${size} when it was cached. Clear the cache.`,
      );
    }
    return source.read(index * step, Math.min(size, (index + 1) * step));
  };
  const pieces = new Map<number, Promise<Uint8Array<ArrayBuffer>>>();
  const piece = (index: number) => {
    let loading = pieces.get(index);
    if (!loading) {
      // Readers go forward, with small steps: the last two pieces are enough.
      for (const old of pieces.keys()) if (pieces.size > 1) pieces.delete(old);
      loading = loadPiece(store, folder, index, Math.min(step, size - index * step), () => fetchPiece(index), options);
      pieces.set(index, loading);
      loading.catch(() => pieces.delete(index));
    }
    return loading;
  };
  return {
    name: url.href,
    size,
    async read(start, end, readSignal) {
      if (start < 0 || end < start || end > size) {
        throw new KontextError('weights-invalid', `${url} ends at byte ${size}, but byte ${end} is needed.`, { size });
      }
      const bytes = new Uint8Array(end - start);
      for (let at = start; at < end; ) {
        readSignal?.throwIfAborted();
        const index = Math.floor(at / step);
        const part = (await piece(index)).subarray(at - index * step, Math.min(step, end - index * step));
        bytes.set(part, at - start);
        at += part.length;
      }
      return bytes;
    },
    close: async () => pieces.clear(),
  };
}

const HASH_BYTES = 32;

/** From the store when it is there and whole, else from the server and into the store. */
async function loadPiece(
  store: PieceStore | undefined,
  folder: string,
  index: number,
  length: number,
  download: () => Promise<Uint8Array<ArrayBuffer>>,
  options: CacheOptions,
): Promise<Uint8Array<ArrayBuffer>> {
  const name = String(index).padStart(6, '0');
  const cached = await store?.get(folder, name).catch(() => undefined);
  if (cached?.length === HASH_BYTES + length) {
    const bytes = cached.subarray(HASH_BYTES);
    const hash = await sha256(bytes);
    if (hash.every((value, i) => value === cached[i])) return bytes;
  }
  const bytes = await download();
  if (store) {
    const stored = new Uint8Array(HASH_BYTES + bytes.length);
    stored.set(await sha256(bytes));
    stored.set(bytes, HASH_BYTES);
    await keep(store, folder, name, stored, options);
  }
  return bytes;
}

const full = new WeakSet<PieceStore>();

/** Stores if there is room; the first refusal is told, later ones are not tried. */
async function keep(
  store: PieceStore | undefined,
  folder: string,
  name: string,
  bytes: Uint8Array<ArrayBuffer>,
  { onFull = (message) => console.warn(message) }: CacheOptions,
): Promise<void> {
  if (!store || full.has(store)) return;
  try {
    await store.put(folder, name, bytes);
  } catch (error) {
    full.add(store);
    const { usage = 0, quota = 0 } = (await navigator.storage?.estimate?.()) ?? {};
    const gb = (value: number) => `${(value / 1e9).toFixed(1)} GB`;
    onFull(
      `The model is not cached any further (${(error as Error).name}): this site uses ${gb(usage)} of the ${gb(quota)} that the ` +
        'browser grants it. It works, but will be downloaded again next time. Free disk space, or ask for persistent storage.',
      { usedBytes: usage, quotaBytes: quota },
    );
  }
}

function parse(bytes: Uint8Array | undefined): Known | undefined {
  if (!bytes) return undefined;
  try {
    return JSON.parse(new TextDecoder().decode(bytes)) as Known;
  } catch {
    return undefined;
  }
}

async function sha256(bytes: Uint8Array<ArrayBuffer>): Promise<Uint8Array> {
  return new Uint8Array(await crypto.subtle.digest('SHA-256', bytes));
}

async function folderOf(url: URL): Promise<string> {
  const hash = await sha256(new TextEncoder().encode(url.href) as Uint8Array<ArrayBuffer>);
  return Array.from(hash.subarray(0, 16), (value) => value.toString(16).padStart(2, '0')).join('');
}
