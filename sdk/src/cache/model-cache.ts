// Keeps a model's files in the browser: what was downloaded once is read from there, piece by piece.
// A cut download goes on where it stopped, a damaged piece is fetched again, and a full disk costs only the caching.
import { KontextError } from '../../../runtime/src/errors.ts';
import type { NetOptions } from '../../../runtime/src/net/request.ts';
import { shownUrl } from '../../../runtime/src/net/retry.ts';
import { type FileVersion, sameVersion, versionKey } from '../../../runtime/src/net/version.ts';
import { abortable } from '../../../runtime/src/net/wait.ts';
import { type ByteSource, checkRange } from '../../../runtime/src/weights/byte-source.ts';
import { isMissing, type UrlSource, urlBytes } from '../../../runtime/src/weights/url.ts';
import type { ModelFiles } from '../model/files.ts';
import { addressBelow } from '../model/place-names.ts';
import { openStore, type PieceStore } from './store.ts';

/** Options of {@link cachedFiles}. */
export interface CacheOptions {
  /** Told once when the browser grants no space, with numbers; the model still loads. Default: a warning on the console. */
  onFull?: (message: string, details: { usedBytes: number; quotaBytes: number }) => void;
  /** Told when a file has changed on its server and is downloaded anew. Default: a line on the console. */
  onChanged?: (message: string, details: { url: string }) => void;
  /** Headers of an app's own, attempts, hosts that may be asked. */
  request?: Omit<NetOptions, 'signal' | 'fetch'>;
  /** Bytes of one piece; a smaller one costs requests, a larger one costs a restart more. Default 4 MiB. */
  pieceBytes?: number;
  /** Replaces the platform's. */
  fetch?: typeof fetch;
  /** Replaces the browser's own. */
  store?: PieceStore;
}

/**
 * Files below a URL, kept in this browser: a piece that is cached is not downloaded again, also not offline.
 *
 * Each visit asks the server once for each file which release it has (its ETag, or date and size). A changed file is downloaded
 * anew and the app is told; its old pieces are never used with the new ones. Each piece is kept with a SHA-256 of itself and its
 * release, and held to it whenever it is read. Where the server cannot be reached, what is cached is used.
 */
export function cachedFiles(base: string | URL, options: CacheOptions = {}): ModelFiles {
  const url = new URL(base);
  let store: Promise<PieceStore | undefined> | undefined;
  return {
    label: shownUrl(url.href),
    async open(name, signal) {
      store ??= options.store ? Promise.resolve(options.store) : openStore();
      return openCached(addressBelow(url, name), await store, options, signal);
    },
  };
}

/** Forgets one file's pieces, or without a URL everything cached. */
export async function clearCache(url?: string | URL): Promise<void> {
  const store = await openStore();
  await store?.clear(url === undefined ? undefined : await folderOf(new URL(url)));
}

/** What is kept of a file beside its pieces. */
interface Known {
  version: FileVersion;
  pieceBytes: number;
}

const INDEX = 'index.json';
/** Not there on this visit; the server is asked again, but where it cannot be reached this holds. */
const missingNow = new Set<string>();

async function openCached(
  url: URL,
  store: PieceStore | undefined,
  options: CacheOptions,
  signal?: AbortSignal,
): Promise<ByteSource | undefined> {
  const folder = await folderOf(url);
  const kept = parse(await store?.get(folder, INDEX).catch(() => undefined));
  const remote = await askServer(url, options, kept !== undefined || missingNow.has(folder), signal);
  if (remote === 'missing') {
    missingNow.add(folder);
    if (kept) await store?.clear(folder);
    return undefined;
  }
  if (remote === 'unreachable') {
    if (!kept) return undefined;
    return cachedSource(url, kept, { store, folder, options, download: undefined });
  }
  missingNow.delete(folder);
  const changed = kept !== undefined && !sameVersion(kept.version, remote.version);
  if (changed) {
    await store?.clear(folder);
    const { onChanged = (message: string) => console.info(message) } = options;
    onChanged(`${shownUrl(url.href)} has changed since it was cached and is downloaded anew.`, { url: url.href });
  }
  const known = kept && !changed ? kept : { version: remote.version, pieceBytes: options.pieceBytes ?? PIECE_BYTES };
  if (known !== kept) {
    await keep(store, folder, INDEX, new TextEncoder().encode(JSON.stringify(known)), options);
  }
  return cachedSource(url, known, { store, folder, options, download: remote });
}

