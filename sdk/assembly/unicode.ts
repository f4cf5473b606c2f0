// Unicode look-ups for both tokenizers: character classes, grapheme clusters, lower case, NFC.
// The compact streams of unicode-data.ts are expanded once, when the first tokenizer starts, into tables with direct access.
import { allocate, mark, rewind, scratch, scratchFor } from './memory';
import { decode, encode, sizeOf } from './utf8';
import {
  COMBINING, COMBINING_BYTES, COMPOSITION_COUNT, COMPOSITIONS, DECOMPOSITION_COUNT, DECOMPOSITION_PARTS, DECOMPOSITIONS,
  LOWERCASE, LOWERCASE_COUNT, PROPERTIES, PROPERTIES_BYTES,
} from './unicode-data';

/** Categories of CLIP's splitting pattern: `\p{L}`, `\p{N}`, White_Space. */
export const LETTER: u32 = 1;
export const NUMBER: u32 = 2;
export const SPACE: u32 = 3;

/** Grapheme_Cluster_Break values (UAX #29, table 2), as scripts/build-unicode.ts writes them. */
const CR: u32 = 1;
const LF: u32 = 2;
const CONTROL: u32 = 3;
const EXTEND: u32 = 4;
const ZWJ: u32 = 5;
const REGIONAL: u32 = 6;
const PREPEND: u32 = 7;
const SPACING_MARK: u32 = 8;
const L: u32 = 9;
const V: u32 = 10;
const T: u32 = 11;
const LV: u32 = 12;
const LVT: u32 = 13;
const PICTOGRAPH: u32 = 14;

/** All assigned characters are below the first limit or in the tag block; every other one has property 0. */
const DIRECT: u32 = 0x34000;
const TAGS: u32 = 0xe0000;
const TAGS_SIZE: u32 = 0x1000;

const COMBINING_LIMIT: i32 = <i32>(COMBINING_BYTES / 2);

let properties: usize = 0;
/** Sorted characters, then one class byte for each. */
let combining: usize = 0;
let combiningCount: i32 = 0;
/** Sorted characters, then the index of each one's first part, then the parts. */
let decompositions: usize = 0;
/** Sorted u64 keys (first << 32 | second), then the composites. */
let compositions: usize = 0;
/** Four u32 a run: first, last, step, distance. */
let lowercase: usize = 0;

/** Expands the tables unless that was done; false when memory cannot grow. Invalidates scratch memory. */
export function prepareUnicode(): bool {
  if (properties) return true;
  const start = allocate(
    DIRECT + TAGS_SIZE + COMBINING_LIMIT * 5 + 16 + DECOMPOSITION_COUNT * 8 + 4 + DECOMPOSITION_PARTS * 4 +
      COMPOSITION_COUNT * 12 + LOWERCASE_COUNT * 16,
  );
  if (!start) return false;
  expandProperties(start);
  compositions = start + DIRECT + TAGS_SIZE;
  decompositions = compositions + COMPOSITION_COUNT * 12;
  lowercase = decompositions + DECOMPOSITION_COUNT * 8 + 4 + DECOMPOSITION_PARTS * 4;
  combining = lowercase + LOWERCASE_COUNT * 16;
  expandCompositions();
  expandDecompositions();
  expandLowercase();
  expandCombining();
  properties = start;
  return true;
}

// @ts-ignore: decorator
@inline
function propertyOf(c: u32): u32 {
  if (c < DIRECT) return load<u8>(properties + c);
  return c - TAGS < TAGS_SIZE ? load<u8>(properties + (c - TAGS), DIRECT) : 0;
}

/** LETTER, NUMBER, SPACE, or 0. */
// @ts-ignore: decorator
@inline
export function categoryOf(c: u32): u32 {
  return (propertyOf(c) >> 4) & 3;
}

/** False when NFC leaves the character alone whatever surrounds it. */
// @ts-ignore: decorator
@inline
export function mayChangeInNfc(c: u32): bool {
  return (propertyOf(c) & 64) != 0;
}

