// T5's tokenizer: SentencePiece Unigram with its precompiled character map, as the FLUX checkpoints use it.
// Text in, padded ids out; the only state is the table that `t5Create` expands.
import * as ids from './ids';
import { Status, allocate, fail, mark, release, rewind, room, claim, scratch, scratchFor } from './memory';
import { expect, finished, open, raw, sound, tableError, varint } from './reader';
import { child, expandTrie, longest, matchEnd, trieBytes, valueOf } from './trie';
import { SPACE, categoryOf, clusterEnd, prepareUnicode } from './unicode';
import { decode, firstInvalid, sizeOf } from './utf8';

/** 'KT51', little-endian; also the first word of an expanded tokenizer. */
const MAGIC: u32 = 0x3135544b;

/** Flags of a table: what follows the character map, and where Metaspace puts its mark. */
const STRIP_RIGHT: u32 = 1;
const JOIN_SPACES: u32 = 2;
const PREFIX_FIRST: u32 = 4;
const PREFIX_ALWAYS: u32 = 8;
/** White space is where words end, and no part of them; every word gets a mark in front. */
const SPLIT_WHITE: u32 = 16;

/**
 * An expanded tokenizer: these fields, one i32 for each ASCII character (-1 unchanged, else offset of its replacement),
 * the scores as f64, the tries of special tokens and of pieces, the character map's double array and replacements.
 */
const EOS: usize = 4;
const PAD: usize = 8;
const UNK: usize = 12;
const FLAGS: usize = 16;
const PIECES: usize = 20;
const UNITS: usize = 24;
const UNIT_COUNT: usize = 28;
const STRINGS: usize = 32;
const STRINGS_END: usize = 36;
const SPECIAL: usize = 40;
const UNK_SCORE: usize = 48;
const ASCII: usize = 64;
const SCORES: usize = ASCII + 128 * 4;

/** What an unknown character costs below the worst piece (SentencePiece's kUnkPenalty). */
const UNK_PENALTY: f64 = 10;
/** ▁, U+2581, in UTF-8. */
const MARK_0: u32 = 0xe2;
const MARK_1: u32 = 0x96;
const MARK_2: u32 = 0x81;

/**
 * Expands a table of `buildT5Table` (sdk/src/host/tables.ts).
 *
 * @param table address from `allocate`; may be released afterwards
 * @returns a handle for `t5Encode`, to be given back with `release`; or INVALID_TABLE, OUT_OF_MEMORY
 */
export function t5Create(table: usize, bytes: i32): i32 {
  if (!prepareUnicode()) return fail(Status.OUT_OF_MEMORY, 0);
  const opened = open(table, bytes, MAGIC);
  if (opened < 0) return opened;
  const flags = varint();
  const size = varint();
  const specialNodes = varint();
  const pieceNodes = varint();
  const unitCount = varint();
  const stringBytes = varint();
  expect(size > 0 && specialNodes > 0 && pieceNodes > 0 && unitCount > 0);
  // Each of these takes at least a byte of the table, so a damaged count cannot ask for absurd memory.
  const limit = <u32>bytes;
  expect(size < limit && specialNodes < limit && pieceNodes < limit && unitCount < limit && stringBytes < limit);
  if (!sound()) return tableError();
  const special = <u32>SCORES + 8 * size;
  const pieces = special + trieBytes(specialNodes);
  const units = pieces + trieBytes(pieceNodes);
  const strings = units + 4 * unitCount;
  const handle = allocate(strings + stringBytes + 1);
  if (!handle) return fail(Status.OUT_OF_MEMORY, 0);
  store<u32>(handle, MAGIC);
  store<u32>(handle, below(size), EOS);
  store<u32>(handle, below(size), PAD);
  store<u32>(handle, below(size), UNK);
  store<u32>(handle, flags, FLAGS);
  store<u32>(handle, handle + special, SPECIAL);
  store<u32>(handle, handle + pieces, PIECES);
  store<u32>(handle, handle + units, UNITS);
  store<u32>(handle, unitCount, UNIT_COUNT);
  store<u32>(handle, handle + strings, STRINGS);
  store<u32>(handle, handle + strings + stringBytes, STRINGS_END);
  expandScores(handle, size);
  if (sound()) expandTrie(handle + special, specialNodes, size);
  if (sound()) expandTrie(handle + pieces, pieceNodes, size);
  const unitData = raw(4 * unitCount);
  const stringData = raw(stringBytes);
  expect(finished());
  if (!sound()) {
    release(handle);
    return tableError();
  }
  memory.copy(handle + units, unitData, 4 * unitCount);
  memory.copy(handle + strings, stringData, stringBytes);
  store<u8>(handle + strings + stringBytes, 0);
  expandAscii(handle);
  return <i32>handle;
}

