// A lock: what every byte of a model's files must be, as SHA-256 of pieces, in a file beside them.
// Pieces rather than whole files, because weights are read by range and must be known good before anything runs on them.
import { KontextError } from '../../errors.ts';

/** Name of the lock in a model's folder. */
export const LOCK_FILE = 'kontext.lock.json';
/** Small enough that reading one tensor does not mean reading a file, large enough that the lock of 33 GB is half a megabyte. */
export const PIECE_BYTES = 4 * 2 ** 20;
/** A lock is read whole: this one would be of two terabytes. */
export const MAX_LOCK_BYTES = 64 * 2 ** 20;

/** Hashes of one file. */
export interface LockedFile {
  size: number;
  /** SHA-256 in hexadecimal of each piece; the last may be shorter. */
  sha256: string[];
}

/** The contents of a {@link LOCK_FILE}. */
export interface Lock {
  /** Of this format. */
  version: 1;
  pieceBytes: number;
  /** By name below the folder, with `/` between folders. A file that is not here is no part of the model. */
  files: Record<string, LockedFile>;
}

/** Checks a lock from outside. @throws KontextError `weights-invalid` */
export function checkLock(value: Readonly<Record<string, unknown>>, label: string): Lock {
  const refuse = (problem: string) =>
    new KontextError(
      'weights-invalid',
      `${label} is not a usable lock: ${problem}. Write it again with kontext lock.`,
      {
        file: label,
      },
    );
  const { version, pieceBytes, files } = value;
  if (version !== 1) throw refuse('it has another version than 1');
  if (!Number.isSafeInteger(pieceBytes) || (pieceBytes as number) < 4096 || (pieceBytes as number) > MAX_LOCK_BYTES) {
    throw refuse('its pieceBytes are out of range');
  }
  if (typeof files !== 'object' || files === null || Array.isArray(files)) throw refuse('it has no files');
  const checked: Lock['files'] = Object.create(null);
  for (const [name, entry] of Object.entries(files)) {
    const { size, sha256 } = (entry ?? {}) as Partial<LockedFile>;
    if (!Number.isSafeInteger(size) || size! < 0) throw refuse(`the size of ${shown(name)} is none`);
    const pieces = Math.ceil(size! / (pieceBytes as number));
    if (!Array.isArray(sha256) || sha256.length !== pieces || !sha256.every(isHash)) {
      throw refuse(`${shown(name)} does not have ${pieces} hashes`);
    }
    checked[name] = { size: size!, sha256 };
  }
  return { version: 1, pieceBytes: pieceBytes as number, files: checked };
}

/** SHA-256 in hexadecimal. */
export async function sha256(bytes: Uint8Array<ArrayBuffer>): Promise<string> {
  const hash = new Uint8Array(await crypto.subtle.digest('SHA-256', bytes));
  return Array.from(hash, (byte) => byte.toString(16).padStart(2, '0')).join('');
}

const isHash = (value: unknown): boolean => typeof value === 'string' && /^[\da-f]{64}$/.test(value);
const shown = (name: string) => JSON.stringify(name.slice(0, 200));
