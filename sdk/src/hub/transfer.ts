// Moves a file in parallel ranges, hands its bytes on in order, and tells of progress over all files.
import { throwIfAborted } from '../../../runtime/src/errors.ts';
import type { ByteSource } from '../../../runtime/src/weights/byte-source.ts';

/** How a download gets on, over all of its files. */
export interface DownloadProgress {
  /** Tells it from other events. */
  type: 'download';
  /** The file whose bytes came last. */
  file: string;
  /** Of all files, also what was there already. */
  loadedBytes: number;
  /** Of all files. */
  totalBytes: number;
  /** Of the last ten seconds; bytes that were there already do not count. */
  bytesPerSecond: number;
  /** Estimated, absent until a rate is known. */
  remainingMs?: number;
}

/** Bytes of one range. */
export const RANGE_BYTES = 8 * 2 ** 20;
/** Ranges asked for at once: one connection rarely fills a line. */
const PARALLEL = 4;

/** Reads `[start, source.size)` and calls `take` with consecutive pieces; at most {@link PARALLEL} are in memory. */
export async function transfer(
  source: ByteSource,
  start: number,
  take: (bytes: Uint8Array<ArrayBuffer>) => Promise<void>,
  signal: AbortSignal | undefined,
): Promise<void> {
  const stop = new AbortController();
  const joined = signal ? AbortSignal.any([signal, stop.signal]) : stop.signal;
  const coming: Promise<Uint8Array<ArrayBuffer>>[] = [];
  let next = start;
  const ask = () => {
    if (next >= source.size) return;
    const end = Math.min(source.size, next + RANGE_BYTES);
    const range = source.read(next, end, joined);
    range.catch(() => {});
    coming.push(range);
    next = end;
  };
  try {
    for (let i = 0; i < PARALLEL; i++) ask();
    for (let range = coming.shift(); range; range = coming.shift()) {
      const bytes = await range;
      throwIfAborted(signal);
      ask();
      await take(bytes);
    }
  } finally {
    stop.abort();
    await Promise.allSettled(coming);
  }
}

/** Adds up bytes of several files and measures their rate. */
export function progressOver(totalBytes: number, onProgress: ((event: DownloadProgress) => void) | undefined) {
  const samples: [time: number, bytes: number][] = [[performance.now(), 0]];
  let loadedBytes = 0;
  let moved = 0;
  return (file: string, bytes: number, downloaded: boolean) => {
    loadedBytes += bytes;
    if (downloaded) moved += bytes;
    const now = performance.now();
    samples.push([now, moved]);
    while (samples.length > 2 && now - samples[0]![0] > 10_000) samples.shift();
    const [since, before] = samples[0]!;
    const bytesPerSecond = now > since ? ((moved - before) / (now - since)) * 1000 : 0;
    const remainingMs = ((totalBytes - loadedBytes) / bytesPerSecond) * 1000;
    onProgress?.({
      type: 'download',
      file,
      loadedBytes,
      totalBytes,
      bytesPerSecond,
      ...(bytesPerSecond > 0 && { remainingMs }),
    });
  };
}