/**
 * Tokenizes UTF-8 text: special tokens, character map, Metaspace, Unigram; writes `length` ids that end with the end token
 * and padding. A longer text is cut, and its last id is the end token.
 *
 * @param out address of `length` i32; 0 counts only
 * @returns the number of ids of the whole text, the end token included; or INVALID_UTF8, INVALID_LENGTH, INVALID_HANDLE, OUT_OF_MEMORY
 */
export function t5Encode(handle: usize, text: usize, bytes: i32, out: usize, length: i32): i32 {
  if (load<u32>(handle) != MAGIC) return fail(Status.INVALID_HANDLE, <i32>handle);
  if (length < 0) return fail(Status.INVALID_LENGTH, length);
  const invalid = firstInvalid(text, bytes);
  if (invalid >= 0) return fail(Status.INVALID_UTF8, invalid);
  ids.begin(out, length);
  const special = load<u32>(handle, SPECIAL);
  const end = text + bytes;
  let start = text;
  for (let at = text; at < end; ) {
    const id = longest(special, at, end);
    if (id < 0) {
      at++;
      continue;
    }
    const next = matchEnd;
    if (!section(handle, start, at, start == text)) return fail(Status.OUT_OF_MEMORY, bytes);
    ids.emit(id);
    at = next;
    start = next;
  }
  if (!section(handle, start, end, start == text)) return fail(Status.OUT_OF_MEMORY, bytes);
  return ids.end(load<i32>(handle, EOS), load<i32>(handle, PAD));
}

/** Text between special tokens: normalise, then encode each piece from one ▁ to the next. */
function section(handle: usize, start: usize, end: usize, first: bool): bool {
  if (start == end) return true;
  const here = mark();
  const flags = load<u32>(handle, FLAGS);
  const prefix = (flags & PREFIX_ALWAYS) != 0 || (first && (flags & PREFIX_FIRST) != 0);
  const text = normalise(handle, start, end, prefix);
  if (!text) return false;
  let from = text;
  for (let at = text; at < normalEnd; at += sizeOf(load<u8>(at))) {
    if (at > from && isMark(at)) {
      if (!encode(handle, from, <i32>(at - from))) return false;
      from = at;
    }
  }
  if (from < normalEnd && !encode(handle, from, <i32>(normalEnd - from))) return false;
  rewind(here);
  return true;
}

// @ts-ignore: decorator
@inline
function isMark(at: usize): bool {
  return load<u8>(at) == MARK_0 && load<u8>(at, 1) == MARK_1 && load<u8>(at, 2) == MARK_2;
}

/** End of what `normalise` wrote. */
let normalEnd: usize = 0;

/**
 * The character map by grapheme cluster, white space stripped at the end, spaces as ▁, with a ▁ in front where `prefix` asks.
 *
 * A cluster of less than six bytes is looked up whole, and the shortest prefix that the map knows replaces all of it;
 * longer clusters and those without a prefix go by character. (So the reference does; the model was trained on it.)
 */