/** The file on its server. Where something is known without, one attempt is enough and failing is no error. */
async function askServer(
  url: URL,
  options: CacheOptions,
  optional: boolean,
  signal: AbortSignal | undefined,
): Promise<UrlSource | 'missing' | 'unreachable'> {
  // no-store: the browser's own cache would keep the same bytes a second time, and splits ranges it knows a part of.
  const fresh: typeof fetch = (input, init) => (options.fetch ?? fetch)(input, { ...init, cache: 'no-store' });
  try {
    return await urlBytes(url, { ...options.request, fetch: fresh, signal, ...(optional && { openAttempts: 1 }) });
  } catch (error) {
    if (isMissing(error)) return 'missing';
    if (optional && error instanceof KontextError && error.code === 'download-failed') return 'unreachable';
    throw error;
  }
}

interface CachePlace {
  store: PieceStore | undefined;
  folder: string;
  options: CacheOptions;
  /** Absent offline. */
  download: UrlSource | undefined;
}

function cachedSource(url: URL, { version, pieceBytes: step }: Known, place: CachePlace): ByteSource {
  const { size } = version;
  const name = shownUrl(url.href);
  const pieces = new Map<number, Promise<Uint8Array<ArrayBuffer>>>();
  let open = new AbortController();
  const piece = (index: number) => {
    let loading = pieces.get(index);
    if (!loading) {
      const start = index * step;
      loading = loadPiece(place, version, index, Math.min(step, size - start), (length) => {
        if (place.download) return place.download.read(start, start + length, open.signal);
        throw new KontextError(
          'download-failed',
          `${name} cannot be reached, and byte ${start} of it is not cached. Connect and try again.`,
          { url: url.href },
        );
      });
      pieces.set(index, loading);
      loading.catch(() => pieces.delete(index));
    }
    return loading;
  };
  const source: ByteSource = {
    name,
    size,
    async reload(start, end, signal) {
      for (let index = Math.floor(start / step); index * step < end; index++) {
        pieces.delete(index);
        // No piece of ours is empty: this one will be fetched.
        await place.store?.put(place.folder, pieceName(index), new Uint8Array(0)).catch(() => {});
      }
      return source.read(start, end, signal);
    },
    async read(start, end, signal) {
      checkRange(name, size, start, end);
      const bytes = new Uint8Array(end - start);
      const first = Math.floor(start / step);
      const last = Math.max(first, Math.ceil(end / step) - 1);
      // Readers go forward, with small steps: only the last piece will be wanted again.
      for (const old of pieces.keys()) if (old < first || old > last) pieces.delete(old);
      const wanted = start === end ? [] : Array.from({ length: last - first + 1 }, (_, i) => first + i);
      const parts = await abortable(Promise.all(wanted.map(piece)), signal);
      parts.forEach((part, i) => {
        const from = (first + i) * step;
        const cut = part.subarray(Math.max(0, start - from), Math.min(part.length, end - from));
        bytes.set(cut, Math.max(start, from) - start);
      });
      return bytes;
    },
    async close() {
      // Downloads that are on their way, and their attempts to come, end with their reader.
      open.abort();
      open = new AbortController();
      pieces.clear();
    },
  };
  return source;
}

const pieceName = (index: number) => String(index).padStart(6, '0');

const PIECE_BYTES = 4 * 2 ** 20;
const HASH_BYTES = 32;

/** From the store when it is there, whole and of this release; else from the server and into the store. */
async function loadPiece(
  { store, folder, options }: CachePlace,
  version: FileVersion,
  index: number,
  length: number,
  download: (length: number) => Promise<Uint8Array<ArrayBuffer>>,
): Promise<Uint8Array<ArrayBuffer>> {
  const name = pieceName(index);
  const cached = await store?.get(folder, name).catch(() => undefined);
  if (cached?.length === HASH_BYTES + length) {
    const bytes = cached.subarray(HASH_BYTES);
    const hash = await pieceHash(version, bytes);
    if (hash.every((value, i) => value === cached[i])) return bytes;
  }
  const bytes = await download(length);
  if (store) {
    const stored = new Uint8Array(HASH_BYTES + bytes.length);
    stored.set(await pieceHash(version, bytes));
    stored.set(bytes, HASH_BYTES);
    await keep(store, folder, name, stored, options);
  }
  return bytes;
}

/** Of the bytes and of the release they belong to. */
async function pieceHash(version: FileVersion, bytes: Uint8Array<ArrayBuffer>): Promise<Uint8Array> {
  const key = await sha256(new TextEncoder().encode(versionKey(version)));
  const content = await sha256(bytes);
  return sha256(Uint8Array.from([...key, ...content]));
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
    const known = JSON.parse(new TextDecoder().decode(bytes)) as Known;
    // Written by an earlier release of this SDK, or by something else.
    return Number.isSafeInteger(known.version.size) && known.pieceBytes > 0 ? known : undefined;
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
