// Compares the WASM tokenizers with the oracles on random texts; used by the short run in the suite and by the long one.
import { buildClipTable, buildT5Table } from '../../../sdk/src/host/tables.ts';
import { ClipTokenizer, T5Tokenizer } from '../../../sdk/src/host/tokenizers.ts';
import { currentClipJson, currentT5Json, loadTokenizers, prompts } from '../../support/tokenizers.ts';
import { currentClip, currentT5, rawClip, rawT5, repairedClip, repairedT5 } from './oracle.ts';
import { randomSource, randomText } from './texts.ts';

export interface FuzzReport {
  seed: number;
  texts: number;
  /** Texts whose ids differ from the repaired oracle: none is allowed. */
  differences: { tokenizer: string; text: string; ids: number[]; oracle: number[] }[];
  /** Texts on which a documented defect of the oracle shows. */
  defects: { clip: number; t5: number };
}

type Oracle = ReturnType<typeof rawClip>;

export async function fuzz(seed: number, texts: number, progress?: (done: number) => void): Promise<FuzzReport> {
  const { clip, t5, host } = await loadTokenizers();
  const newClip = ClipTokenizer.create(host, buildClipTable({ tokenizerJson: currentClipJson() }));
  const newT5 = T5Tokenizer.create(host, buildT5Table({ tokenizerJson: currentT5Json() }));
  const pairs: { name: string; ours: ClipTokenizer | T5Tokenizer; repaired: Oracle; raw?: Oracle }[] = [
    { name: 'clip', ours: clip, raw: rawClip(), repaired: repairedClip() },
    { name: 't5', ours: t5, raw: rawT5(), repaired: repairedT5() },
    { name: 'clip of transformers 5', ours: newClip, repaired: currentClip() },
    { name: 't5 of transformers 5', ours: newT5, repaired: currentT5() },
  ];
  const source = prompts().map(({ text }) => text);
  const random = randomSource(seed);
  const report: FuzzReport = { seed, texts, differences: [], defects: { clip: 0, t5: 0 } };
  for (let i = 0; i < texts && report.differences.length < 10; i++) {
    const text = randomText(random, source);
    for (const { name, ours, raw, repaired } of pairs) {
      const ids = ours.encodeAll(text);
      const oracle = repaired.encode(text).ids;
      if (!same(ids, oracle)) report.differences.push({ tokenizer: name, text, ids: [...ids], oracle });
      if (raw && !same(ids, raw.encode(text).ids)) report.defects[name as 'clip' | 't5']++;
    }
    if (i % 10_000 === 9_999) progress?.(i + 1);
  }
  return report;
}

function same(ids: Int32Array, oracle: number[]): boolean {
  return ids.length === oracle.length && oracle.every((id, i) => id === ids[i]);
}