function normalise(handle: usize, start: usize, end: usize, prefix: bool): usize {
  const mapped = scratch(0);
  let to = mapped;
  for (let at = start; at < end; ) {
    const byte: u32 = load<u8>(at);
    if (byte < 0x80 && byte != 0x0d && (at + 1 == end || load<u8>(at, 1) < 0x80)) {
      const replacement = load<i32>(handle + 4 * byte, ASCII);
      if (replacement < 0) {
        if (!room(to, 1)) return 0;
        store<u8>(to++, byte);
      } else {
        to = append(handle, to, replacement);
        if (!to) return 0;
      }
      at++;
      continue;
    }
    const next = clusterEnd(at, end);
    if (next - at < 6) {
      const replacement = lookUp(handle, at, next);
      if (replacement >= 0) {
        to = append(handle, to, replacement);
        if (!to) return 0;
        at = next;
        continue;
      }
    }
    while (at < next) {
      const size = sizeOf(load<u8>(at));
      const replacement = lookUp(handle, at, at + size);
      if (replacement >= 0) {
        to = append(handle, to, replacement);
        if (!to) return 0;
      } else {
        if (!room(to, 4)) return 0;
        memory.copy(to, at, size);
        to += size;
      }
      at += size;
    }
  }
  claim(to);
  return metaspace(handle, mapped, to, prefix);
}

/** Strips, joins and marks the mapped text into new scratch, because a one-byte space becomes a three-byte mark. */
function metaspace(handle: usize, text: usize, end: usize, prefix: bool): usize {
  const flags = load<u32>(handle, FLAGS);
  if (flags & STRIP_RIGHT) end = stripRight(text, end);
  const out = scratchFor(<u32>(end - text) + 1, 3);
  if (!out) return 0;
  let to = out;
  if (flags & SPLIT_WHITE) return markWords(flags, text, end, out);
  if (prefix && text < end && load<u8>(text) != 0x20 && !(end - text >= 3 && isMark(text))) to = putMark(to);
  while (text < end) {
    const byte = load<u8>(text++);
    if (byte != 0x20) {
      store<u8>(to++, byte);
      continue;
    }
    to = putMark(to);
    if (flags & JOIN_SPACES) while (text < end && load<u8>(text) == 0x20) text++;
  }
  normalEnd = to;
  return out;
}

/**
 * Words between white space, each with one mark in front; what the normaliser joined to a mark is no white space any more.
 * Each word but the first follows a byte that gives nothing, so that three bytes for each one are enough here too.
 */
function markWords(flags: u32, text: usize, end: usize, out: usize): usize {
  let to = out;
  let inWord = false;
  while (text < end) {
    const size = sizeOf(load<u8>(text));
    const joined = (flags & JOIN_SPACES) != 0 && load<u8>(text) == 0x20 && text + 1 < end && load<u8>(text, 1) == 0x20;
    if (joined) {
      while (text < end && load<u8>(text) == 0x20) text++;
      to = putMark(to);
      inWord = true;
    } else if (categoryOf(decode(text)) == SPACE) {
      text += size;
      inWord = false;
    } else {
      if (!inWord && !(end - text >= 3 && isMark(text))) to = putMark(to);
      memory.copy(to, text, size);
      to += size;
      text += size;
      inWord = true;
    }
  }
  normalEnd = to;
  return out;
}

function putMark(to: usize): usize {
  store<u8>(to, MARK_0);
  store<u8>(to, MARK_1, 1);
  store<u8>(to, MARK_2, 2);
  return to + 3;
}

function stripRight(text: usize, end: usize): usize {
  while (end > text) {
    let last = end - 1;
    while (last > text && (load<u8>(last) & 0xc0) == 0x80) last--;
    if (categoryOf(decode(last)) != SPACE) break;
    end = last;
  }
  return end;
}

/** Copies the zero-ended replacement at `offset` to `to`; returns the address after it, or 0 when memory cannot grow. */
function append(handle: usize, to: usize, offset: i32): usize {
  let from = load<u32>(handle, STRINGS) + offset;
  while (true) {
    const byte = load<u8>(from++);
    if (!byte) return to;
    if (!room(to, 1)) return 0;
    store<u8>(to++, byte);
  }
}

/**
 * Offset of the replacement for the shortest prefix of the text in the character map, or -1.
 *
 * The map is a double array in Darts-clone's format: bits 0–7 and 31 of a unit are its label, bit 8 says that it has a
 * leaf, bits 10–30 are the offset to its children (shifted by 8 more where bit 9 is set); a leaf is 31 bits of value.
 */
