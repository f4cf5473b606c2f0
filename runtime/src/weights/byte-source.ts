// Random access to the bytes of a file: what every weight reader asks for, and the simplest source that gives it.

import { KontextError, throwIfAborted } from '../errors.ts';

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
  /** As `read`, but from the origin: what a cache in between holds of the range is dropped. Where there is one. */
  reload?(start: number, end: number, signal?: AbortSignal): Promise<Uint8Array<ArrayBuffer>>;
  /** Gives the file back; the source is not used afterwards. */
  close(): Promise<void>;
}

/** Bytes already in memory. */
export function memoryBytes(bytes: Uint8Array, name = 'memory'): ByteSource {
  return {
    name,
    size: bytes.length,
    async read(start, end, signal) {
      throwIfAborted(signal);
      checkRange(name, bytes.length, start, end);
      // A Buffer's own `slice` would be a view of memory that it shares with others.
      return new Uint8Array(bytes.subarray(start, end));
    },
    close: async () => {},
  };
}

/** @throws RangeError for a range that is none; KontextError `weights-invalid` past the end */
export function checkRange(name: string, size: number, start: number, end: number): void {
  if (start < 0 || end < start) throw new RangeError(`bad byte range ${start}…${end}`);
  if (end > size) throw truncated(name, size, end);
}

/** The file has fewer bytes than its own header or index says. */
export function truncated(name: string, at: number, wanted: number): KontextError {
  return new KontextError(
    'weights-invalid',
    `${name} ends at byte ${at}, but byte ${wanted} is needed: the file is truncated. Download it again.`,
    {
      file: name,
      size: at,
    },
  );
}