/**
 * End of the extended grapheme cluster that starts at `at` (UAX #29).
 *
 * Rule GB9c (Indic conjuncts) is left out: the only caller treats clusters of six bytes and more by character, and every
 * cluster that GB9c lengthens is longer than that with and without it.
 */
export function clusterEnd(at: usize, end: usize): usize {
  let c = decode(at);
  let before = propertyOf(c) & 15;
  at += sizeOf(load<u8>(at));
  let regionals: u32 = before == REGIONAL ? 1 : 0;
  // GB11: 1 after a pictograph and its extenders, 2 when a joiner follows.
  let pictograph: u32 = before == PICTOGRAPH ? 1 : 0;
  while (at < end) {
    c = decode(at);
    const after = propertyOf(c) & 15;
    if (before == CR) {
      if (after != LF) break; // GB3, GB4
    } else if (before == LF || before == CONTROL || (after >= CR && after <= CONTROL)) break; // GB4, GB5
    else if (after == EXTEND || after == ZWJ || after == SPACING_MARK || before == PREPEND) {
      // GB9, GB9a, GB9b
    } else if (before == L) {
      if (after != L && after != V && after != LV && after != LVT) break; // GB6
    } else if (before == LV || before == V) {
      if (after != V && after != T) break; // GB7
    } else if (before == LVT || before == T) {
      if (after != T) break; // GB8
    } else if (after == PICTOGRAPH) {
      if (pictograph != 2) break; // GB11
    } else if (after == REGIONAL) {
      if (!(regionals & 1)) break; // GB12, GB13
    } else break; // GB999
    if (after == PICTOGRAPH) pictograph = 1;
    else if (after == ZWJ) pictograph = pictograph == 1 ? 2 : 0;
    else if (after != EXTEND) pictograph = 0;
    regionals = after == REGIONAL ? regionals + 1 : 0;
    before = after;
    at += sizeOf(load<u8>(at));
  }
  return at;
}

/** Writes the lower case of `c` in UTF-8 at `at`: full mappings of single characters, so a final sigma never appears. */
export function encodeLower(at: usize, c: u32): usize {
  if (c < 0x80) return encode(at, c - 65 < 26 ? c + 32 : c);
  if (c == 0x130) return encode(encode(at, 0x69), 0x307);
  let low: i32 = 0;
  let high = LOWERCASE_COUNT;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (load<u32>(lowercase + 16 * middle, 4) < c) low = middle + 1;
    else high = middle;
  }
  if (low < LOWERCASE_COUNT) {
    const run = lowercase + 16 * low;
    const offset = c - load<u32>(run);
    if (<i32>offset >= 0 && offset % load<u32>(run, 8) == 0) c += load<i32>(run, 12);
  }
  return encode(at, c);
}

/**
 * NFC (UAX #15) of well-formed UTF-8, as u32 code points in scratch memory at `nfcPoints`.
 *
 * @returns the number of code points, or -1 when memory cannot grow
 */
export function composeNfc(text: usize, end: usize): i32 {
  // Full decompositions have up to four parts, and a two-byte character up to three.
  const out = scratchFor(<u32>(end - text), 8);
  if (!out) return -1;
  let count: i32 = 0;
  while (text < end) {
    count = decompose(decode(text), out, count);
    text += sizeOf(load<u8>(text));
  }
  const here = mark();
  const classes = scratch(count);
  if (!classes) return -1;
  let unordered = false;
  let previous: u32 = 0;
  for (let i: i32 = 0; i < count; i++) {
    const value = combiningClass(load<u32>(out + 4 * i));
    store<u8>(classes + i, value);
    if (value && value < previous) unordered = true;
    previous = value;
  }
  if (unordered && !reorder(out, classes, count)) return -1;
  count = compose(out, classes, count);
  rewind(here);
  nfcPoints = out;
  return count;
}

/** Where `composeNfc` wrote its code points. */
export let nfcPoints: usize = 0;

