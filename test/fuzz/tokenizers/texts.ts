// Random texts for the tokenizers: all of Unicode, and real prompts with damage.
// Deterministic from the seed, so that a failure can be repeated from what the report prints.

/** Uniform integers below `limit` from a 32-bit seed (splitmix32). */
export function randomSource(seed: number): (limit: number) => number {
  let state = seed >>> 0;
  return (limit) => {
    state = (state + 0x9e3779b9) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 16), 0x21f0aaad);
    mixed = Math.imul(mixed ^ (mixed >>> 15), 0x735a2d97);
    return Math.floor((((mixed ^ (mixed >>> 15)) >>> 0) / 2 ** 32) * limit);
  };
}

const special = [
  '<|startoftext|>',
  '<|endoftext|>',
  '<|EndOfText|>',
  '<|STARTOFTEXT|>',
  '</s>',
  '<pad>',
  '<unk>',
  '<extra_id_7>',
  '<extra_id_42>',
];
const wide = ['＜ｕｎｋ＞', '＜/s＞', '＜pad＞', '＜|endoftext|＞'];
const apostrophes = ["'s", "'T", "'re", "'VE", "'m", "'ll", "'d", "''", "'"];
const whitespace = [
  ' ',
  '  ',
  '   ',
  '\t',
  '\n',
  '\r\n',
  '\r',
  '\u0085',
  '\u00a0',
  '\u2003',
  '\u2028',
  '\u3000',
  '\ufeff',
  '\u200b',
  '\u180e',
  '▁',
  '\0',
];
/** Blocks with rules of their own: marks, Hangul, Indic, Arabic, emoji, variation selectors, tags, Greek, Georgian, compatibility. */
const blocks = [
  0x000, 0x080, 0x100, 0x180, 0x200, 0x300, 0x370, 0x3d0, 0x400, 0x590, 0x600, 0x6d0, 0x700, 0x900, 0x980, 0xe00, 0xf00,
  0x1000, 0x1100, 0x1160, 0x11a8, 0x13a0, 0x1c80, 0x1dc0, 0x1e00, 0x1f00, 0x2000, 0x2060, 0x20d0, 0x2100, 0x2460,
  0x2600, 0x2d00, 0x3000, 0x3100, 0x4e00, 0xa640, 0xab70, 0xac00, 0xd780, 0xf900, 0xfb00, 0xfb50, 0xfe00, 0xff00,
  0x10400, 0x11000, 0x110b0, 0x16d40, 0x1d100, 0x1d400, 0x1e900, 0x1f100, 0x1f1e0, 0x1f300, 0x1f3f0, 0x1f9b0, 0x2f800,
  0xe0000, 0xe0100,
];

export function randomText(random: (limit: number) => number, prompts: readonly string[]): string {
  const pick = <T>(list: readonly T[]): T => list[random(list.length)]!;
  const any = () => {
    const c = random(0x110000 - 0x800);
    return String.fromCodePoint(c < 0xd800 ? c : c + 0x800);
  };
  const block = (start: number, span = 128) => {
    const c = start + random(span);
    return String.fromCodePoint(c >= 0xd800 && c < 0xe000 ? 0xfffd : c);
  };
  const word = () => pick(pick(prompts).split(' '));
  const piece = (): string => {
    switch (random(14)) {
      case 0:
        return any();
      case 1:
      case 2:
        return block(pick(blocks));
      case 3:
        return block(0x20, 95);
      case 4:
        return pick(whitespace);
      case 5:
        return pick(special);
      case 6:
        return pick(wide);
      case 7:
        return pick(apostrophes);
      case 8:
        return `${block(pick(blocks))}${block(0x300, 0x70)}${block(pick([0x300, 0x590, 0x64b, 0x1dc0, 0x20d0]), 32)}`;
      case 9:
        return block(0xac00, 11172);
      case 10:
        return word().toUpperCase();
      case 11:
        return String(random(100000));
      default:
        return word();
    }
  };
  const pieces = (count: number) => Array.from({ length: count }, piece).join(pick(['', '', ' ']));
  switch (random(8)) {
    case 0:
      return Array.from({ length: 1 + random(20) }, any).join('');
    case 1: {
      const start = pick(blocks);
      return Array.from({ length: 1 + random(24) }, () => block(start)).join('');
    }
    case 2: // one word that is long enough for the other merging algorithm
      return random(8)
        ? pieces(1 + random(6))
        : Array.from({ length: 20 + random(150) }, () => pick([word(), block(0x61, 26), block(0x4e00)]))
            .join('')
            .replaceAll(/[^\p{L}]/gu, '');
    case 3:
      return mutate(pick(prompts), random, piece);
    case 4:
      return mutate(mutate(pick(prompts), random, piece), random, piece);
    default:
      return pieces(1 + random(16));
  }
}

function mutate(text: string, random: (limit: number) => number, piece: () => string): string {
  const chars = Array.from(text);
  const at = random(chars.length + 1);
  const span = random(6);
  switch (random(6)) {
    case 0:
      chars.splice(at, 0, piece());
      break;
    case 1:
      chars.splice(at, span);
      break;
    case 2:
      chars.splice(at, span, piece(), piece());
      break;
    case 3:
      chars.splice(at, 0, ...chars.slice(at, at + span));
      break;
    case 4:
      return chars.map((char) => (random(3) ? char : char.toUpperCase())).join('');
    default:
      chars.splice(at, span, ...chars.slice(at, at + span).reverse());
  }
  return chars.join('');
}
