// Every assigned character once, alone and under a mark: proves the Unicode tables inside the WASM one by one.
// Random texts meet a given rare character too seldom for that.
import { expect, it } from 'vitest';
import { loadTokenizers } from '../../support/tokenizers.ts';
import { repairedClip, repairedT5 } from './oracle.ts';

// The tables are Unicode 17's; another version of ICU in the oracle would know other characters.
it.skipIf(process.versions.unicode !== '17.0')(
  'tokenizes every assigned character as the oracle does',
  async () => {
    const { clip, t5 } = await loadTokenizers();
    const oracle = { clip: repairedClip(), t5: repairedT5() };
    const uniform = /[\p{Script=Han}\p{Script=Hangul}\p{Script=Tangut}\p{Script=Nushu}]/u;
    let characters: string[] = [];
    const compare = () => {
      // U+0344 decomposes into two marks, U+0316 sorts before them; the letter before each shows whether a word goes on.
      const text = characters.map((char) => `a${char}\u0344\u0316 ${char}`).join(' ');
      expect([...clip.encodeAll(text)], text).toEqual(oracle.clip.encode(text).ids);
      expect([...t5.encodeAll(text)], text).toEqual(oracle.t5.encode(text).ids);
      characters = [];
    };
    for (let c = 0; c < 0xf0000; c++) {
      const char = String.fromCodePoint(c);
      if (!/\p{Assigned}/u.test(char) || /\p{Surrogate}|\p{Private_Use}/u.test(char)) continue;
      if (uniform.test(char) && c % 32 !== 0 && char.normalize('NFC') === char) continue;
      characters.push(char);
      if (characters.length === 64) compare();
    }
    compare();
  },
  300_000,
);
