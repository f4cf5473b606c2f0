// The long fuzz run: `npm run fuzz:tokenizers -- [texts] [seed]`, 200,000 texts and a seed from the clock by default.
import { fuzz } from './compare.ts';

const texts = Number(process.argv[2] ?? 200_000);
const seed = Number(process.argv[3] ?? Date.now() % 2 ** 32);
console.log(`${texts} texts, seed ${seed}`);
const report = await fuzz(seed, texts, (done) => console.log(`  ${done}`));
for (const { tokenizer, text, ids, oracle } of report.differences) {
  console.log(`${tokenizer} ${JSON.stringify(text)}\n  ours   ${ids.join(' ')}\n  oracle ${oracle.join(' ')}`);
}
console.log(
  `seed ${seed}: ${report.differences.length} differences; the unrepaired oracle's defects show on ${report.defects.clip} texts (CLIP) and ${report.defects.t5} (T5)`,
);
process.exitCode = report.differences.length > 0 ? 1 : 0;
