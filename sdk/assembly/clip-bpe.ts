// CLIP's tokenizer: byte-level BPE with an end-of-word mark, as the FLUX checkpoints use it.
// Text in, padded ids out; the only state is the table that `clipCreate` expands.
import * as ids from './ids';
import { Status, allocate, fail, mark, release, rewind, scratch, scratchFor } from './memory';
import { expect, finished, open, sound, tableError, varint } from './reader';
import { expandTrie, longest, matchEnd, trieBytes } from './trie';
import { LETTER, NUMBER, SPACE, categoryOf, composeNfc, encodeLower, mayChangeInNfc, nfcPoints, prepareUnicode } from './unicode';
import { decode, firstInvalid, sizeOf } from './utf8';

/** 'KCL1', little-endian; also the first word of an expanded tokenizer. */
const MAGIC: u32 = 0x314c434b;
/** 'KCL2': the same table, of a tokenizer whose splitting pattern begins with the two marks. */
const MAGIC_MARKS: u32 = 0x324c434b;

/**
 * An expanded tokenizer: these fields, then the ids of the 256 bytes inside a word and at its end, the tries of special
 * tokens (looked for in the raw and in the normalised text), and the merges as a hash table of (left, right, rank, result).
 */
const BOS: usize = 4;
const EOS: usize = 8;
const PAD: usize = 12;
const NORMAL_TRIE: usize = 16;
const MERGES: usize = 20;
const MASK: usize = 24;
const MARKS: usize = 28;
const INNER: usize = 32;
const FINAL: usize = INNER + 1024;
const RAW_TRIE: usize = FINAL + 1024;

const NONE: u32 = 0xffffffff;
/** Words up to here are merged by scanning, longer ones with a heap. Both give the same ids; scanning wins on short words. */
const SCAN_LIMIT: i32 = 96;

/**
 * Expands a table of `buildClipTable` (sdk/src/host/tables.ts).
 *
 * @param table address from `allocate`; may be released afterwards
 * @returns a handle for `clipEncode`, to be given back with `release`; or INVALID_TABLE, OUT_OF_MEMORY
 */
export function clipCreate(table: usize, bytes: i32): i32 {
  if (!prepareUnicode()) return fail(Status.OUT_OF_MEMORY, 0);
  const marks = bytes >= 4 && load<u32>(table) == MAGIC_MARKS;
  const opened = open(table, bytes, marks ? MAGIC_MARKS : MAGIC);
  if (opened < 0) return opened;
  const size = varint();
  const rawNodes = varint();
  const normalNodes = varint();
  const mergeCount = varint();
  expect(size > 0 && rawNodes > 0 && normalNodes > 0);
  // Each of these takes at least a byte of the table, so a damaged count cannot ask for absurd memory.
  expect(rawNodes < <u32>bytes && normalNodes < <u32>bytes && mergeCount < <u32>bytes);
  if (!sound()) return tableError();
  // A quarter to a half full: most look-ups are for pairs that do not merge, and end at the first empty slot.
  let slots: u32 = 16;
  while (slots < mergeCount * 2) slots <<= 1;
  const normalTrie = <u32>RAW_TRIE + trieBytes(rawNodes);
  const merges = normalTrie + trieBytes(normalNodes);
  const handle = allocate(merges + slots * 16);
  if (!handle) return fail(Status.OUT_OF_MEMORY, 0);
  store<u32>(handle, MAGIC);
  store<u32>(handle, below(size), BOS);
  store<u32>(handle, below(size), EOS);
  store<u32>(handle, below(size), PAD);
  store<u32>(handle, handle + normalTrie, NORMAL_TRIE);
  store<u32>(handle, handle + merges, MERGES);
  store<u32>(handle, slots - 1, MASK);
  store<u32>(handle, marks, MARKS);
  for (let byte = 0; byte < 256; byte++) store<u32>(handle + 4 * byte, below(size), INNER);
  for (let byte = 0; byte < 256; byte++) store<u32>(handle + 4 * byte, below(size), FINAL);
  expandTrie(handle + RAW_TRIE, rawNodes, size);
  if (sound()) expandTrie(handle + normalTrie, normalNodes, size);
  if (sound()) expandMerges(handle + merges, slots - 1, mergeCount, size);
  expect(finished());
  if (sound()) return <i32>handle;
  release(handle);
  return tableError();
}

/**
 * Tokenizes UTF-8 text: special tokens, NFC, white space, lower case, splitting, BPE; writes `length` ids, from the begin
 * token to the end token and padding. A longer text is cut, and its last id is the end token.
 *
 * @param out address of `length` i32; `length` is 0 (count only) or at least 2
 * @returns the number of ids of the whole text, both marks included; or INVALID_UTF8, INVALID_LENGTH, INVALID_HANDLE, OUT_OF_MEMORY
 */
