// Tokenizer files as transformers 5 writes them: other steps than in FLUX's repository, the ids of its tokenizers but for four prompts.
import { expect, it } from 'vitest';
import { loadHost } from '../../../sdk/src/host/module.ts';
import { buildClipTable, buildT5Table } from '../../../sdk/src/host/tables.ts';
import { ClipTokenizer, T5Tokenizer } from '../../../sdk/src/host/tokenizers.ts';
import { currentClipJson, currentT5Json, prompts } from '../../support/tokenizers.ts';

const host = await loadHost();

/** Where T5's form differs: U+0085 is white space there, and a mark follows every added token. */
const OTHERS: Readonly<Record<string, number[]>> = {
  'nel\u0085inside': [3, 29, 15, 40, 1096, 1],
  'a</s>b': [3, 9, 1, 3, 115, 1],
  'x<unk>y': [3, 226, 2, 3, 63, 1],
  'a<extra_id_5>b': [3, 9, 32094, 3, 115, 1],
};

it('gives CLIP’s ids on all 423 prompts', () => {
  const clip = ClipTokenizer.create(host, buildClipTable({ tokenizerJson: currentClipJson() }));
  const wrong = prompts().filter(({ text, clip: wanted }) => {
    const ids = clip.encode(text);
    return ids.length !== 77 || ids.some((id, i) => id !== (wanted[i] ?? 49407));
  });
  expect(wrong.map(({ text }) => text)).toEqual([]);
  clip.dispose();
});

it('takes a mark in lower-cased text for words of its own', () => {
  const clip = ClipTokenizer.create(host, buildClipTable({ tokenizerJson: currentClipJson() }));
  const words = (...list: string[]) => list.flatMap((word) => [...clip.encodeAll(word)].slice(1, -1));
  for (const name of ['STARTOFTEXT', 'ENDOFTEXT']) {
    const whole = name === 'STARTOFTEXT' ? [49406] : words('<|', 'endoftext', '|>');
    // Punctuation behind it begins a word, punctuation before it swallows its first sign.
    expect([...clip.encodeAll(`<|${name}|>!?`)]).toEqual([49406, ...whole, ...words('!?'), 49407]);
  }
  expect([...clip.encodeAll('!<|ENDOFTEXT|>!')]).toEqual([49406, ...words('!<|', 'endoftext', '|>!'), 49407]);
  expect([...clip.encodeAll('<|ENDOFTEXT')]).toEqual([49406, ...words('<|', 'endoftext'), 49407]);
  clip.dispose();
});

it('gives T5’s ids on 419 prompts, and its own on four', () => {
  const t5 = T5Tokenizer.create(host, buildT5Table({ tokenizerJson: currentT5Json() }));
  const differing: string[] = [];
  for (const { text, t5: original, t5_untruncated_length } of prompts()) {
    const wanted = OTHERS[text] ?? original;
    if (OTHERS[text]) differing.push(text);
    expect([...t5.encode(text)].slice(0, wanted.length), text).toEqual(wanted);
    expect(t5.count(text), text).toBe(OTHERS[text]?.length ?? t5_untruncated_length);
  }
  expect(differing.sort()).toEqual(Object.keys(OTHERS).sort());
  t5.dispose();
});

it.each<[string, (json: ReturnType<typeof currentT5Json>) => unknown]>([
  ['another first step', (json) => (json.pre_tokenizer.pretokenizers[0].type = 'Whitespace')],
  ['no mark behind white space', (json) => (json.pre_tokenizer.pretokenizers[1].prepend_scheme = 'first')],
  ['a third step', (json) => json.pre_tokenizer.pretokenizers.push({ type: 'Digits' })],
])('refuses a T5 file with %s', (_, change) => {
  const json = currentT5Json();
  change(json);
  expect(() => buildT5Table({ tokenizerJson: json })).toThrow(/pre_tokenizer|prepend_scheme/);
});

it('refuses a CLIP file whose byte level would leave the marks whole', () => {
  const json = currentClipJson();
  json.pre_tokenizer.pretokenizers[1].use_regex = false;
  expect(() => buildClipTable({ tokenizerJson: json })).toThrow(/use_regex/);
});