function decompose(c: u32, out: usize, count: i32): i32 {
  if (c < 0xc0) {
    store<u32>(out + 4 * count, c);
    return count + 1;
  }
  const syllable = c - 0xac00;
  if (syllable < 11172) {
    // Hangul (The Unicode Standard, 3.12): 19 leads, 21 vowels, 27 finals or none.
    store<u32>(out + 4 * count, 0x1100 + syllable / 588);
    store<u32>(out + 4 * count, 0x1161 + (syllable % 588) / 28, 4);
    const final = syllable % 28;
    if (!final) return count + 2;
    store<u32>(out + 4 * count, 0x11a7 + final, 8);
    return count + 3;
  }
  const index = find(decompositions, DECOMPOSITION_COUNT, c);
  if (index < 0) {
    store<u32>(out + 4 * count, c);
    return count + 1;
  }
  const offsets = decompositions + 4 * DECOMPOSITION_COUNT;
  const parts = offsets + 4 * (DECOMPOSITION_COUNT + 1);
  const last = load<u32>(offsets + 4 * index, 4);
  for (let part = load<u32>(offsets + 4 * index); part < last; part++) {
    store<u32>(out + 4 * count, load<u32>(parts + 4 * part));
    count++;
  }
  return count;
}

/** Canonical combining class, renumbered in order. */
function combiningClass(c: u32): u32 {
  if (c < 0x300 || !mayChangeInNfc(c)) return 0;
  const index = find(combining, combiningCount, c);
  return index < 0 ? 0 : load<u8>(combining + 4 * combiningCount + index);
}

/** Canonical ordering: a stable counting sort of every run of combining marks, so long runs cost no more than short ones. */
function reorder(points: usize, classes: usize, count: i32): bool {
  const here = mark();
  const sorted = scratchFor(count, 5);
  const heads = scratch(64 * 4);
  if (!sorted || !heads) return false;
  let start: i32 = 0;
  while (start < count) {
    if (!load<u8>(classes + start)) {
      start++;
      continue;
    }
    let end = start;
    memory.fill(heads, 0, 256);
    while (end < count && load<u8>(classes + end)) {
      const head = heads + 4 * <usize>load<u8>(classes + end);
      store<u32>(head, load<u32>(head) + 1);
      end++;
    }
    let sum: u32 = 0;
    for (let value = 0; value < 64; value++) {
      const size = load<u32>(heads + 4 * value);
      store<u32>(heads + 4 * value, sum);
      sum += size;
    }
    const sortedClasses = sorted + 4 * count;
    for (let i = start; i < end; i++) {
      const value = load<u8>(classes + i);
      const slot = load<u32>(heads + 4 * <usize>value);
      store<u32>(heads + 4 * <usize>value, slot + 1);
      store<u32>(sorted + 4 * slot, load<u32>(points + 4 * i));
      store<u8>(sortedClasses + slot, value);
    }
    memory.copy(points + 4 * start, sorted, 4 * (end - start));
    memory.copy(classes + start, sortedClasses, end - start);
    start = end;
  }
  rewind(here);
  return true;
}

/** Canonical composition in place (UAX #15, D117); returns the new count. */
function compose(points: usize, classes: usize, count: i32): i32 {
  let starter: i32 = -1;
  let previous: u32 = 0;
  let length: i32 = 0;
  for (let i: i32 = 0; i < count; i++) {
    const c = load<u32>(points + 4 * i);
    const value: u32 = load<u8>(classes + i);
    // A mark is blocked by one of the same or a higher class between it and the starter; a starter by anything.
    if (starter >= 0 && (starter == length - 1 || (previous < value && previous != 0))) {
      const composite = pair(load<u32>(points + 4 * starter), c);
      if (composite) {
        store<u32>(points + 4 * starter, composite);
        continue;
      }
    }
    if (!value) starter = length;
    previous = value;
    store<u32>(points + 4 * length, c);
    length++;
  }
  return length;
}