export function clipEncode(handle: usize, text: usize, bytes: i32, out: usize, length: i32): i32 {
  if (load<u32>(handle) != MAGIC) return fail(Status.INVALID_HANDLE, <i32>handle);
  if (length < 0 || length == 1) return fail(Status.INVALID_LENGTH, length);
  const invalid = firstInvalid(text, bytes);
  if (invalid >= 0) return fail(Status.INVALID_UTF8, invalid);
  ids.begin(out, length);
  ids.emit(load<i32>(handle, BOS));
  const end = text + bytes;
  let start = text;
  for (let at = text; at < end; ) {
    const id = longest(handle + RAW_TRIE, at, end);
    if (id < 0) {
      at++;
      continue;
    }
    const next = matchEnd;
    if (!section(handle, start, at)) return fail(Status.OUT_OF_MEMORY, bytes);
    ids.emit(id);
    at = next;
    start = next;
  }
  if (!section(handle, start, end)) return fail(Status.OUT_OF_MEMORY, bytes);
  return ids.end(load<i32>(handle, EOS), load<i32>(handle, PAD));
}

/** Text between special tokens: normalise, look for the special tokens that are defined on normalised text, split into words. */
function section(handle: usize, start: usize, end: usize): bool {
  if (start == end) return true;
  const here = mark();
  const text = normalise(start, end);
  if (!text) return false;
  const trie = load<u32>(handle, NORMAL_TRIE);
  let from = text;
  for (let at = text; at < normalEnd; ) {
    const id = longest(trie, at, normalEnd);
    if (id < 0) {
      at++;
      continue;
    }
    const next = matchEnd;
    if (!words(handle, from, at)) return false;
    ids.emit(id);
    at = next;
    from = next;
  }
  if (!words(handle, from, normalEnd)) return false;
  rewind(here);
  return true;
}

/** End of what `normalise` wrote. */
let normalEnd: usize = 0;

/** NFC, then every run of white space to one space, then lower case of each character. Returns 0 when memory cannot grow. */
function normalise(start: usize, end: usize): usize {
  let inert = true;
  let ascii = true;
  for (let at = start; at < end; at += sizeOf(load<u8>(at))) {
    if (load<u8>(at) < 0x80) continue;
    ascii = false;
    if (mayChangeInNfc(decode(at))) {
      inert = false;
      break;
    }
  }
  if (ascii) return normaliseAscii(start, end);
  let count: i32 = 0;
  if (!inert) {
    count = composeNfc(start, end);
    if (count < 0) return 0;
  }
  // The longest growth by lower case is from two bytes to three (U+023A, U+0130).
  const out = inert ? scratchFor(<u32>(end - start), 2) : scratchFor(count, 4);
  if (!out) return 0;
  let to = out;
  let spaced = false;
  const points = nfcPoints;
  for (let at = start, i = 0; inert ? at < end : i < count; ) {
    let c: u32;
    if (inert) {
      c = decode(at);
      at += sizeOf(load<u8>(at));
    } else c = load<u32>(points + 4 * i++);
    if (categoryOf(c) == SPACE) {
      if (!spaced) store<u8>(to++, 0x20);
      spaced = true;
    } else {
      to = encodeLower(to, c);
      spaced = false;
    }
  }
  normalEnd = to;
  return out;
}

function normaliseAscii(start: usize, end: usize): usize {
  const out = scratch(<u32>(end - start));
  if (!out) return 0;
  let to = out;
  let spaced = false;
  for (let at = start; at < end; at++) {
    const c: u32 = load<u8>(at);
    if (c == 0x20 || c - 9 < 5) {
      if (!spaced) store<u8>(to++, 0x20);
      spaced = true;
    } else {
      store<u8>(to++, c - 65 < 26 ? c + 32 : c);
      spaced = false;
    }
  }
  normalEnd = to;
  return out;
}

/**
 * `'s|'t|'re|'ve|'m|'ll|'d|\p{L}+|\p{N}|[^\s\p{L}\p{N}]+`, each match a word.
 *
 * With MARKS the pattern also matches the two marks where a word may begin (in text that was not written like that, but lower-cased
 * to it), and the byte level's own pattern cuts the match in three: so punctuation after a mark begins another word.
 */
