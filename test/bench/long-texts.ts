// Texts of a quarter, one and four megabytes that are hard for a tokenizer: `npm run bench:long-texts`.
// Shows that no text makes the time grow with its square, which no prompt of ordinary length would reveal. Processor time and not
// the clock's, because these are single runs and a busy machine would hide the growth.
import { loadTokenizers } from '../support/tokenizers.ts';

const { host, clip, t5 } = await loadTokenizers();
let state = 12345;
const draw = (limit: number) => {
  state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
  return Math.floor((state / 2 ** 32) * limit);
};
const drawn = (count: number, first: number, span: number) =>
  Array.from({ length: count }, () => String.fromCharCode(first + draw(span))).join('');

const texts: Record<string, (bytes: number) => string> = {
  'random letters': (bytes) => drawn(bytes, 97, 26),
  'one letter': (bytes) => 'a'.repeat(bytes),
  'one symbol': (bytes) => '!'.repeat(bytes),
  'combining marks': (bytes) => `e${drawn(bytes / 2, 0x300, 0x70)}`,
  Chinese: (bytes) => drawn(bytes / 3, 0x4e00, 20_000),
  flags: (bytes) => '🇩'.repeat(bytes / 4),
  'family emoji': (bytes) => '👩‍👩‍👧‍👦'.repeat(bytes / 25),
  'special tokens': (bytes) => '</s>'.repeat(bytes / 4),
};
for (const [name, make] of Object.entries(texts)) {
  const columns = Object.entries({ clip, t5 }).map(([label, tokenizer]) => {
    const times = [2 ** 18, 2 ** 20, 2 ** 22].map((bytes) => {
      const text = make(bytes);
      const start = process.cpuUsage();
      tokenizer.count(text);
      const { user, system } = process.cpuUsage(start);
      return ((user + system) / 1000).toFixed(0);
    });
    return `${label} ${times.join(' / ')} ms`;
  });
  console.log(`${name.padEnd(16)} ${columns.join('   ')}`);
}
console.log(`WASM memory: ${host.bytes.length / 2 ** 20} MiB`);
