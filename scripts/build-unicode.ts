// Writes sdk/assembly/unicode-data.ts: the Unicode data the tokenizers need, read from this Node's ICU.
// Run by hand when Unicode moves on (`npx tsx scripts/build-unicode.ts`); the result is committed, so a build never depends on Node's version.
import { writeFileSync } from 'node:fs';

const characters: number[] = [];
for (let c = 0; c < 0x110000; c++) if (c < 0xd800 || c > 0xdfff) characters.push(c);

const text = String.fromCodePoint;
const segmenter = new Intl.Segmenter('en', { granularity: 'grapheme' });
const clusters = (value: string) => [...segmenter.segment(value)].length;
/** Whether there is no grapheme boundary between the two. */
const joined = (a: string, b: string) => clusters(a + b) === 1;

/** Grapheme_Cluster_Break as ICU's segmenter behaves; the numbers are those of unicode.ts. */
function graphemeBreak(c: number): number {
  const s = text(c);
  if (c === 0x0d) return 1;
  if (c === 0x0a) return 2;
  if (c === 0x200d) return 5;
  if (c >= 0x1f1e6 && c <= 0x1f1ff) return 6;
  if (/\p{Extended_Pictographic}/u.test(s)) return 14;
  if (!joined(s, '\u0308')) return 3; // Control: the only class that refuses an Extend after it
  if (joined('a', s)) return clusters(`\u00a9${s}\u200d\u00a9`) === 1 ? 4 : 8; // GB11 tells Extend from SpacingMark
  if (joined(s, 'a')) return 7; // Prepend
  // Hangul: L joins the L, V, LV and LVT after it; V and LV join V and T; T and LVT join T.
  if (joined(s, '\u1100')) return 9;
  if (joined(s, '\u1160')) return joined('\u1160', s) ? 10 : 12;
  if (joined(s, '\u11a8')) return joined('\u11a8', s) ? 11 : 13;
  return 0;
}

/** 1 letter, 2 number, 3 white space: the classes of CLIP's splitting pattern. */
function category(c: number): number {
  const s = text(c);
  if (/\p{L}/u.test(s)) return 1;
  if (/\p{N}/u.test(s)) return 2;
  return /\p{White_Space}/u.test(s) ? 3 : 0;
}

/**
 * Canonical combining classes, renumbered in order: JavaScript does not tell them, but NFD sorts by them.
 * Only their order matters to normalisation.
 */
function combiningClasses(): Map<number, number> {
  const swaps = (a: number, b: number) => text(a, b).normalize('NFD') === text(b, a);
  const marks = characters.filter((c) => {
    if (!/\p{M}/u.test(text(c)) || text(c).normalize('NFD') !== text(c)) return false;
    return swaps(c, 0x0334) || swaps(0x0345, c); // classes 1 and 240, the lowest and the highest
  });
  const order = (a: number, b: number) => (swaps(a, b) ? 1 : swaps(b, a) ? -1 : 0);
  marks.sort((a, b) => order(a, b) || a - b);
  const classes = new Map<number, number>();
  let value = 0;
  marks.forEach((mark, i) => {
    if (i === 0 || order(mark, marks[i - 1]!) !== 0) value++;
    classes.set(mark, value);
  });
  return classes;
}

const isHangul = (c: number) => c >= 0xac00 && c <= 0xd7a3;
const points = (s: string) => Array.from(s, (ch) => ch.codePointAt(0)!);

/** Full canonical decompositions except Hangul, which is arithmetic. */
const decompositions = characters
  .filter((c) => !isHangul(c) && text(c).normalize('NFD') !== text(c))
  .map((c) => ({ c, parts: points(text(c).normalize('NFD')) }));

/** Primary composites as (first, second, composite). */
const compositions: [number, number, number][] = [];
for (const { c, parts } of decompositions) {
  if (text(c).normalize('NFC') !== text(c)) continue;
  const second = parts.at(-1)!;
  const first = points(text(...parts.slice(0, -1)).normalize('NFC'));
  if (first.length !== 1 || text(first[0]!, second).normalize('NFC') !== text(c))
    throw new Error(`U+${c.toString(16)}`);
  compositions.push([first[0]!, second, c]);
}
compositions.sort((a, b) => a[0] - b[0] || a[1] - b[1]);

const combining = combiningClasses();
const secondOfPair = new Set(compositions.map(([, second]) => second));
const inertInNfc = (c: number) => {
  // A composite such as U+16D68 may begin with a character that composes with the one before it.
  const start = points(text(c).normalize('NFD'))[0]!;
  if (combining.has(start) || secondOfPair.has(start) || text(c).normalize('NFC') !== text(c)) return false;
  return !((c >= 0x1161 && c <= 0x1175) || (c >= 0x11a8 && c <= 0x11c2)); // Hangul vowels and finals compose
};

