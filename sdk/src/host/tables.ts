// Builds the compact binary vocabulary tables from a checkpoint's tokenizer files.
// The files are megabytes of JSON; the tables are small enough to serve beside the page and need no parsing in JavaScript.
import { TableWriter, trieOf } from './table-writer.ts';
import {
  type ClipModel,
  clipFromFiles,
  clipFromTokenizerJson,
  invalid,
  type JsonFile,
  t5FromTokenizerJson,
} from './tokenizer-files.ts';

/** CLIP's tokenizer, in either of the forms checkpoints carry. */
export type ClipFiles =
  | {
      /** `tokenizer/vocab.json` */
      vocab: JsonFile;
      /** `tokenizer/merges.txt` */
      merges: string;
    }
  | { tokenizerJson: JsonFile };

const CLIP_MAGIC = 0x314c434b;
/** Of a tokenizer whose splitting pattern begins with the two marks. */
const CLIP_MARKS_MAGIC = 0x324c434b;
const T5_MAGIC = 0x3135544b;
/**
 * Table for {@link ClipTokenizer} from `vocab.json` + `merges.txt`, or from `tokenizer.json`.
 *
 * With `vocab.json` the two marks are `<|startoftext|>` (found in lower-cased text) and `<|endoftext|>` (found as written,
 * also the padding and the unknown token), as FLUX's `tokenizer_config.json` says.
 *
 * @returns about 0.3 MB for CLIP ViT-L/14; serve it compressed
 * @throws KontextError `tokenizer-invalid` when a file is damaged, or describes something else than CLIP's pipeline
 * @see https://arxiv.org/abs/2103.00020 section 2.4, and openai/CLIP `simple_tokenizer.py`
 */
export function buildClipTable(files: ClipFiles): Uint8Array<ArrayBuffer> {
  const clip =
    'tokenizerJson' in files ? clipFromTokenizerJson(files.tokenizerJson) : clipFromFiles(files.vocab, files.merges);
  const raw = trieOf(clip.added.filter((token) => !token.normalized).map(({ content, id }) => [content, id]));
  const normalized = trieOf(
    clip.added.filter((token) => token.normalized).map(({ content, id }) => [lower(content), id]),
  );
  const writer = new TableWriter(clip.splitsMarks ? CLIP_MARKS_MAGIC : CLIP_MAGIC);
  for (const value of [clip.size, raw.labels.length, normalized.labels.length, clip.merges.length])
    writer.varint(value);
  for (const id of [clip.start, clip.end, clip.end]) writer.varint(id);
  const alphabet = byteAlphabet();
  for (const char of alphabet) writer.varint(clip.vocab.get(char) ?? clip.unknown);
  for (const char of alphabet) writer.varint(clip.vocab.get(`${char}</w>`) ?? clip.unknown);
  writer.trie(raw);
  writer.trie(normalized);
  clip.merges.forEach((merge, rank) => {
    for (const id of mergeIds(clip, merge, rank)) writer.varint(id);
  });
  return writer.finish();
}

/**
 * Table for {@link T5Tokenizer} from `tokenizer_2/tokenizer.json`.
 *
 * @returns about 0.7 MB for T5 v1.1; serve it compressed
 * @throws KontextError `tokenizer-invalid` when the file is damaged, or describes something else than T5's pipeline
 * @see https://arxiv.org/abs/1804.10959 (Unigram), https://arxiv.org/abs/1808.06226 (SentencePiece)
 */
export function buildT5Table(files: { tokenizerJson: JsonFile }): Uint8Array<ArrayBuffer> {
  const t5 = t5FromTokenizerJson(files.tokenizerJson);
  const special = trieOf(t5.added.map(({ content, id }) => [content, id]));
  const pieces = trieOf(t5.pieces);
  const { units, strings } = t5.characterMap;
  const writer = new TableWriter(T5_MAGIC);
  const prefix = { first: 4, always: 8, never: 0 }[t5.prefix];
  const flags = (t5.stripRight ? 1 : 0) | (t5.joinSpaces ? 2 : 0) | prefix | (t5.splitWhite ? 16 : 0);
  for (const value of [flags, t5.scores.length, special.labels.length, pieces.labels.length]) writer.varint(value);
  for (const value of [units.length / 4, strings.length, t5.end, t5.pad, t5.unknown]) writer.varint(value);
  writer.scores(t5.scores);
  writer.trie(special);
  writer.trie(pieces);
  writer.bytes(units);
  writer.bytes(strings);
  return writer.finish();
}

function mergeIds(clip: ClipModel, [left, right]: readonly [string, string], rank: number): number[] {
  return [left, right, left + right].map((token) => {
    const id = clip.vocab.get(token);
    if (id !== undefined) return id;
    throw invalid(`merge ${rank + 1} ("${left} ${right}") needs the token "${token}", which the vocabulary lacks`);
  });
}

/** Lower case as the tokenizer sees text: by character, so that no sigma is a final one. */
function lower(content: string): string {
  return Array.from(content.normalize('NFC').replace(/\p{White_Space}+/gu, ' '), (char) => char.toLowerCase()).join('');
}

/** The characters that stand for the 256 bytes in vocab.json (GPT-2's table): printable Latin-1 as itself, the rest from U+0100. */
function byteAlphabet(): string[] {
  let next = 0x100;
  return Array.from({ length: 256 }, (_, byte) => {
    const printable = (byte > 0x20 && byte < 0x7f) || (byte > 0xa0 && byte !== 0xad);
    return String.fromCharCode(printable ? byte : next++);
  });
}
