// Vocabularies from outside: tokenizer files as JSON, the tables made of them with a right checksum, and packed models, which bring tables.
import { memoryBytes } from '../../../runtime/src/weights/bytes.ts';
import { loadHost } from '../../../sdk/src/host/module.ts';
import { buildClipTable, buildT5Table } from '../../../sdk/src/host/tables.ts';
import { ClipTokenizer, T5Tokenizer } from '../../../sdk/src/host/tokenizers.ts';
import { openPacked } from '../../../sdk/src/model/packed.ts';
import { clipTokenizerJson, files } from '../../support/tokenizers.ts';
import { mutateBytes, mutateJson, pick } from '../mutate.ts';
import type { Fuzzed } from './index.ts';

const TEXT = 'a Red fox, in\u00a0the snow <|endoftext|> ﬁn</s>';

export async function tableInputs(): Promise<Fuzzed[]> {
  const host = await loadHost();
  const [clip, t5] = [smallClip(), smallT5()];
  const [clipTable, t5Table] = [buildClipTable({ tokenizerJson: clip }), buildT5Table({ tokenizerJson: t5 })];
  const manifest = JSON.stringify(packed());
  const [clipText, t5Text] = [JSON.stringify(clip), JSON.stringify(t5)];
  return [
    {
      name: 'tokenizer files',
      run(random) {
        if (random() < 0.9) buildClipTable({ tokenizerJson: mutateJson(random, clipText) as object });
        else buildT5Table({ tokenizerJson: mutateJson(random, t5Text) as object });
      },
    },
    {
      name: 'tokenizer tables',
      run(random) {
        const [table, kind] = pick(random, [
          [clipTable, ClipTokenizer],
          [t5Table, T5Tokenizer],
        ] as const);
        const changed =
          random() < 0.1 ? mutateBytes(random, table) : sealed(mutateBytes(random, table.subarray(12)), table);
        const tokenizer = kind.create(host, changed);
        try {
          tokenizer.encode(TEXT, { length: 32 });
        } finally {
          tokenizer.dispose();
        }
      },
    },
    {
      name: 'packed models',
      async run(random) {
        const label = 'fuzzed';
        const bytes = memoryBytes(new TextEncoder().encode(JSON.stringify(mutateJson(random, manifest)) ?? 'null'));
        const open = async (name: string) => memoryBytes(new Uint8Array(name.endsWith('.table') ? 9 : 256), name);
        const model = await openPacked({ label, open }, bytes);
        try {
          for (const { weights } of Object.values(model.parts)) {
            for (const [name, { bytes: size }] of weights.tensors) await weights.read(name, 0, Math.min(8, size));
          }
        } finally {
          await model.close();
        }
      },
    },
  ];
}

/** A handful of words of each vocabulary: what is to break is the structure. */
function smallClip(): object {
  const json = clipTokenizerJson();
  const words = ['a', 'r', 'e', 'd', 'a</w>', 'd</w>', 're', 'red</w>', '<|startoftext|>', '<|endoftext|>'];
  const ids = Object.fromEntries(words.map((word, id) => [word, id]));
  return {
    ...json,
    added_tokens: json.added_tokens.map((token) => ({ ...token, id: ids[token.content] })),
    model: { ...json.model, vocab: ids, merges: ['r e', 're d</w>'] },
  };
}

function smallT5(): object {
  const json = JSON.parse(files.t5());
  const vocab = json.model.vocab.slice(0, 60);
  const added = json.added_tokens.filter(({ id }: { id: number }) => id < vocab.length);
  return { ...json, added_tokens: added, model: { ...json.model, vocab } };
}

/** With its magic, its length and its checksum: damage that only the reader of the structure can find. */
function sealed(body: Uint8Array, { buffer }: Uint8Array): Uint8Array {
  const table = new Uint8Array(12 + body.length);
  table.set(body, 12);
  const view = new DataView(table.buffer);
  view.setUint32(0, new DataView(buffer).getUint32(0, true), true);
  view.setUint32(4, table.length, true);
  const whole = new Uint8Array((body.length >> 2) * 4 + 4);
  whole.set(body);
  let hash = 0x811c9dc5;
  for (const word of new Uint32Array(whole.buffer)) hash = Math.imul(hash ^ word, 0x01000193);
  view.setUint32(8, hash >>> 0, true);
  return table;
}

function packed(): object {
  const part = (name: string) => ({
    shards: [{ file: `${name}-0001.bin`, bytes: 256, sha256: '0'.repeat(64) }],
    tensors: {
      [`${name}.weight`]: { shape: [4, 32], offset: 0, stored: { format: 'q8', rows: 4, cols: 32, layout: 'matrix' } },
      [`${name}.bias`]: { shape: [4], offset: 192, stored: { format: 'f32', rows: 4, cols: 1, layout: 'matrix' } },
      table: { shape: [2, 8], offset: 208, dtype: 'BF16' },
    },
  });
  return {
    version: 1,
    model: 'fuzzed',
    schedule: { shift: 'dynamic', baseShift: 0.5, maxShift: 1.15, baseSeqLen: 256, maxSeqLen: 4096 },
    defaults: { steps: 4 },
    tokenizers: { clip: 'clip.table', t5: 't5.table' },
    parts: Object.fromEntries(['clip', 't5', 'transformer', 'vae'].map((name) => [name, part(name)])),
  };
}