/** One byte a character: bits 0–3 grapheme break, 4–5 category, 6 "NFC may change it or move it". Runs of (length, byte). */
const runs: number[] = [];
let run = { value: -1, length: 0 };
for (let c = 0; c < 0x110000; c++) {
  const surrogate = c >= 0xd800 && c <= 0xdfff;
  const value = surrogate ? 3 : graphemeBreak(c) | (category(c) << 4) | (inertInNfc(c) ? 0 : 64);
  if (value === run.value) run.length++;
  else {
    if (run.length) runs.push(...varint(run.length), run.value);
    run = { value, length: 1 };
  }
}
runs.push(...varint(run.length), run.value);

const classData: number[] = [];
let previous = 0;
for (const c of [...combining.keys()].sort((a, b) => a - b)) {
  classData.push(...varint(c - previous), combining.get(c)!);
  previous = c;
}

const decompositionData: number[] = [];
previous = 0;
for (const { c, parts } of decompositions) {
  decompositionData.push(...varint(c - previous), parts.length, ...parts.flatMap(varint));
  previous = c;
}

const compositionData: number[] = [];
previous = 0;
for (const [first, second, composite] of compositions) {
  compositionData.push(...varint(first - previous), ...varint(second), ...varint(composite));
  previous = first;
}

/** Lower case of single characters, U+0130 apart (its lower case is two characters): runs of (gap, count, step, delta + 2^17). */
const lowerData: number[] = [];
const lowers = characters.filter((c) => c !== 0x130 && text(c).toLowerCase() !== text(c));
let at = 0;
previous = 0;
const delta = (c: number) => points(text(c).toLowerCase())[0]! - c;
let lowerRuns = 0;
while (at < lowers.length) {
  const start = lowers[at]!;
  if (points(text(start).toLowerCase()).length !== 1) throw new Error(`U+${start.toString(16)} has a long lower case`);
  const step = lowers[at + 1] === start + 2 && delta(start + 2) === delta(start) ? 2 : 1;
  let count = 1;
  while (lowers[at + count] === start + count * step && delta(start + count * step) === delta(start)) count++;
  lowerData.push(...varint(start - previous), ...varint(count), step, ...varint(delta(start) + 131072));
  previous = start;
  at += count;
  lowerRuns++;
}

function varint(value: number): number[] {
  const bytes: number[] = [];
  for (; value >= 128; value >>>= 7) bytes.push((value & 127) | 128);
  return [...bytes, value];
}

function array(name: string, doc: string, data: number[]): string {
  const lines: string[] = [];
  let line = ' ';
  for (const byte of data) {
    if (line.length > 112) {
      lines.push(line);
      line = ' ';
    }
    line += ` ${byte},`;
  }
  return `/** ${doc} */\nexport const ${name}: usize = memory.data<u8>([\n${[...lines, line].join('\n')}\n]);\nexport const ${name}_BYTES: usize = ${data.length};\n`;
}

writeFileSync(
  new URL('../sdk/assembly/unicode-data.ts', import.meta.url),
  `// Unicode ${process.versions.unicode} data as varint streams. Generated by scripts/build-unicode.ts, do not edit.
// Compact here, expanded once into tables by unicode.ts: the file stays small and look-ups stay direct.

${array('PROPERTIES', 'Runs over all code points from 0: length, property byte.', runs)}
${array('COMBINING', 'Combining classes in ascending order of character: gap, class.', classData)}
${array('DECOMPOSITIONS', 'Full canonical decompositions: gap, part count, parts.', decompositionData)}
export const DECOMPOSITION_COUNT: i32 = ${decompositions.length};
export const DECOMPOSITION_PARTS: i32 = ${decompositions.reduce((sum, { parts }) => sum + parts.length, 0)};

${array('COMPOSITIONS', 'Primary composites by first part: gap of the first part, second part, composite.', compositionData)}
export const COMPOSITION_COUNT: i32 = ${compositions.length};

${array('LOWERCASE', 'Lower case: gap of the first character, count, step, 2^17 + distance to the lower case.', lowerData)}
export const LOWERCASE_COUNT: i32 = ${lowerRuns};
`,
);
console.log({
  runs: runs.length,
  classes: classData.length,
  marks: combining.size,
  values: new Set(combining.values()).size,
  decompositions: decompositionData.length,
  compositions: compositionData.length,
  lower: lowerData.length,
  lowerRuns,
});
