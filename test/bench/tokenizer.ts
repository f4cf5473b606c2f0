// Throughput and start of the tokenizers next to @huggingface/tokenizers: `npm run bench:tokenizer`.
// The oracle keeps its cache of words between rounds, which helps it. Both run in this process in alternating rounds, so a busy machine slows both; the promise is 5× the throughput and a fifth of the start.
import { Tokenizer } from '@huggingface/tokenizers';
import { ClipTokenizer, T5Tokenizer } from '../../sdk/src/host/tokenizers.ts';
import { medianTimes } from '../support/median-time.ts';
import { clipTokenizerJson, files, loadTokenizers, prompts } from '../support/tokenizers.ts';

const { host, clipTable, t5Table, clip, t5 } = await loadTokenizers();
const texts = prompts().map(({ text }) => text);
const characters = texts.reduce((sum, text) => sum + text.length, 0);
// Parsed before the clock starts: in its favour, for an app has to parse the JSON too.
const clipJson = clipTokenizerJson();
const t5Json = JSON.parse(files.t5()) as object;
const oracleClip = new Tokenizer(clipJson, {});
const oracleT5 = new Tokenizer(t5Json, {});
const all = (encode: (text: string) => unknown) => () => {
  for (const text of texts) encode(text);
};
console.log(`${texts.length} prompts, ${characters} characters a round`);

const results: [name: string, ratio: number, wanted: number][] = [];
console.log('CLIP: all prompts');
const clipTimes = medianTimes(
  { wasm: all((text) => clip.encode(text)), huggingface: all((text) => oracleClip.encode(text)) },
  21,
);
results.push(['CLIP throughput', clipTimes.huggingface! / clipTimes.wasm!, 5]);
console.log('T5: all prompts');
const t5Times = medianTimes(
  { wasm: all((text) => t5.encode(text)), huggingface: all((text) => oracleT5.encode(text)) },
  21,
);
results.push(['T5 throughput', t5Times.huggingface! / t5Times.wasm!, 5]);
console.log('CLIP: from table or JSON object to ready');
const clipStart = medianTimes({
  wasm: () => ClipTokenizer.create(host, clipTable).dispose(),
  huggingface: () => new Tokenizer(clipJson, {}),
});
results.push(['CLIP start', clipStart.huggingface! / clipStart.wasm!, 5]);
console.log('T5: from table or JSON object to ready');
const t5Start = medianTimes({
  wasm: () => T5Tokenizer.create(host, t5Table).dispose(),
  huggingface: () => new Tokenizer(t5Json, {}),
});
results.push(['T5 start', t5Start.huggingface! / t5Start.wasm!, 5]);

for (const [name, ratio, wanted] of results) {
  console.log(`${name.padEnd(16)} ${ratio.toFixed(1)}× (wanted ${wanted}×) ${ratio >= wanted ? 'ok' : 'TOO SLOW'}`);
}
process.exitCode = results.every(([, ratio, wanted]) => ratio >= wanted) ? 0 : 1;
