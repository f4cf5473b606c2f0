// The real vocabularies, their tables and the reference prompts, for tests and benches of the tokenizers.
// They are read from the demo model: the repository has one copy of those four megabytes.
import { readFileSync } from 'node:fs';
import { loadHost } from '../../sdk/src/host/module.ts';
import { buildClipTable, buildT5Table } from '../../sdk/src/host/tables.ts';
import { ClipTokenizer, T5Tokenizer } from '../../sdk/src/host/tokenizers.ts';

const root = new URL('../../', import.meta.url);
const read = (path: string) => readFileSync(new URL(path, root), 'utf8');

/** Text of FLUX.1's tokenizer files. */
export const files = {
  vocab: () => read('examples/demo-model/model/tokenizer/vocab.json'),
  merges: () => read('examples/demo-model/model/tokenizer/merges.txt'),
  t5: () => read('examples/demo-model/model/tokenizer_2/tokenizer.json'),
};

/** The vocabulary of `vocab.json` + `merges.txt` in the form of a `tokenizer.json`, as CLIP's repository has it. */
export function clipTokenizerJson() {
  const merges = files.merges().trim().split('\n').slice(1);
  return {
    added_tokens: [
      {
        id: 49406,
        content: '<|startoftext|>',
        single_word: false,
        lstrip: false,
        rstrip: false,
        normalized: true,
        special: true,
      },
      {
        id: 49407,
        content: '<|endoftext|>',
        single_word: false,
        lstrip: false,
        rstrip: false,
        normalized: false,
        special: true,
      },
    ],
    normalizer: {
      type: 'Sequence',
      normalizers: [
        { type: 'NFC' },
        { type: 'Replace', pattern: { Regex: '\\s+' }, content: ' ' },
        { type: 'Lowercase' },
      ],
    },
    pre_tokenizer: {
      type: 'Sequence',
      pretokenizers: [
        {
          type: 'Split',
          pattern: { Regex: "'s|'t|'re|'ve|'m|'ll|'d|[\\p{L}]+|[\\p{N}]|[^\\s\\p{L}\\p{N}]+" },
          behavior: 'Removed',
          invert: true,
        },
        { type: 'ByteLevel', add_prefix_space: false, trim_offsets: true },
      ],
    },
    post_processor: {
      type: 'RobertaProcessing',
      sep: ['<|endoftext|>', 49407],
      cls: ['<|startoftext|>', 49406],
      trim_offsets: false,
      add_prefix_space: false,
    },
    decoder: null,
    model: {
      type: 'BPE',
      dropout: null,
      unk_token: '<|endoftext|>',
      continuing_subword_prefix: '',
      end_of_word_suffix: '</w>',
      fuse_unk: false,
      vocab: JSON.parse(files.vocab()) as Record<string, number>,
      merges,
    },
  };
}

const current = (name: string) => JSON.parse(read(`test/fixtures/field/tokenizers-transformers-5/${name}.json`));

/** CLIP's `tokenizer.json` as transformers 5 writes it: merges as pairs, a splitting pattern that begins with the two marks. */
export function currentClipJson() {
  const { clip_model: model, clip_added_tokens: added_tokens } = current('clip-model');
  const merges = files
    .merges()
    .trim()
    .split('\n')
    .slice(1)
    .map((merge) => merge.split(' '));
  return { ...current('clip'), added_tokens, model: { ...model, vocab: JSON.parse(files.vocab()), merges } };
}

/** T5's `tokenizer.json` as transformers 5 writes it: cut at white space, every word marked, the character map alone. */
export function currentT5Json() {
  const { added_tokens, model, normalizer } = JSON.parse(files.t5());
  const { precompiled_charsmap } = normalizer.normalizers[0];
  const json = current('t5');
  return { ...json, added_tokens, model, normalizer: { ...json.normalizer, precompiled_charsmap } };
}

export async function loadTokenizers() {
  const host = await loadHost();
  const clipTable = buildClipTable({ vocab: files.vocab(), merges: files.merges() });
  const t5Table = buildT5Table({ tokenizerJson: files.t5() });
  return {
    host,
    clipTable,
    t5Table,
    clip: ClipTokenizer.create(host, clipTable),
    t5: T5Tokenizer.create(host, t5Table),
  };
}

export interface Prompt {
  category: string;
  text: string;
  clip: number[];
  clip_untruncated_length: number;
  t5: number[];
  t5_untruncated_length: number;
}

/** Texts with the ids of transformers' CLIPTokenizer and of the tokenizers library. */
export function prompts(): Prompt[] {
  return (JSON.parse(read('test/fixtures/tokenizers/prompts.json')) as { items: Prompt[] }).items;
}
