// A fixed-seed piece of the fuzz run for the ordinary suite, and one test for each documented defect of the oracle.
// The long run is `npm run fuzz:tokenizers`; a text that fails there belongs into this file or into the unit tests.
import { beforeAll, describe, expect, it } from 'vitest';
import { loadTokenizers, prompts } from '../../support/tokenizers.ts';
import { fuzz } from './compare.ts';
import { rawClip, rawT5, repairedClip, repairedT5 } from './oracle.ts';

const oracles = { clip: [rawClip(), repairedClip()], t5: [rawT5(), repairedT5()] } as const;

/**
 * What the JavaScript oracle gets wrong, against the `tokenizers` library that the reference pipelines use. The first text of a
 * defect is a fixture prompt with that library's ids where one shows it; the others follow from the rule.
 */
const defects = [
  {
    name: 'CLIP text is lower-cased as a whole, so a capital sigma at a word end becomes ς; the library goes by character',
    tokenizer: 'clip',
    texts: ['ΟΔΥΣΣΕΥΣ ΟΔΟΣ ς Σ σ', 'ΟΔΟΣ'],
  },
  {
    name: 'CLIP words split at U+FEFF, which is \\s in JavaScript and no White_Space in Unicode',
    tokenizer: 'clip',
    texts: ['!\ufeff!'],
  },
  {
    name: 'normalised text that reads like a raw special token becomes that token (CLIP)',
    tokenizer: 'clip',
    texts: ['<|ENDOFTEXT|>', '<|EndOfText|>'],
  },
  {
    name: 'normalised text that reads like a raw special token becomes that token (T5)',
    tokenizer: 't5',
    texts: ['＜/s＞', '＜pad＞'],
  },
  {
    name: 'the precompiled character map is replaced by NFKC, which composes over marks that the map drops or keeps apart',
    tokenizer: 't5',
    texts: [
      'Z\u0351\u036b\u0343a\u0349\u0308l\u0321\u0489g\u0335o\u0322',
      'e\u0301\u0301 \uff9c\u0322x',
      'a\u0327\u0301',
    ],
  },
  {
    name: 'U+0085 at the end stays, which JavaScript does not trim though it is White_Space',
    tokenizer: 't5',
    texts: ['end\u0085'],
  },
] as const;

describe('@huggingface/tokenizers', () => {
  let ours: Awaited<ReturnType<typeof loadTokenizers>>;
  beforeAll(async () => {
    ours = await loadTokenizers();
  });

  it('agrees with the WASM tokenizers on 2000 random texts, once repaired', async () => {
    const report = await fuzz(20_261_123, 2000);
    expect(report.differences).toEqual([]);
    // Were the raw oracle right everywhere, the repairs would be dead weight.
    expect(report.defects.clip).toBeGreaterThan(0);
    expect(report.defects.t5).toBeGreaterThan(0);
  });

  it.each([['a composite whose first part composes with what is before it', '\u{16d63}\u{16d68} \u{16d69}\u{16d68}']])(
    'agrees on what the long run found: %s',
    (_, text) => {
      for (const name of ['clip', 't5'] as const) {
        expect([...ours[name].encodeAll(text)]).toEqual(oracles[name][1].encode(text).ids);
      }
    },
  );

  it('agrees with the reference on every fixture prompt, once repaired', () => {
    for (const prompt of prompts()) {
      for (const name of ['clip', 't5'] as const) {
        const { ids } = oracles[name][1].encode(prompt.text);
        const wanted = prompt[name];
        expect(ids.length).toBe(prompt[`${name}_untruncated_length`]);
        expect([...ids.slice(0, wanted.length - 1), ids.at(-1)], JSON.stringify(prompt.text)).toEqual(wanted);
      }
    }
  });

  for (const { name, tokenizer, texts } of defects) {
    it(`has a defect: ${name}`, () => {
      for (const text of texts) {
        const ids = [...ours[tokenizer].encodeAll(text)];
        const [raw, repaired] = oracles[tokenizer].map((oracle) => oracle.encode(text).ids);
        expect(raw, text).not.toEqual(ids);
        expect(repaired, text).toEqual(ids);
        const fixture = prompts().find((prompt) => prompt.text === text);
        if (fixture) expect(ids).toEqual(fixture[tokenizer]);
      }
    });
  }
});
