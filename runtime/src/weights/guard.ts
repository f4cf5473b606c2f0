// Holds a source of bytes to its contract: exactly the bytes asked for, in memory of their own, within the caller's signal.
// Sources are also written by apps; a short answer, a pooled Buffer or an error of their own must not become a wrong picture.

import { abortedError, KontextError, throwIfAborted } from '../errors.ts';
import { abortable } from '../net/wait.ts';
import type { ByteSource } from './byte-source.ts';

/**
 * @param source anything that claims to be one
 * @throws KontextError `invalid-request` when it is none
 */
export function guardSource(source: ByteSource): ByteSource {
  if (typeof source?.read !== 'function' || typeof source.close !== 'function') {
    throw new KontextError(
      'invalid-request',
      'A file must be a path, a URL, a Blob, bytes, or a source with size, read and close.',
    );
  }
  const { size } = source;
  const name = typeof source.name === 'string' ? source.name : 'own source';
  if (!Number.isSafeInteger(size) || size < 0) {
    throw new KontextError('invalid-request', `The source ${name} has no size: it must be a whole number of bytes.`, {
      file: name,
    });
  }
  const guarded =
    (read: NonNullable<ByteSource['reload']>): ByteSource['read'] =>
    async (start, end, signal) => {
      throwIfAborted(signal);
      const reading = Promise.resolve()
        .then(() => read(start, end, signal))
        .catch((error: unknown) => sourceError(name, error, signal));
      const bytes = await abortable(reading, signal);
      return exactly(name, bytes, start, end);
    };
  return {
    name,
    size,
    read: guarded((start, end, signal) => source.read(start, end, signal)),
    ...(source.reload && { reload: guarded((start, end, signal) => source.reload!(start, end, signal)) }),
    async close() {
      await Promise.resolve(source.close()).catch((error: unknown) => sourceError(name, error));
    },
  };
}

/** Own memory at offset 0: views of typed arrays are taken of it, and a pooled Buffer's belongs to others. */
function exactly(name: string, bytes: unknown, start: number, end: number): Uint8Array<ArrayBuffer> {
  if (!(bytes instanceof Uint8Array)) {
    throw new KontextError('weights-invalid', `${name} gave no bytes for ${start} to ${end}.`, { file: name });
  }
  if (bytes.length !== end - start) {
    throw new KontextError(
      'weights-invalid',
      `${name} gave ${bytes.length} bytes for ${start} to ${end}, not ${end - start}. Is the file complete?`,
      { file: name, start, end, got: bytes.length },
    );
  }
  const own = bytes.constructor === Uint8Array && bytes.byteOffset === 0 && bytes.buffer instanceof ArrayBuffer;
  return own ? (bytes as Uint8Array<ArrayBuffer>) : Uint8Array.from(bytes);
}

function sourceError(name: string, error: unknown, signal?: AbortSignal): never {
  if (error instanceof KontextError) throw error;
  if (signal?.aborted) throw abortedError(signal);
  const why = String((error as Error | undefined)?.message ?? error).split('\n')[0]!;
  throw new KontextError('weights-invalid', `${name} cannot be read: ${why}.`, { file: name }, { cause: error });
}
