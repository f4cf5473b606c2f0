// Strict UTF-8: check once, then decode without checks.
// Texts come from any host, so nothing may be assumed about them until `firstInvalid` has passed.

/** Byte offset of the first byte that is not well-formed UTF-8 (overlong forms and surrogates included), or -1. */
export function firstInvalid(text: usize, bytes: i32): i32 {
  let i: i32 = 0;
  while (i < bytes) {
    // Eight ASCII bytes at a time: prompts are mostly ASCII.
    while (i + 8 <= bytes && !(load<u64>(text + i) & 0x8080808080808080)) i += 8;
    if (i >= bytes) break;
    const lead: u32 = load<u8>(text + i);
    if (lead < 0x80) {
      i++;
      continue;
    }
    let tail: i32 = 0;
    let lowest: u32 = 0x80;
    let highest: u32 = 0xbf;
    if (lead >= 0xc2 && lead <= 0xdf) tail = 1;
    else if (lead >= 0xe0 && lead <= 0xef) {
      tail = 2;
      if (lead == 0xe0) lowest = 0xa0;
      else if (lead == 0xed) highest = 0x9f;
    } else if (lead >= 0xf0 && lead <= 0xf4) {
      tail = 3;
      if (lead == 0xf0) lowest = 0x90;
      else if (lead == 0xf4) highest = 0x8f;
    } else return i;
    if (i + tail >= bytes) return i;
    for (let k = 1; k <= tail; k++) {
      const byte: u32 = load<u8>(text + i + k);
      if (byte < lowest || byte > highest) return i;
      lowest = 0x80;
      highest = 0xbf;
    }
    i += tail + 1;
  }
  return -1;
}

/** Length in bytes of the well-formed character that starts with `lead`. */
// @ts-ignore: decorator
@inline
export function sizeOf(lead: u32): usize {
  return lead < 0x80 ? 1 : lead < 0xe0 ? 2 : lead < 0xf0 ? 3 : 4;
}

/** The character at `at`, which must be the first byte of a well-formed one. */
export function decode(at: usize): u32 {
  const lead: u32 = load<u8>(at);
  if (lead < 0x80) return lead;
  const second: u32 = load<u8>(at, 1) & 63;
  if (lead < 0xe0) return ((lead & 31) << 6) | second;
  const third: u32 = load<u8>(at, 2) & 63;
  if (lead < 0xf0) return ((lead & 15) << 12) | (second << 6) | third;
  return ((lead & 7) << 18) | (second << 12) | (third << 6) | (load<u8>(at, 3) & 63);
}

/** Writes `c` at `at` (up to four bytes) and returns the address after it. */
export function encode(at: usize, c: u32): usize {
  if (c < 0x80) {
    store<u8>(at, c);
    return at + 1;
  }
  if (c < 0x800) {
    store<u8>(at, 0xc0 | (c >> 6));
    store<u8>(at, 0x80 | (c & 63), 1);
    return at + 2;
  }
  if (c < 0x10000) {
    store<u8>(at, 0xe0 | (c >> 12));
    store<u8>(at, 0x80 | ((c >> 6) & 63), 1);
    store<u8>(at, 0x80 | (c & 63), 2);
    return at + 3;
  }
  store<u8>(at, 0xf0 | (c >> 18));
  store<u8>(at, 0x80 | ((c >> 12) & 63), 1);
  store<u8>(at, 0x80 | ((c >> 6) & 63), 2);
  store<u8>(at, 0x80 | (c & 63), 3);
  return at + 4;
}
