// The module's memory: long-lived blocks at the bottom, a scratch arena above them, and the error codes.
// Managed AssemblyScript objects would need a collector and could never be proved not to grow; two pointers can.

/** Results below zero are errors. Codes from -100 down belong to schedule, random and resize. */
export namespace Status {
  export const OUT_OF_MEMORY: i32 = -1;
  /** errorDetail() is the byte offset of the first bad byte. */
  export const INVALID_UTF8: i32 = -2;
  /** errorDetail() is the byte offset inside the table where the check failed. */
  export const INVALID_TABLE: i32 = -3;
  /** errorDetail() is the refused value. */
  export const INVALID_LENGTH: i32 = -4;
  /** A handle that no `…Create` returned, or one that was released. errorDetail() is the handle. */
  export const INVALID_HANDLE: i32 = -5;
}

const ALIGNMENT: usize = 16;
const HEADER: usize = 16;
/** Bit 0 of a block's size word; sizes are multiples of 16. */
const USED: u32 = 1;
const PAGE: usize = 65536;

const base: usize = (__heap_base + 15) & ~15;
/** End of the last block, where scratch begins. */
let top: usize = base;
/** End of the scratch in use. */
let cursor: usize = base;
/** End of memory at the last look; `room` is called for every character. */
let limit: usize = 0;
let detail: i32 = 0;

/**
 * Reserves `bytes` that stay until `release`. Invalidates all scratch memory.
 *
 * @returns a 16-byte aligned address, or 0 when memory cannot grow
 */
export function allocate(bytes: u32): usize {
  if (bytes > 0xfffeffe0) return 0;
  // Never without a payload: `release` clears its first word.
  const need = (<usize>max(bytes, 1) + HEADER + ALIGNMENT - 1) & ~(ALIGNMENT - 1);
  let block = base;
  while (block < top) {
    const size = load<u32>(block);
    if (!(size & USED) && <usize>size >= need) {
      if (<usize>size > need) store<u32>(block + need, size - <u32>need);
      store<u32>(block, <u32>need | USED);
      cursor = top;
      return block + HEADER;
    }
    block += size & ~USED;
  }
  if (!reach(top, need)) return 0;
  store<u32>(top, <u32>need | USED);
  block = top;
  top += need;
  cursor = top;
  return block + HEADER;
}

/**
 * Gives a block of `allocate` back; neighbouring free blocks become one. Invalidates all scratch memory.
 *
 * @returns 1, or 0 when `address` is no live block
 */
export function release(address: usize): i32 {
  let block = base;
  let previous: usize = 0;
  while (block < top) {
    const size = load<u32>(block);
    if (block + HEADER == address) {
      if (!(size & USED)) return 0;
      // Tokenizers start with a magic word: without it a handle that was released is recognised.
      store<u32>(address, 0);
      let length = size & ~USED;
      const next = block + length;
      if (next < top && !(load<u32>(next) & USED)) length += load<u32>(next);
      if (previous) {
        length += load<u32>(previous);
        block = previous;
      }
      store<u32>(block, length);
      if (block + length == top) top = block;
      cursor = top;
      return 1;
    }
    previous = size & USED ? 0 : block;
    block += size & ~USED;
  }
  return 0;
}

/**
 * Takes `bytes` from the scratch arena; valid until `reset`, `allocate` or `release`.
 *
 * @returns a 16-byte aligned address, or 0 when memory cannot grow
 */
export function scratch(bytes: u32): usize {
  return scratchFor(bytes, 1);
}

/** Scratch for `count` items of `size` bytes. In 64 bits, because a huge text's product wraps round in 32. */
export function scratchFor(count: u32, size: u32): usize {
  const bytes = <u64>count * size;
  if (bytes > 0xfffefff0) return 0;
  const need = (<usize>bytes + ALIGNMENT - 1) & ~(ALIGNMENT - 1);
  if (!reach(cursor, need)) return 0;
  const address = cursor;
  cursor += need;
  return address;
}

/** Empties the scratch arena. Call it once per task, before the first `scratch`. */
export function reset(): void {
  cursor = top;
}

/** The number that belongs to the last error: see the error's code. */
export function errorDetail(): i32 {
  return detail;
}

/** Records the error's number and returns its code, so that callers can write `return fail(…)`. */
export function fail(code: i32, value: i32): i32 {
  detail = value;
  return code;
}

/** The scratch position, for a function that gives back what it took with `rewind`. */
export function mark(): usize {
  return cursor;
}

export function rewind(position: usize): void {
  cursor = position;
}

/** Whether `bytes` after `position`, at or above the scratch in use, can be written: for output of unknown length. */
// @ts-ignore: decorator
@inline
export function room(position: usize, bytes: usize): bool {
  return position + bytes <= limit || reach(position, bytes);
}

/** Makes everything below `end` scratch in use, after writing there with `room`. */
export function claim(end: usize): void {
  cursor = (end + ALIGNMENT - 1) & ~(ALIGNMENT - 1);
}

function reach(start: usize, bytes: usize): bool {
  const end = <u64>start + <u64>bytes;
  if (end > 0xffff0000) return false;
  const have = <u64>memory.size() * PAGE;
  if (end > have && memory.grow(<i32>((end - have + PAGE - 1) / PAGE)) < 0) return false;
  limit = <usize>memory.size() * PAGE;
  return true;
}