function words(handle: usize, at: usize, end: usize): bool {
  const marks = load<u32>(handle, MARKS) != 0;
  while (at < end) {
    const start = at;
    let c = decode(at);
    const name = marks && c == 0x3c ? markName(at, end) : 0;
    if (name) {
      const close = start + 2 + name;
      if (!word(handle, start, 2) || !word(handle, start + 2, <i32>name) || !word(handle, close, 2)) return false;
      at = close + 2;
      continue;
    }
    at += sizeOf(load<u8>(at));
    const category = categoryOf(c);
    if (category == SPACE) continue;
    if (category == LETTER) {
      while (at < end && categoryOf(decode(at)) == LETTER) at += sizeOf(load<u8>(at));
    } else if (category != NUMBER) {
      const suffix = c == 0x27 ? contraction(at, end) : 0;
      if (suffix) at += suffix;
      else while (at < end && !categoryOf(decode(at))) at += sizeOf(load<u8>(at));
    }
    if (!word(handle, start, <i32>(at - start))) return false;
  }
  return true;
}

/** Length of the name in `<|startoftext|>` or `<|endoftext|>`, when one of them is at `at`; else 0. */
function markName(at: usize, end: usize): usize {
  let from = at;
  if (!spells(from, end, '<|')) return 0;
  from += 2;
  const name: usize = spells(from, end, 'startoftext') ? 11 : spells(from, end, 'endoftext') ? 9 : 0;
  return name && spells(from + name, end, '|>') ? name : 0;
}

function spells(at: usize, end: usize, ascii: string): bool {
  if (end - at < <usize>ascii.length) return false;
  for (let i = 0; i < ascii.length; i++) if (load<u8>(at + i) != <u8>ascii.charCodeAt(i)) return false;
  return true;
}

/** Length of the contraction that follows an apostrophe, or 0. */
function contraction(at: usize, end: usize): usize {
  if (at >= end) return 0;
  const c: u32 = load<u8>(at);
  if (c == 0x73 || c == 0x74 || c == 0x6d || c == 0x64) return 1; // s t m d
  if (at + 1 >= end) return 0;
  const d: u32 = load<u8>(at, 1);
  return ((c == 0x72 || c == 0x76) && d == 0x65) || (c == 0x6c && d == 0x6c) ? 2 : 0; // re ve ll
}

/** Byte-pair encoding of one word: the pair of lowest rank merges first, the leftmost of equals. */
function word(handle: usize, text: usize, length: i32): bool {
  if (length == 1) {
    ids.emit(load<i32>(handle + 4 * <usize>load<u8>(text), FINAL));
    return true;
  }
  const here = mark();
  const symbols = scratchFor(length, 4);
  const ranks = scratchFor(length, 4);
  if (!symbols || !ranks) return false;
  for (let i = 0; i < length; i++) {
    store<u32>(symbols + 4 * i, load<u32>(handle + 4 * <usize>load<u8>(text + i) + (i == length - 1 ? FINAL : INNER)));
  }
  const merges = load<u32>(handle, MERGES);
  const mask = load<u32>(handle, MASK);
  for (let i = 0; i < length - 1; i++) {
    store<u32>(ranks + 4 * i, rankOf(merges, mask, load<u32>(symbols + 4 * i), load<u32>(symbols + 4 * i, 4)));
  }
  store<u32>(ranks + 4 * (length - 1), NONE);
  if (length <= SCAN_LIMIT) mergeByScan(merges, mask, symbols, ranks, length);
  else if (!mergeByHeap(merges, mask, symbols, ranks, length)) return false;
  rewind(here);
  return true;
}

function mergeByScan(merges: usize, mask: u32, symbols: usize, ranks: usize, length: i32): void {
  while (length > 1) {
    let best = NONE;
    let at: i32 = 0;
    for (let i = 0; i < length - 1; i++) {
      const rank = load<u32>(ranks + 4 * i);
      if (rank < best) {
        best = rank;
        at = i;
      }
    }
    if (best == NONE) break;
    const left = symbols + 4 * at;
    rankOf(merges, mask, load<u32>(left), load<u32>(left, 4));
    store<u32>(left, merged);
    length--;
    memory.copy(left + 4, left + 8, 4 * (length - 1 - at));
    memory.copy(ranks + 4 * at, ranks + 4 * at + 4, 4 * (length - at));
    if (at > 0) store<u32>(ranks + 4 * at - 4, rankOf(merges, mask, load<u32>(left - 4), load<u32>(left)));
    if (at < length - 1) store<u32>(ranks + 4 * at, rankOf(merges, mask, load<u32>(left), load<u32>(left, 4)));
  }
  for (let i = 0; i < length; i++) ids.emit(load<i32>(symbols + 4 * i));
}

