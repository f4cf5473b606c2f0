// Two oracles: @huggingface/tokenizers as it is, and the same with its known defects repaired one by one.
// The repairs are written from the behaviour of the `tokenizers` library (Rust), which the fixtures record; tokenizers.test.ts proves each.
import { Tokenizer } from '@huggingface/tokenizers';
import { clipTokenizerJson, currentClipJson, currentT5Json, files } from '../../support/tokenizers.ts';

/** The oracle's internals that the repairs touch; its types declare the classes but not every field. */
interface Internals {
  encode(text: string): { ids: number[] };
  /** Also called with null, for the second text of a pair. */
  encode_text(text: string | null): string[] | null;
  normalizer: { normalizers: { normalize(text: string): string }[] } & ((text: string) => string);
  pre_tokenizer: ((text: string, options: { section_index: number }) => string[]) & {
    tokenizers: { pattern: RegExp }[];
  };
  model: (tokens: string[]) => string[];
  added_tokens_map: Map<string, { normalized: boolean }>;
  splitter_unnormalized: { split(text: string): string[] };
  splitter_normalized: { split(text: string): string[] };
}

const spaces = /\p{White_Space}+$/u;

export function rawClip(): Internals {
  return new Tokenizer(clipTokenizerJson(), {}) as unknown as Internals;
}

export function rawT5(): Internals {
  return new Tokenizer(JSON.parse(files.t5()), {}) as unknown as Internals;
}

/** Defects: final sigma, U+FEFF as white space, raw tokens found in normalised text. */
export function repairedClip(clip = rawClip()): Internals {
  const lowercase = clip.normalizer.normalizers[2]!;
  lowercase.normalize = (text) => Array.from(text, (char) => char.toLowerCase()).join('');
  clip.pre_tokenizer.tokenizers[1]!.pattern =
    /'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\p{White_Space}\p{L}\p{N}]+|\p{White_Space}+/gu;
  repairSections(clip);
  return clip;
}

/** The forms of transformers 5, with the same defects repaired. */
export function currentClip(): Internals {
  return repairedClip(new Tokenizer(currentClipJson(), {}) as unknown as Internals);
}

/** Defects: character map replaced by NFKC, white space as JavaScript has it, raw tokens found in normalised text. */
export function currentT5(): Internals {
  const json = currentT5Json();
  const t5 = new Tokenizer(json, {}) as unknown as Internals;
  const normalize = precompiled(json.normalizer.precompiled_charsmap);
  // The one step, in the place of the normaliser itself.
  Object.assign(t5, { normalizer: (text: string) => normalize(text) });
  const words = (text: string) => text.split(/\p{White_Space}+/u).filter((word) => word !== '');
  const white = t5.pre_tokenizer.tokenizers[0]!;
  Object.assign(white, { pre_tokenize_text: words });
  repairSections(t5);
  return t5;
}

/** Defects: character map replaced by NFKC, JavaScript's trimEnd, raw tokens found in normalised text. */
export function repairedT5(): Internals {
  const t5 = rawT5();
  const { normalizers } = t5.normalizer;
  const json = JSON.parse(files.t5()) as { normalizer: { normalizers: { precompiled_charsmap: string }[] } };
  normalizers[0]!.normalize = precompiled(json.normalizer.normalizers[0]!.precompiled_charsmap);
  normalizers[1]!.normalize = (text) => text.replace(spaces, '');
  repairSections(t5);
  return t5;
}

/**
 * The character map as a dictionary, applied by grapheme cluster: a cluster of less than six bytes is replaced whole by the
 * replacement of its shortest known prefix, everything else goes by character.
 */
export function precompiled(base64: string): (text: string) => string {
  const map = readCharacterMap(base64);
  const segmenter = new Intl.Segmenter('en', { granularity: 'grapheme' });
  const encoder = new TextEncoder();
  const shortestPrefix = (text: string) => {
    if (!text.includes('\0'))
      for (let end = 1; end <= text.length; end++) {
        const replacement = map.get(text.slice(0, end));
        if (replacement !== undefined) return replacement;
      }
    return undefined;
  };
  return (text) => {
    let out = '';
    for (const { segment } of segmenter.segment(text)) {
      const whole = encoder.encode(segment).length < 6 ? shortestPrefix(segment) : undefined;
      out += whole ?? Array.from(segment, (char) => shortestPrefix(char) ?? char).join('');
    }
    return out;
  };
}

/** Every key of the double array, found by walking it. */
function readCharacterMap(base64: string): Map<string, string> {
  const data = Buffer.from(base64, 'base64');
  const size = data.readUInt32LE(0);
  const unit = (node: number) => data.readUInt32LE(4 + 4 * node);
  const strings = data.subarray(4 + size);
  const offset = (value: number) => (value >>> 10) << ((value & 0x200) >>> 6);
  const map = new Map<string, string>();
  const walk = (node: number, key: number[]) => {
    for (let byte = 1; byte < 256; byte++) {
      const next = node ^ byte;
      if (next * 4 >= size || (unit(next) & 0x800000ff) >>> 0 !== byte) continue;
      const children = next ^ offset(unit(next));
      if (unit(next) & 0x100) {
        const start = unit(children) & 0x7fffffff;
        map.set(Buffer.from([...key, byte]).toString(), strings.subarray(start, strings.indexOf(0, start)).toString());
      }
      walk(children, [...key, byte]);
    }
  };
  walk(offset(unit(0)), []);
  return map;
}

/** Looks for raw tokens in raw text only, and for normalised ones in normalised text only. */
function repairSections(tokenizer: Internals): void {
  const { added_tokens_map: added, splitter_unnormalized: raw, splitter_normalized: normalized } = tokenizer;
  tokenizer.encode_text = (text) =>
    text === null
      ? null
      : raw.split(text).flatMap((section, section_index) => {
          if (added.get(section)?.normalized === false) return [section];
          return normalized.split(tokenizer.normalizer(section)).flatMap((part) => {
            if (added.get(part)?.normalized === true) return [part];
            return part === '' ? [] : tokenizer.model(tokenizer.pre_tokenizer(part, { section_index }));
          });
        });
}
