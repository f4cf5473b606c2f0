// A byte source whose every byte is held to its lock before anybody sees it.
import { KontextError, throwIfAborted } from '../../errors.ts';
import { type ByteSource, checkRange } from '../byte-source.ts';
import { whereTheyLie } from './damage.ts';
import { type LockedFile, sha256 } from './lock.ts';

type Piece = Promise<Uint8Array<ArrayBuffer>>;

/**
 * The verified pieces that were used last, of all files of a model together: small tensors share them, and readers come back to the
 * last. A model may have hundreds of files open, and a few pieces of each would be most of it.
 */
export class VerifiedPieces {
  private readonly files = new Map<ByteSource, Map<number, Piece>>();
  /** In order of last use. */
  private readonly used = new Map<Piece, { file: ByteSource; index: number }>();

  constructor(private readonly most = 12) {}

  get(file: ByteSource, index: number, read: () => Piece): Piece {
    const pieces = this.files.get(file) ?? new Map<number, Piece>();
    this.files.set(file, pieces);
    const piece = pieces.get(index) ?? read();
    pieces.set(index, piece);
    this.used.delete(piece);
    this.used.set(piece, { file, index });
    piece.catch(() => this.drop(piece));
    for (const oldest of this.used.keys()) {
      if (this.used.size <= this.most) break;
      this.drop(oldest);
    }
    return piece;
  }

  /** The file is closed. */
  forget(file: ByteSource): void {
    for (const piece of this.files.get(file)?.values() ?? []) this.used.delete(piece);
    this.files.delete(file);
  }

  private drop(piece: Piece): void {
    const place = this.used.get(piece);
    if (!place) return;
    this.used.delete(piece);
    const pieces = this.files.get(place.file)!;
    pieces.delete(place.index);
    if (pieces.size === 0) this.files.delete(place.file);
  }
}

/** Names of the tensors with a byte in `[start, end)` of a source. */
export type TensorsAt = (source: ByteSource, start: number, end: number) => Promise<string[]>;

/**
 * @param name of the file in the lock, for messages
 * @param pieces shared by the files of a model
 * @param tensorsAt names of the tensors in a range, from a source that is not to be trusted
 * @throws KontextError `weights-invalid` when the size differs; reading throws it with `damaged: true`, `offset` and `end` for a
 *   piece that is wrong also when it is read a second time
 */
export function verifiedBytes(
  source: ByteSource,
  entry: LockedFile,
  pieceBytes: number,
  name: string,
  pieces: VerifiedPieces,
  tensorsAt?: TensorsAt,
): ByteSource {
  if (source.size !== entry.size) {
    throw new KontextError(
      'weights-invalid',
      `${source.name} has ${source.size} bytes, ${entry.size} by its lock: it is damaged or of another release. Get it again, or lock it again.`,
      { file: source.name, size: source.size, expected: entry.size },
    );
  }
  const piece = (index: number): Piece =>
    pieces.get(source, index, () => readPiece(source, entry, pieceBytes, index, name, tensorsAt));
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
      pieces.forget(source);
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