function lookUp(handle: usize, at: usize, end: usize): i32 {
  const units = load<u32>(handle, UNITS);
  const count = load<u32>(handle, UNIT_COUNT);
  let node = childrenOf(load<u32>(units));
  for (; at < end; at++) {
    const byte: u32 = load<u8>(at);
    if (!byte) return -1;
    node ^= byte;
    if (node >= count) return -1;
    const unit = load<u32>(units + 4 * node);
    if ((unit & 0x800000ff) != byte) return -1;
    node ^= childrenOf(unit);
    if (unit & 0x100) {
      if (node >= count) return -1;
      const value = load<u32>(units + 4 * node) & 0x7fffffff;
      return value <= load<u32>(handle, STRINGS_END) - load<u32>(handle, STRINGS) ? <i32>value : -1;
    }
  }
  return -1;
}

// @ts-ignore: decorator
@inline
function childrenOf(unit: u32): u32 {
  return (unit >> 10) << ((unit & 0x200) >> 6);
}

/**
 * Unigram by Viterbi over byte positions: the segmentation of the highest sum of scores, in f64; of equals the one whose
 * last piece starts first. Characters that no piece covers cost UNK_PENALTY below the worst piece; a run of them is one id.
 */
function encode(handle: usize, text: usize, length: i32): bool {
  const here = mark();
  // For each end position: the score, the start of the piece that ends there (-1: none yet) and its id.
  const best = scratchFor(length + 1, 16);
  if (!best) return false;
  const pieces = load<u32>(handle, PIECES);
  const unk = load<i32>(handle, UNK);
  const unkScore = load<f64>(handle, UNK_SCORE);
  for (let i = 0; i <= length; i++) store<i32>(best + 16 * i, -1, 8);
  store<f64>(best, 0);
  for (let start = 0; start < length; ) {
    const reached = load<f64>(best + 16 * start);
    const size = <i32>sizeOf(load<u8>(text + start));
    let single = false;
    let node: u32 = 0;
    for (let at = start; at < length; ) {
      node = child(pieces, node, load<u8>(text + at));
      if (!node) break;
      at++;
      const id = valueOf(pieces, node);
      if (id < 0) continue;
      offer(best + 16 * at, reached + load<f64>(handle + 8 * id, SCORES), start, id);
      if (at - start == size) single = true;
    }
    if (!single) offer(best + 16 * (start + size), reached + unkScore, start, unk);
    start += size;
  }
  // Walk back, turning the links round, then emit from the front.
  let end = length;
  let next: i32 = -1;
  while (end > 0) {
    const node = best + 16 * end;
    const start = load<i32>(node, 8);
    store<i32>(node, next, 8);
    next = end;
    end = start;
  }
  let previous: i32 = -1;
  while (next > 0) {
    const node = best + 16 * next;
    const id = load<i32>(node, 12);
    if (id != unk || previous != unk) ids.emit(id);
    previous = id;
    next = load<i32>(node, 8);
  }
  rewind(here);
  return true;
}

// @ts-ignore: decorator
@inline
function offer(node: usize, score: f64, start: i32, id: i32): void {
  if (load<i32>(node, 8) >= 0 && score <= load<f64>(node)) return;
  store<f64>(node, score);
  store<i32>(node, start, 8);
  store<i32>(node, id, 12);
}

/** Reads the scores, f32 in the file where that loses nothing, and derives the unknown character's. */
function expandScores(handle: usize, size: u32): void {
  const width = varint();
  expect(width == 4 || width == 8);
  const data = raw(width * size);
  if (!sound()) return;
  let worst: f64 = 0;
  for (let id: u32 = 0; id < size; id++) {
    const score: f64 = width == 4 ? <f64>load<f32>(data + 4 * id) : load<f64>(data + 8 * id);
    expect(isFinite(score));
    if (id == 0 || score < worst) worst = score;
    store<f64>(handle + 8 * id, score, SCORES);
  }
  store<f64>(handle, worst - UNK_PENALTY, UNK_SCORE);
}

/** Looks every ASCII character up once: prompts are mostly made of them. */
function expandAscii(handle: usize): void {
  for (let c = 0; c < 128; c++) {
    const slot = handle + ASCII + 4 * c;
    store<u8>(slot, c);
    store<i32>(slot, lookUp(handle, slot, slot + 1));
  }
}

function below(limit: u32): u32 {
  const value = varint();
  expect(value < limit);
  return value;
}
