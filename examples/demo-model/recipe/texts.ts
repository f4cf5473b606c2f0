// Encodes prompts with the demo model's own text encoders, through the SDK: `npx tsx texts.ts prompts.json texts.safetensors`.
// prompts.json is a list of texts; the file gets `text` [n, 16, 64] and `pooled` [n, 64] in float32, in the list's order.
import { readFileSync, writeFileSync } from 'node:fs';
import { openDevice } from '../../../runtime/src/index.ts';
import { loadHost } from '../../../sdk/src/host/module.ts';
import { Parts } from '../../../sdk/src/kontext/parts.ts';
import { justInTime } from '../../../sdk/src/kontext/programs.ts';
import { ProgressTracker } from '../../../sdk/src/kontext/progress.ts';
import { TextEncoders } from '../../../sdk/src/kontext/text.ts';
import { openModel } from '../../../sdk/src/model/open.ts';
import { demoModel } from '../../../sdk/src/node.ts';

const TOKENS = 16;

const [from = 'prompts.json', to = 'texts.safetensors'] = process.argv.slice(2);
const prompts: string[] = JSON.parse(readFileSync(from, 'utf8'));
const model = await openModel(demoModel());
const gpu = await openDevice();
const options = { precision: 'f32', quantization: 'none', memory: 'resident' } as const;
const parts = await Parts.create(gpu, model, justInTime(), options);
const encoders = await TextEncoders.create(await loadHost(), model);
const work = { signal: new AbortController().signal, tracker: new ProgressTracker(undefined), loadMs: 0 };
const encoded: { text: Float32Array; pooled: Float32Array }[] = [];
for (const t5 of prompts) encoded.push(await encoders.encode(parts, { t5 }, TOKENS, work));

const [text, pooled] = [encoded.map((one) => one.text), encoded.map((one) => one.pooled)];
const bytes = (lists: Float32Array[]): number => lists.reduce((sum, list) => sum + list.byteLength, 0);
const n = prompts.length;
const header = {
  text: { dtype: 'F32', shape: [n, TOKENS, text[0]!.length / TOKENS], data_offsets: [0, bytes(text)] },
  pooled: { dtype: 'F32', shape: [n, pooled[0]!.length], data_offsets: [bytes(text), bytes(text) + bytes(pooled)] },
};
const json = Buffer.from(JSON.stringify(header));
const length = Buffer.alloc(8);
length.writeBigUInt64LE(BigInt(json.length));
const data = [...text, ...pooled].map((list) => Buffer.from(list.buffer, list.byteOffset, list.byteLength));
writeFileSync(to, Buffer.concat([length, json, ...data]));
gpu.destroy();
