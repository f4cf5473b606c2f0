// A byte source whose every byte is held to its lock before anybody sees it.
import { KontextError, throwIfAborted } from '../../errors.ts';
import { type ByteSource, checkRange } from '../byte-source.ts';
import { whereTheyLie } from './damage.ts';
import { type LockedFile, sha256 } from './lock.ts';

/** Pieces kept: small tensors share them, and readers come back to the last. */
const PIECES_KEPT = 6;

/** Names of the tensors with a byte in `[start, end)` of a source. */
export type TensorsAt = (source: ByteSource, start: number, end: number) => Promise<string[]>;

/**
 * @param name of the file in the lock, for messages
 * @param tensorsAt names of the tensors in a range, from a source that is not to be trusted
 * @throws KontextError `weights-invalid` when the size differs; reading throws it with `damaged: true`, `offset` and `end` for a
 *   piece that is wrong also when it is read a second time
 */
export function verifiedBytes(
  source: ByteSource,
  entry: LockedFile,
  pieceBytes: number,
  name: string,
  tensorsAt?: TensorsAt,
): ByteSource {
  if (source.size !== entry.size) {
    throw new KontextError(
      'weights-invalid',
      `${source.name} has ${source.size} bytes, ${entry.size} by its lock: it is damaged or of another release. Get it again, or lock it again.`,
      { file: source.name, size: source.size, expected: entry.size },
    );
  }
  const kept = new Map<number, Promise<Uint8Array<ArrayBuffer>>>();
  const piece = (index: number): Promise<Uint8Array<ArrayBuffer>> => {
    const known = kept.get(index);
    // In order of last use.
    kept.delete(index);
    const loading = known ?? readPiece(source, entry, pieceBytes, index, name, tensorsAt);
    kept.set(index, loading);
    loading.catch(() => kept.delete(index));
    for (const oldest of kept.keys()) {
      if (kept.size <= PIECES_KEPT) break;
      kept.delete(oldest);
    }
    return loading;
  };
  return {
    name: source.name,
    size: source.size,
    async read(start, end, signal) {
      checkRange(source.name, source.size, start, end);
      const bytes = new Uint8Array(end - start);
      const reads: Promise<void>[] = [];
      for (let index = Math.floor(start / pieceBytes); index * pieceBytes < end; index++) {
        const from = index * pieceBytes;
        reads.push(
          piece(index).then((data) => {
            const part = data.subarray(Math.max(0, start - from), Math.min(data.length, end - from));
            bytes.set(part, Math.max(start, from) - start);
          }),
        );
      }
      // All, not the first failure: a piece still being read must not fail unseen.
      const failed = (await Promise.allSettled(reads)).find((result) => result.status === 'rejected');
      throwIfAborted(signal);
      if (failed) throw failed.reason;
      return bytes;
    },
    async close() {
      kept.clear();
      await source.close();
    },
  };
}

async function readPiece(
  source: ByteSource,
  entry: LockedFile,
  pieceBytes: number,
  index: number,
  name: string,
  tensorsAt: TensorsAt | undefined,
): Promise<Uint8Array<ArrayBuffer>> {
  const start = index * pieceBytes;
  const end = Math.min(source.size, start + pieceBytes);
  const expected = entry.sha256[index]!;
  // Shared by readers, so it is no single reader's to cancel; a piece is a few megabytes.
  let bytes = await source.read(start, end);
  if ((await sha256(bytes)) === expected) return bytes;
  // Bytes are damaged on their way too, and a cache may hold what another release left.
  bytes = await (source.reload ?? source.read).call(source, start, end);
  if ((await sha256(bytes)) === expected) return bytes;
  const tensors = (await tensorsAt?.(source, start, end)) ?? [];
  throw new KontextError(
    'weights-invalid',
    `${source.name} is damaged between byte ${start} and ${end}${whereTheyLie(tensors)}: its SHA-256 is not the lock's. Get the file again.`,
    { file: name, offset: start, end, damaged: true, ...(tensors.length > 0 && { tensor: tensors[0], tensors }) },
  );
}