/** The primary composite of the two, or 0. */
function pair(first: u32, second: u32): u32 {
  if (second < 0x300 || !mayChangeInNfc(second)) return 0;
  if (first - 0x1100 < 19 && second - 0x1161 < 21) return 0xac00 + ((first - 0x1100) * 21 + (second - 0x1161)) * 28;
  const syllable = first - 0xac00;
  if (syllable < 11172 && syllable % 28 == 0 && second - 0x11a8 < 27) return first + (second - 0x11a7);
  const key = (<u64>first << 32) | second;
  let low: i32 = 0;
  let high = COMPOSITION_COUNT;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (load<u64>(compositions + 8 * middle) < key) low = middle + 1;
    else high = middle;
  }
  if (low == COMPOSITION_COUNT || load<u64>(compositions + 8 * low) != key) return 0;
  return load<u32>(compositions + 8 * COMPOSITION_COUNT + 4 * low);
}

/** Index of `c` among `count` sorted u32, or -1. */
function find(keys: usize, count: i32, c: u32): i32 {
  let low: i32 = 0;
  let high = count;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (load<u32>(keys + 4 * middle) < c) low = middle + 1;
    else high = middle;
  }
  return low < count && load<u32>(keys + 4 * low) == c ? low : -1;
}

let stream: usize = 0;

function next(): u32 {
  let value: u32 = 0;
  let shift: u32 = 0;
  while (true) {
    const byte: u32 = load<u8>(stream++);
    value |= (byte & 127) << shift;
    if (byte < 128) return value;
    shift += 7;
  }
}

function expandProperties(out: usize): void {
  stream = PROPERTIES;
  const end = PROPERTIES + PROPERTIES_BYTES;
  let c: u32 = 0;
  while (stream < end) {
    const length = next();
    const value = load<u8>(stream++);
    if (c < DIRECT) memory.fill(out + c, value, min(length, DIRECT - c));
    else if (c >= TAGS && c < TAGS + TAGS_SIZE) memory.fill(out + DIRECT + (c - TAGS), value, min(length, TAGS + TAGS_SIZE - c));
    c += length;
  }
}

function expandCompositions(): void {
  stream = COMPOSITIONS;
  let first: u32 = 0;
  for (let i = 0; i < COMPOSITION_COUNT; i++) {
    first += next();
    store<u64>(compositions + 8 * i, (<u64>first << 32) | next());
    store<u32>(compositions + 8 * COMPOSITION_COUNT + 4 * i, next());
  }
}

function expandDecompositions(): void {
  stream = DECOMPOSITIONS;
  const offsets = decompositions + 4 * DECOMPOSITION_COUNT;
  const parts = offsets + 4 * (DECOMPOSITION_COUNT + 1);
  let c: u32 = 0;
  let part: u32 = 0;
  for (let i = 0; i < DECOMPOSITION_COUNT; i++) {
    c += next();
    store<u32>(decompositions + 4 * i, c);
    store<u32>(offsets + 4 * i, part);
    const last = part + next();
    for (; part < last; part++) store<u32>(parts + 4 * part, next());
  }
  store<u32>(offsets + 4 * DECOMPOSITION_COUNT, part);
}

function expandLowercase(): void {
  stream = LOWERCASE;
  let first: u32 = 0;
  for (let i = 0; i < LOWERCASE_COUNT; i++) {
    const run = lowercase + 16 * i;
    first += next();
    const count = next();
    const step = next();
    store<u32>(run, first);
    store<u32>(run, first + (count - 1) * step, 4);
    store<u32>(run, step, 8);
    store<i32>(run, <i32>next() - 131072, 12);
  }
}

function expandCombining(): void {
  // Two passes, because the class bytes follow the characters and their number is only known at the end.
  const end = COMBINING + COMBINING_BYTES;
  combiningCount = 0;
  for (stream = COMBINING; stream < end; stream++) {
    next();
    combiningCount++;
  }
  stream = COMBINING;
  let c: u32 = 0;
  for (let i = 0; i < combiningCount; i++) {
    c += next();
    store<u32>(combining + 4 * i, c);
    store<u8>(combining + 4 * combiningCount + i, load<u8>(stream++));
  }
}
