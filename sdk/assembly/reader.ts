// Reads the header and the varints of a vocabulary table.
// A table may be truncated or damaged: every read is bounded, and the first bad offset is remembered.
import { Status, fail } from './memory';

let base: usize = 0;
let position: usize = 0;
let end: usize = 0;
let badAt: i32 = -1;

/** Magic, length, checksum. */
const HEADER: i32 = 12;

/**
 * Starts reading the table at `table`: u32 magic, u32 length of the whole table, u32 checksum of what follows.
 *
 * @returns 0, or Status.INVALID_TABLE
 */
export function open(table: usize, bytes: i32, magic: u32): i32 {
  if (bytes < HEADER || load<u32>(table) != magic) return fail(Status.INVALID_TABLE, 0);
  if (load<u32>(table, 4) != bytes) return fail(Status.INVALID_TABLE, 4);
  if (load<u32>(table, 8) != checksum(table + HEADER, bytes - HEADER)) return fail(Status.INVALID_TABLE, 8);
  base = table;
  position = table + HEADER;
  end = table + bytes;
  badAt = -1;
  return 0;
}

/** FNV-1a over little-endian words, the tail zero-padded: a byte at a time would cost a millisecond. */
function checksum(data: usize, bytes: i32): u32 {
  let hash: u32 = 0x811c9dc5;
  const words = data + (bytes & ~3);
  for (let at = data; at < words; at += 4) hash = (hash ^ load<u32>(at)) * 0x01000193;
  let tail: u32 = 0;
  for (let i = 0; i < (bytes & 3); i++) tail |= <u32>load<u8>(words + i) << (8 * i);
  return (hash ^ tail) * 0x01000193;
}

/** Whether every read so far was inside the table and every `expect` held. */
export function sound(): bool {
  return badAt < 0;
}

/** The error of the first read that failed. */
export function tableError(): i32 {
  return fail(Status.INVALID_TABLE, badAt);
}

/** Records the current offset as bad unless `condition`. */
export function expect(condition: bool): void {
  if (!condition && badAt < 0) badAt = <i32>(position - base);
}

export function varint(): u32 {
  let value: u32 = 0;
  for (let shift: u32 = 0; shift < 35; shift += 7) {
    if (position >= end) {
      expect(false);
      return 0;
    }
    const byte: u32 = load<u8>(position++);
    value |= (byte & 127) << shift;
    if (byte < 128) return value;
  }
  expect(false);
  return 0;
}

/** Address of `bytes` raw bytes, which are skipped; 0 when the table ends before them. */
export function raw(bytes: u32, alignment: usize = 1): usize {
  const start = (position - base + alignment - 1) / alignment * alignment + base;
  if (<u64>start + bytes > <u64>end) {
    expect(false);
    return 0;
  }
  position = start + bytes;
  return start;
}

/** Whether the table was read to its last byte. */
export function finished(): bool {
  return position == end;
}