/** The same with a heap of (rank, position), O(n log n): a megabyte without a space must not take minutes. */
function mergeByHeap(merges: usize, mask: u32, symbols: usize, ranks: usize, length: i32): bool {
  // Each merge adds at most two entries and takes one symbol away.
  const heap = scratchFor(length, 24);
  const links = scratchFor(length, 8);
  if (!heap || !links) return false;
  let size: i32 = 0;
  for (let i = 0; i < length; i++) {
    store<i32>(links + 8 * i, i - 1);
    store<i32>(links + 8 * i, i + 1, 4);
    const rank = load<u32>(ranks + 4 * i);
    if (rank != NONE) size = push(heap, size, rank, i);
  }
  while (size > 0) {
    const top = load<u64>(heap);
    size = pop(heap, size);
    const at = <i32>top;
    if (load<u32>(ranks + 4 * at) != <u32>(top >> 32)) continue; // an entry of a pair that is no more
    const right = load<i32>(links + 8 * at, 4);
    rankOf(merges, mask, load<u32>(symbols + 4 * at), load<u32>(symbols + 4 * right));
    store<u32>(symbols + 4 * at, merged);
    store<u32>(ranks + 4 * right, NONE);
    const after = load<i32>(links + 8 * right, 4);
    store<i32>(links + 8 * at, after, 4);
    let rank = NONE;
    if (after < length) {
      store<i32>(links + 8 * after, at);
      rank = rankOf(merges, mask, load<u32>(symbols + 4 * at), load<u32>(symbols + 4 * after));
      if (rank != NONE) size = push(heap, size, rank, at);
    }
    store<u32>(ranks + 4 * at, rank);
    const before = load<i32>(links + 8 * at);
    if (before >= 0) {
      rank = rankOf(merges, mask, load<u32>(symbols + 4 * before), load<u32>(symbols + 4 * at));
      if (rank != NONE) size = push(heap, size, rank, before);
      store<u32>(ranks + 4 * before, rank);
    }
  }
  for (let i = 0; i < length; i = load<i32>(links + 8 * i, 4)) ids.emit(load<i32>(symbols + 4 * i));
  return true;
}

function push(heap: usize, size: i32, rank: u32, position: i32): i32 {
  const entry = (<u64>rank << 32) | <u64>position;
  let at = size;
  while (at > 0) {
    const parent = (at - 1) >> 1;
    const other = load<u64>(heap + 8 * parent);
    if (other <= entry) break;
    store<u64>(heap + 8 * at, other);
    at = parent;
  }
  store<u64>(heap + 8 * at, entry);
  return size + 1;
}

function pop(heap: usize, size: i32): i32 {
  size--;
  const entry = load<u64>(heap + 8 * size);
  let at: i32 = 0;
  while (true) {
    let next = 2 * at + 1;
    if (next >= size) break;
    if (next + 1 < size && load<u64>(heap + 8 * next, 8) < load<u64>(heap + 8 * next)) next++;
    const other = load<u64>(heap + 8 * next);
    if (entry <= other) break;
    store<u64>(heap + 8 * at, other);
    at = next;
  }
  store<u64>(heap + 8 * at, entry);
  return size;
}

/** What the pair of the last successful `rankOf` becomes. */
let merged: u32 = 0;

function rankOf(merges: usize, mask: u32, left: u32, right: u32): u32 {
  let slot = hash(left, right) & mask;
  while (true) {
    const entry = merges + 16 * <usize>slot;
    const rank = load<u32>(entry, 8);
    if (rank == NONE) return NONE;
    if (load<u32>(entry) == left && load<u32>(entry, 4) == right) {
      merged = load<u32>(entry, 12);
      return rank;
    }
    slot = (slot + 1) & mask;
  }
}

// @ts-ignore: decorator
@inline
function hash(left: u32, right: u32): u32 {
  const mixed = (left * 0x9e3779b1) ^ (right * 0x85ebca77);
  return mixed ^ (mixed >> 15);
}

/** Reads `count` merges in order of rank: left, right, result. A later merge of the same pair replaces the earlier, as a map would. */
function expandMerges(merges: usize, mask: u32, count: u32, size: u32): void {
  memory.fill(merges, 0xff, 16 * (<usize>mask + 1));
  for (let rank: u32 = 0; rank < count; rank++) {
    const left = below(size);
    const right = below(size);
    const result = below(size);
    if (!sound()) return;
    let slot = hash(left, right) & mask;
    let entry = merges + 16 * <usize>slot;
    while (load<u32>(entry, 8) != NONE && (load<u32>(entry) != left || load<u32>(entry, 4) != right)) {
      slot = (slot + 1) & mask;
      entry = merges + 16 * <usize>slot;
    }
    store<u32>(entry, left);
    store<u32>(entry, right, 4);
    store<u32>(entry, rank, 8);
    store<u32>(entry, result, 12);
  }
}

function below(limit: u32): u32 {
  const value = varint();
  expect(value < limit);
  return value;
}
