// Building tables from tokenizer files: both forms of CLIP's, variants of T5's, and files that must be refused.
// A file whose pipeline differs in one step would give other ids silently, so each step is changed once here.
import { Tokenizer } from '@huggingface/tokenizers';
import { describe, expect, it } from 'vitest';
import { KontextError } from '../../../runtime/src/errors.ts';
import { buildClipTable, buildT5Table } from '../../../sdk/src/host/tables.ts';
import { T5Tokenizer } from '../../../sdk/src/host/tokenizers.ts';
import { clipTokenizerJson, files, loadTokenizers } from '../../support/tokenizers.ts';

const { host, clipTable, t5Table } = await loadTokenizers();
const t5Json = JSON.parse(files.t5());

function refusal(build: () => unknown): string {
  try {
    build();
  } catch (error) {
    expect(error).toBeInstanceOf(KontextError);
    expect((error as KontextError).code).toBe('tokenizer-invalid');
    return (error as KontextError).message;
  }
  throw new Error('the files were accepted');
}

/** Whether two tables are equal; `toEqual` takes a minute for arrays of this size. */
const same = (a: Uint8Array, b: Uint8Array) => Buffer.compare(a, b) === 0;

/** A deep copy with one value replaced. */
function changed(json: object, path: (string | number)[], value: unknown): object {
  const copy = structuredClone(json);
  let target = copy as Record<string | number, unknown>;
  for (const key of path.slice(0, -1)) target = target[key] as Record<string | number, unknown>;
  target[path.at(-1)!] = value;
  return copy;
}

describe('CLIP files', () => {
  it('makes the same table from tokenizer.json, with merges as text or as pairs', () => {
    const json = clipTokenizerJson();
    expect(same(buildClipTable({ tokenizerJson: JSON.stringify(json) }), clipTable)).toBe(true);
    const pairs = json.model.merges.map((merge) => merge.split(' '));
    expect(same(buildClipTable({ tokenizerJson: changed(json, ['model', 'merges'], pairs) }), clipTable)).toBe(true);
  });

  it('takes merges.txt with Windows line ends and without its version line', () => {
    const vocab = files.vocab();
    const merges = files.merges();
    expect(same(buildClipTable({ vocab, merges: merges.replaceAll('\n', '\r\n') }), clipTable)).toBe(true);
    expect(same(buildClipTable({ vocab, merges: merges.slice(merges.indexOf('\n') + 1) }), clipTable)).toBe(true);
  });

  it('refuses damaged files and says which', () => {
    const vocab = files.vocab();
    const merges = files.merges();
    expect(refusal(() => buildClipTable({ vocab: vocab.slice(0, -100), merges }))).toContain('vocab.json is not JSON');
    expect(refusal(() => buildClipTable({ vocab: '{}', merges }))).toContain('vocab.json is empty');
    expect(refusal(() => buildClipTable({ vocab: '[]', merges }))).toContain('vocab.json');
    expect(refusal(() => buildClipTable({ vocab: '{"a": -1}', merges }))).toContain('"a"');
    expect(refusal(() => buildClipTable({ vocab: '{"a": 0}', merges: '' }))).toContain('<|startoftext|>');
    expect(refusal(() => buildClipTable({ vocab, merges: `${merges}\nlonely` }))).toContain('merges.txt');
    expect(refusal(() => buildClipTable({ vocab, merges: `${merges.trimEnd()}\nqzq zqz` }))).toContain('"qzq"');
  });

  it.each<[string, (string | number)[], unknown]>([
    ['another model', ['model', 'type'], 'WordPiece'],
    ['no end-of-word mark', ['model', 'end_of_word_suffix'], null],
    ['dropout', ['model', 'dropout'], 0.1],
    ['fused unknowns', ['model', 'fuse_unk'], true],
    ['no unknown token', ['model', 'unk_token'], null],
    ['an empty vocabulary', ['model', 'vocab'], {}],
    ['no merges', ['model', 'merges'], null],
    ['NFKC', ['normalizer', 'normalizers', 0, 'type'], 'NFKC'],
    ['other white space', ['normalizer', 'normalizers', 1, 'pattern'], { String: ' ' }],
    ['no lower case', ['normalizer', 'normalizers'], [{ type: 'NFC' }]],
    ['another splitting pattern', ['pre_tokenizer', 'pretokenizers', 0, 'pattern'], { Regex: '\\w+' }],
    ['a space in front', ['pre_tokenizer', 'pretokenizers', 1, 'add_prefix_space'], true],
    ['another template', ['post_processor', 'type'], 'BertProcessing'],
    ['marks without ids', ['post_processor', 'cls'], '<s>'],
    ['a token that eats spaces', ['added_tokens', 0, 'lstrip'], true],
    ['a token without content', ['added_tokens', 0, 'content'], ''],
    ['a token that is none', ['added_tokens', 1], null],
    ['half a surrogate pair in a token', ['added_tokens', 0, 'content'], '<\ud800>'],
  ])('refuses a tokenizer.json with %s', (_, path, value) => {
    refusal(() => buildClipTable({ tokenizerJson: changed(clipTokenizerJson(), path, value) }));
  });
});

