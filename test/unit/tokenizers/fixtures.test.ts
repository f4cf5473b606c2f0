// Token ids of the reference implementations, all prompts, both tokenizers.
// One wrong id is another picture, so the comparison is exact, padding and truncation included.
import { describe, expect, it } from 'vitest';
import { loadTokenizers, prompts } from '../../support/tokenizers.ts';

const { clip, t5 } = await loadTokenizers();
const padded = (ids: number[], length: number, pad: number) => [
  ...ids,
  ...Array<number>(length - ids.length).fill(pad),
];

describe('reference prompts', () => {
  it('has the 423 prompts', () => expect(prompts()).toHaveLength(423));

  for (const { category, text, ...wanted } of prompts()) {
    it(`${category}: ${JSON.stringify(text.slice(0, 60))}`, () => {
      expect([...clip.encode(text)]).toEqual(padded(wanted.clip, 77, 49407));
      expect([...t5.encode(text)]).toEqual(padded(wanted.t5, 512, 0));
      expect(clip.count(text)).toBe(wanted.clip_untruncated_length);
      expect(t5.count(text)).toBe(wanted.t5_untruncated_length);
      expect(clip.encodeWithCount(text).truncated).toBe(wanted.clip_untruncated_length > 77);
      expect(t5.encodeWithCount(text).truncated).toBe(wanted.t5_untruncated_length > 512);
    });
  }
});

describe('lengths', () => {
  const text = prompts().reduce((longest, { text }) => (text.length > longest.length ? text : longest), '');

  it('cuts and keeps the end token at every length', () => {
    for (const tokenizer of [clip, t5]) {
      const all = [...tokenizer.encodeAll(text)];
      for (let length = 2; length <= all.length; length += 7) {
        const ids = [...tokenizer.encode(text, { length })];
        expect(ids).toEqual([...all.slice(0, length - 1), all.at(-1)]);
      }
    }
  });

  it('pads beyond the trained lengths', () => {
    expect([...clip.encode('a red fox', { length: 100 })].slice(5)).toEqual(Array(95).fill(49407));
    expect([...t5.encode('a red fox', { length: 1000 })].slice(6)).toEqual(Array(994).fill(0));
  });

  it('makes the same ids from an empty text as from white space', () => {
    for (const empty of ['', ' ', '\n\t ', '\u3000']) {
      expect([...clip.encodeAll(empty)]).toEqual([49406, 49407]);
      expect([...t5.encodeAll(empty)]).toEqual([1]);
    }
  });
});
