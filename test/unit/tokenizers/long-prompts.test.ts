// Long prompts: what is cut off before tokenizing never had a token in the result, and no memory stays with the module.
import { describe, expect, it } from 'vitest';
import { CLIP_TOKENS, cutPrompt, MAX_PROMPT } from '../../../sdk/src/kontext/cut-prompt.ts';
import { PromptTokens } from '../../../sdk/src/kontext/prompt-tokens.ts';
import { checkRequest } from '../../../sdk/src/kontext/request.ts';
import type { Model } from '../../../sdk/src/model/open.ts';
import { randomSource, randomText } from '../../fuzz/tokenizers/texts.ts';
import { collectGarbage, hasProc } from '../../support/process-use.ts';
import { files, loadTokenizers, prompts } from '../../support/tokenizers.ts';

const { clip, t5, host } = await loadTokenizers();
const source = prompts().map(({ text }) => text);

/** What lies between plain words when one attacks the rule: joiners, marks, white space of every kind, special tokens. */
const between = [
  ' ',
  '  ',
  '\n',
  '\u0301 ',
  ' \u0301',
  '\u0600 ',
  ' \u200d',
  '\u200b',
  '\u3000',
  ' </s> ',
  '<|endoftext|>',
  " 's ",
  '\0',
  '. ',
  ' 你好',
];

function longText(random: (limit: number) => number): string {
  const pick = (list: readonly string[]) => list[random(list.length)]!;
  const kind = random(4);
  const word = () => pick(pick(source).split(' '));
  const piece = () => {
    if (kind === 0) return `${word()} `;
    if (kind === 1) return word() + pick(between);
    if (kind === 2) return `${pick(['a', 'I', '7', 'xyz', 'Zzyzx'])}${random(8) ? ' ' : pick(between)}`;
    return `${randomText(random, source)} `;
  };
  return Array.from({ length: 20 + random(900) }, piece).join('');
}

describe('cutting', () => {
  it('changes no id of 400 long texts, at any length', () => {
    const random = randomSource(7);
    let cut = 0;
    for (let i = 0; i < 400; i++) {
      const text = longText(random);
      const length = [2, 16, 77, 256, 512][random(5)]!;
      const read = cutPrompt(text, length);
      if (read.length < text.length) cut++;
      for (const tokenizer of [clip, t5]) {
        const [short, whole] = [read, text].map((one) => tokenizer.encodeWithCount(one, { length }));
        expect(short!.ids, JSON.stringify({ text, length })).toEqual(whole!.ids);
        expect(short!.truncated).toBe(whole!.truncated);
      }
    }
    expect(cut).toBeGreaterThan(200);
  });

  it('leaves a page of what was a book', () => {
    const book = 'the quick brown fox jumps over it and rests. '.repeat(20_000);
    const read = cutPrompt(book, 512);
    expect(read.length).toBeLessThan(4000);
    expect(t5.encode(read)).toEqual(t5.encode(book));
    expect(clip.encode(cutPrompt(book, CLIP_TOKENS))).toEqual(clip.encode(book));
  });

  it('leaves short texts, texts without words and refused ones alone', () => {
    for (const text of ['a cat', '你好'.repeat(5000), 'a b \ud800 '.repeat(500), 'x'.repeat(5000), '7 '.repeat(2000)]) {
      const read = cutPrompt(text, 512);
      if (text.startsWith('7')) expect(read.length).toBeLessThan(1100);
      else expect(read).toBe(text);
    }
  });

  it('refuses a prompt that stays too long, and takes one that does not', () => {
    const words = 'red fox '.repeat(MAX_PROMPT / 4);
    expect(checkRequest({ prompt: words }).prompt).toBe(words);
    const solid = 'x'.repeat(MAX_PROMPT + 1);
    for (const texts of [
      { prompt: solid },
      { prompt: 'a', clipPrompt: solid },
      { prompt: 'a', negativePrompt: solid, trueCfgScale: 2 },
    ]) {
      expect(() => checkRequest(texts)).toThrow(/1048577 characters.*at most 1048576/);
    }
    expect(checkRequest({ prompt: solid.slice(1) }).prompt).toHaveLength(MAX_PROMPT);
  });
});

describe.runIf(hasProc)('memory', () => {
  it('is given back after large texts', { timeout: 120_000 }, async () => {
    const model = {
      clipTokenizer: { vocab: files.vocab(), merges: files.merges() },
      t5Tokenizer: { tokenizerJson: files.t5() },
    } as Model;
    const own = await host.another();
    const tokens = await PromptTokens.create(own, model);
    // CLIP's worst: one word, merged with a heap.
    const texts = ['x'.repeat(MAX_PROMPT / 4), 'é'.repeat(MAX_PROMPT / 8)];
    const once = async () => {
      for (const text of texts) {
        expect((await tokens.encode('clip', text, 77)).ids).toEqual(clip.encode(text));
        expect((await tokens.encode('t5', text, 512)).ids).toEqual(t5.encode(text));
      }
    };
    await once();
    const before = own.bytes.length;
    await collectGarbage();
    const resident = process.memoryUsage().rss;
    for (let i = 0; i < 3; i++) await once();
    await collectGarbage();
    expect(own.bytes.length).toBe(before);
    // Small beside the module that tokenized the same texts and kept its memory.
    expect(before).toBeLessThan(host.bytes.length / 2);
    expect(process.memoryUsage().rss - resident).toBeLessThan(40e6);
    tokens.dispose();
  });
});