describe('T5 files', () => {
  it.each<[string, (string | number)[], unknown]>([
    ['another model', ['model', 'type'], 'BPE'],
    ['byte fallback', ['model', 'byte_fallback'], true],
    ['an empty vocabulary', ['model', 'vocab'], []],
    ['a piece without a score', ['model', 'vocab', 7], ['x']],
    ['an infinite score', ['model', 'vocab', 7], ['x', Number.NEGATIVE_INFINITY]],
    ['an unknown id outside the vocabulary', ['model', 'unk_id'], 99_999],
    ['no character map', ['normalizer', 'normalizers', 0], { type: 'NFKC' }],
    ['a character map that is not base64', ['normalizer', 'normalizers', 0, 'precompiled_charsmap'], '***'],
    ['a character map that is cut off', ['normalizer', 'normalizers', 0, 'precompiled_charsmap'], 'ALQCAACEAAAA'],
    ['a strip on the left', ['normalizer', 'normalizers', 1, 'strip_left'], true],
    ['another replacement', ['normalizer', 'normalizers', 2, 'content'], ' '],
    ['a further step', ['normalizer', 'normalizers', 3], { type: 'Lowercase' }],
    ['another pre-tokenizer', ['pre_tokenizer', 'type'], 'Whitespace'],
    ['an unknown prefix rule', ['pre_tokenizer', 'prepend_scheme'], 'last'],
    ['a start token', ['post_processor', 'single'], [{ SpecialToken: { id: '</s>' } }, { Sequence: { id: 'A' } }]],
    ['an end token without an id', ['post_processor', 'special_tokens'], {}],
    ['no padding token', ['added_tokens', 0, 'content'], '<padding>'],
    ['a normalised added token', ['added_tokens', 3, 'normalized'], true],
    ['an absurd id', ['added_tokens', 3, 'id'], 2 ** 31],
    ['a token that is none', ['added_tokens', 3], null],
    ['a template of nothing', ['post_processor', 'single'], [null, null]],
    ['a template without a token', ['post_processor', 'single', 1], { SpecialToken: null }],
    // Two such pieces have the same bytes, which once sent the trie's builder round in circles.
    [
      'half surrogate pairs as pieces',
      ['model', 'vocab'],
      [
        ['<unk>', 0],
        ['\ud800', -1],
        ['\ud801', -1],
      ],
    ],
  ])('refuses a tokenizer.json with %s', (_, path, value) => {
    refusal(() => buildT5Table({ tokenizerJson: changed(t5Json, path, value) }));
  });

  it('refuses a file that is cut off', () => {
    expect(refusal(() => buildT5Table({ tokenizerJson: files.t5().slice(0, 1_000_000) }))).toContain(
      'tokenizer.json is not JSON',
    );
  });

  it.each(['first', 'always', 'never'])('puts the ▁ in front as prepend_scheme "%s" says', (scheme) => {
    const json = changed(t5Json, ['pre_tokenizer', 'prepend_scheme'], scheme);
    const tokenizer = T5Tokenizer.create(host, buildT5Table({ tokenizerJson: json }));
    const oracle = new Tokenizer(json, {});
    for (const text of ['fox', ' fox', 'a</s>fox</s> b', '</s>fox']) {
      expect([...tokenizer.encodeAll(text)], text).toEqual(oracle.encode(text).ids);
    }
    tokenizer.dispose();
  });

  it('leaves out the strip and the joining of spaces where the file does', () => {
    const json = changed(t5Json, ['normalizer', 'normalizers'], [t5Json.normalizer.normalizers[0]]);
    const tokenizer = T5Tokenizer.create(host, buildT5Table({ tokenizerJson: json }));
    const oracle = new Tokenizer(json, {});
    for (const text of ['a  b', 'a   b  ', ' '])
      expect([...tokenizer.encodeAll(text)], text).toEqual(oracle.encode(text).ids);
    tokenizer.dispose();
  });

  it('keeps scores that need 64 bits', () => {
    // Both segmentations of "▁ab" differ by less than float32 can tell.
    const vocab = [
      ['<pad>', 0],
      ['</s>', 0],
      ['<unk>', 0],
      ['▁', -1],
      ['a', -1],
      ['b', -1],
      ['▁a', -2 + 1e-12],
      ['ab', -2],
    ];
    const json = changed(changed(t5Json, ['model', 'vocab'], vocab), ['added_tokens'], t5Json.added_tokens.slice(0, 3));
    const tokenizer = T5Tokenizer.create(host, buildT5Table({ tokenizerJson: json }));
    expect([...tokenizer.encodeAll('ab')]).toEqual([6, 5, 1]);
    tokenizer.dispose();
  });

  it('does not depend on the object that was parsed', () => {
    const before = JSON.stringify(t5Json);
    expect(same(buildT5Table({ tokenizerJson: t5Json }), t5Table)).toBe(true);
    expect(JSON.stringify(t5Json)).toBe(before);
  });
});
