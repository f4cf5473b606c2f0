// Writes into docs/guide/models-files.md how near edits on files of each form come to the reference's: npm run docs:files.
// The files are tiny ones with the names, types and layouts of the published; the expectations diffusers' in float32 on the same values.
import { readFileSync, rmSync, writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { Kontext } from '../sdk/src/node.ts';
import { FIELD_REQUEST, fieldDistance, fieldFolder } from '../test/support/field-model.ts';

const CASES: readonly [title: string, expected: string, weights: string, extra?: Record<string, string>][] = [
  ['BF16', 'field/base', 'field/base'],
  ['fp8 with scales (ComfyUI)', 'field/weights-fp8-scaled', 'field/weights-fp8-scaled'],
  ['GGUF Q8_0', 'field/weights-gguf-q8_0', 'field/weights-gguf-q8_0'],
  ['GGUF Q5_K', 'field/weights-gguf-q5_k', 'field/weights-gguf-q5_k'],
  ['GGUF Q4_K', 'field/weights-gguf-q4_k', 'field/weights-gguf-q4_k'],
  ['GGUF Q4_0', 'field/weights-gguf-q4_0', 'field/weights-gguf-q4_0'],
  [
    'T5 in fp8',
    'field/t5-fp8-e4m3fn',
    'field/base',
    { 'text_encoder_2/model.safetensors': 'field/t5-fp8-e4m3fn/t5xxl_fp8_e4m3fn.safetensors' },
  ],
  [
    'T5 as GGUF F16',
    'field/t5-gguf',
    'field/base',
    { 'text_encoder_2/model.gguf': 'field/t5-gguf/t5-v1_1-xxl-encoder-F16.gguf' },
  ],
];

const rows: string[] = [];
let adapter = '';
for (const [title, expected, weights, extra] of CASES) {
  const folder = fieldFolder(weights, extra);
  try {
    await using kontext = await Kontext.load(folder, { precision: 'f32' });
    adapter = kontext.adapter?.description || kontext.adapter?.vendor || 'an adapter';
    const { latents, decibels } = fieldDistance(await kontext.edit(FIELD_REQUEST), expected);
    rows.push(`| ${title} | ${latents.toExponential(1)} | ${decibels.toFixed(1)} dB |`);
    console.log(rows.at(-1));
  } finally {
    rmSync(folder, { recursive: true });
  }
}
const date = new Date().toISOString().slice(0, 10);
const table = `| file | latents differ by at most | picture |
| --- | --- | --- |
${rows.join('\n')}

\`npm run docs:files\`, ${date}, ${adapter}, f32.`;
const path = fileURLToPath(new URL('../docs/guide/models-files.md', import.meta.url));
const between = /(<!-- results -->\n)[\s\S]*(<!-- end of results -->)/;
writeFileSync(
  path,
  readFileSync(path, 'utf8').replace(between, (_, start, end) => `${start}${table}\n${end}`),
);
