// Reads the tokenizer files of a checkpoint and refuses what the WASM tokenizers would get wrong.
// A pipeline that differs in one step gives other ids without any error, so every step is compared with what is implemented.
import { KontextError } from '../../../runtime/src/errors.ts';

/** Text or parsed JSON of a file. */
export type JsonFile = string | object;

/** A token that is found in text as a whole, before anything else looks at it. */
export interface AddedToken {
  id: number;
  content: string;
  /** Found in the normalised text instead of the raw one. */
  normalized: boolean;
}

export interface ClipModel {
  vocab: Map<string, number>;
  merges: (readonly [left: string, right: string])[];
  added: AddedToken[];
  start: number;
  end: number;
  unknown: number;
  /** All ids are below. */
  size: number;
  /** The splitting pattern begins with the two marks. */
  splitsMarks: boolean;
}

export interface T5Model {
  pieces: Map<string, number>;
  /** By id; ids that are no piece have the score of the first piece and are never looked up. */
  scores: Float64Array;
  added: AddedToken[];
  end: number;
  pad: number;
  unknown: number;
  /** SentencePiece's precompiled character map: double array of u32 units, then zero-ended replacements. */
  characterMap: { units: Uint8Array; strings: Uint8Array };
  stripRight: boolean;
  joinSpaces: boolean;
  prefix: 'first' | 'always' | 'never';
  /** Text is cut at white space before anything is marked. */
  splitWhite: boolean;
}

type Json = Record<string, unknown>;

const START = '<|startoftext|>';
const END = '<|endoftext|>';
const CLIP_PATTERN = "'s|'t|'re|'ve|'m|'ll|'d|[\\p{L}]+|[\\p{N}]|[^\\s\\p{L}\\p{N}]+";
/** As transformers writes it from version 5 on. */
const CLIP_PATTERN_WITH_MARKS = `<\\|startoftext\\|>|<\\|endoftext\\|>|${CLIP_PATTERN}`;

export function invalid(problem: string, cause?: unknown): KontextError {
  return new KontextError(
    'tokenizer-invalid',
    `The tokenizer files cannot be used: ${problem}. Fetch them again, or take those of a FLUX.1 checkpoint.`,
    { problem },
    { cause },
  );
}

/** `vocab.json` + `merges.txt`, with the special tokens of FLUX's `tokenizer_config.json`. */
export function clipFromFiles(vocabFile: JsonFile, mergesFile: string): ClipModel {
  const vocab = vocabulary(parse(vocabFile, 'vocab.json'), 'vocab.json');
  const lines = mergesFile.split(/\r?\n/);
  if (lines[0]?.startsWith('#version')) lines.shift();
  while (lines.at(-1) === '') lines.pop();
  const merges = lines.map((line, i) => splitMerge(line, `line ${i + 1} of merges.txt`));
  const start = required(vocab, START);
  const end = required(vocab, END);
  const added = [
    { id: start, content: START, normalized: true },
    { id: end, content: END, normalized: false },
  ];
  return { vocab, merges, added, start, end, unknown: end, size: 1 + maximum(vocab.values()), splitsMarks: false };
}

/** `tokenizer.json` of a CLIP checkpoint. */
export function clipFromTokenizerJson(file: JsonFile): ClipModel {
  const json = parse(file, 'tokenizer.json');
  const model = object(json.model, 'model');
  expectEqual(model.type, 'BPE', 'model.type');
  expectEqual(model.end_of_word_suffix, '</w>', 'model.end_of_word_suffix');
  expectEqual(model.continuing_subword_prefix || null, null, 'model.continuing_subword_prefix');
  for (const option of ['dropout', 'byte_fallback', 'ignore_merges', 'fuse_unk']) {
    expectEqual(model[option] || null, null, `model.${option}`);
  }
  const [nfc, spaces, lowercase] = steps(json.normalizer, 'normalizers', 3, 'normalizer');
  expectEqual(nfc?.type, 'NFC', 'normalizer 1');
  expectEqual([spaces?.type, pattern(spaces), spaces?.content], ['Replace', '\\s+', ' '], 'normalizer 2');
  expectEqual(lowercase?.type, 'Lowercase', 'normalizer 3');
  const [split, bytes] = steps(json.pre_tokenizer, 'pretokenizers', 2, 'pre_tokenizer');
  const splitsMarks = pattern(split) === CLIP_PATTERN_WITH_MARKS;
  expectEqual(
    [split?.type, splitsMarks ? CLIP_PATTERN : pattern(split), split?.behavior, split?.invert],
    ['Split', CLIP_PATTERN, 'Removed', true],
    'pre_tokenizer 1',
  );
  expectEqual([bytes?.type, bytes?.add_prefix_space], ['ByteLevel', false], 'pre_tokenizer 2');
  // Its own pattern leaves the words of the first as they are; only the marks would stay whole without it.
  if (splitsMarks) expectEqual(bytes?.use_regex ?? true, true, 'pre_tokenizer 2 use_regex');
  const vocab = vocabulary(object(model.vocab, 'model.vocab'), 'model.vocab');
  if (!Array.isArray(model.merges)) throw invalid('model.merges is missing');
  const merges = model.merges.map((merge: unknown, i) =>
    Array.isArray(merge)
      ? ([text(merge[0], `model.merges[${i}]`), text(merge[1], `model.merges[${i}]`)] as const)
      : splitMerge(text(merge, `model.merges[${i}]`), `model.merges[${i}]`),
  );
  const added = addedTokens(json);
  for (const { content, id } of added) vocab.set(content, id);
  const post = object(json.post_processor, 'post_processor');
  expectEqual(post.type, 'RobertaProcessing', 'post_processor.type');
  const mark = (key: string) => {
    const token = post[key];
    if (!Array.isArray(token) || typeof token[0] !== 'string')
      throw invalid(`post_processor.${key} must be [token, id]`);
    return required(vocab, token[0]);
  };
  const unknown = required(vocab, text(model.unk_token, 'model.unk_token'));
  const size = 1 + maximum(vocab.values());
  return { vocab, merges, added, start: mark('cls'), end: mark('sep'), unknown, size, splitsMarks };
}

/** `tokenizer.json` of a T5 checkpoint. */
export function t5FromTokenizerJson(file: JsonFile): T5Model {
  const json = parse(file, 'tokenizer.json');
  const model = object(json.model, 'model');
  expectEqual(model.type, 'Unigram', 'model.type');
  expectEqual(model.byte_fallback || null, null, 'model.byte_fallback');
  const vocab: unknown = model.vocab;
  if (!Array.isArray(vocab) || vocab.length === 0) throw invalid('model.vocab is empty or missing');
  const added = addedTokens(json);
  if (added.some(({ normalized }) => normalized)) throw invalid('an added token has "normalized": true');
  const pieces = new Map<string, number>();
  const scores = new Float64Array(Math.max(vocab.length, 1 + maximum(added.map(({ id }) => id))));
  vocab.forEach((entry: unknown, id) => {
    if (!Array.isArray(entry) || typeof entry[0] !== 'string' || !Number.isFinite(entry[1])) {
      throw invalid(`model.vocab[${id}] is not [piece, score]`);
    }
    checkWellFormed(entry[0], `model.vocab[${id}]`);
    if (entry[0] !== '') pieces.set(entry[0], id);
    scores[id] = entry[1];
  });
  scores.fill(scores[0]!, vocab.length);
  const unknown = model.unk_id;
  if (typeof unknown !== 'number' || vocab[unknown] === undefined)
    throw invalid('model.unk_id is no id of model.vocab');
  const splitWhite = object(json.pre_tokenizer, 'pre_tokenizer').type === 'Sequence';
  const [white, marker] = splitWhite
    ? (steps(json.pre_tokenizer, 'pretokenizers', 2, 'pre_tokenizer') as [Json, Json])
    : [undefined, object(json.pre_tokenizer, 'pre_tokenizer')];
  if (white) expectEqual(white.type, 'WhitespaceSplit', 'pre_tokenizer 1');
  expectEqual([marker.type, marker.replacement, marker.split ?? true], ['Metaspace', '▁', true], 'pre_tokenizer');
  const prefix = marker.prepend_scheme ?? (marker.add_prefix_space === false ? 'never' : 'always');
  if (prefix !== 'first' && prefix !== 'always' && prefix !== 'never')
    throw invalid('pre_tokenizer.prepend_scheme is unknown');
  if (splitWhite) expectEqual(prefix, 'always', 'prepend_scheme behind WhitespaceSplit');
  const pad = added.find(({ content }) => content === '<pad>')?.id;
  if (pad === undefined) throw invalid('there is no added token "<pad>"');
  return { pieces, scores, added, end: templateEnd(json), pad, unknown, prefix, splitWhite, ...t5Normalizer(json) };
}

/** The character map, then optionally "strip the right end" and "two spaces and more are one mark", in this order. */
function t5Normalizer(json: Json): Pick<T5Model, 'characterMap' | 'stripRight' | 'joinSpaces'> {
  const normalizer = object(json.normalizer, 'normalizer');
  const list = normalizer.type === 'Sequence' ? normalizer.normalizers : [normalizer];
  if (!Array.isArray(list) || list.length === 0) throw invalid('normalizer has no steps');
  const [map, ...rest] = list.map((step, i) => object(step, `normalizer ${i + 1}`));
  expectEqual(map!.type, 'Precompiled', 'normalizer 1');
  const stripRight = rest[0]?.type === 'Strip';
  if (stripRight) {
    const strip = rest.shift()!;
    expectEqual([strip.strip_left, strip.strip_right], [false, true], 'normalizer Strip');
  }
  const joinSpaces = rest.length > 0;
  if (joinSpaces) {
    const replace = rest.shift()!;
    expectEqual([replace.type, pattern(replace), replace.content], ['Replace', ' {2,}', '▁'], 'normalizer Replace');
  }
  if (rest.length > 0) throw invalid(`normalizer step "${rest[0]!.type}" is not supported`);
  return { characterMap: characterMap(map!.precompiled_charsmap), stripRight, joinSpaces };
}

function characterMap(base64: unknown): T5Model['characterMap'] {
  if (typeof base64 !== 'string') throw invalid('the precompiled character map is missing');
  let data: Uint8Array;
  try {
    data = Uint8Array.from(atob(base64), (char) => char.charCodeAt(0));
  } catch (cause) {
    throw invalid('the precompiled character map is not base64', cause);
  }
  const unitBytes = data.length >= 8 ? new DataView(data.buffer).getUint32(0, true) : 0;
  if (unitBytes === 0 || unitBytes % 4 !== 0 || 4 + unitBytes > data.length)
    throw invalid('the precompiled character map is cut off');
  return { units: data.subarray(4, 4 + unitBytes), strings: data.subarray(4 + unitBytes) };
}

/** The id that TemplateProcessing puts after the text; nothing may come before it. */
function templateEnd(json: Json): number {
  const post = object(json.post_processor, 'post_processor');
  expectEqual(post.type, 'TemplateProcessing', 'post_processor.type');
  if (!Array.isArray(post.single)) throw invalid('post_processor.single is missing');
  const parts = post.single.map((part, i) => object(part, `post_processor.single[${i}]`));
  const kinds = parts.map((part) => Object.keys(part)[0]);
  expectEqual(kinds, ['Sequence', 'SpecialToken'], 'post_processor.single');
  const name = text(object(parts[1]!.SpecialToken, 'post_processor.single[1]').id, 'post_processor.single[1].id');
  const token = object(
    object(post.special_tokens, 'post_processor.special_tokens')[name],
    `post_processor.special_tokens["${name}"]`,
  );
  const id: unknown = Array.isArray(token.ids) && token.ids.length === 1 ? token.ids[0] : undefined;
  if (!isId(id)) throw invalid(`post_processor.special_tokens["${name}"] must have one id`);
  return id;
}

function addedTokens(json: Json): AddedToken[] {
  const list: unknown = json.added_tokens ?? [];
  if (!Array.isArray(list)) throw invalid('added_tokens is not a list');
  return list.map((entry: unknown, i) => {
    const token = object(entry, `added_tokens[${i}]`);
    const { id, content } = token;
    if (!isId(id) || typeof content !== 'string' || content === '')
      throw invalid(`added_tokens[${i}] lacks an id or a content`);
    checkWellFormed(content, `added_tokens[${i}]`);
    if (token.lstrip || token.rstrip || token.single_word) {
      throw invalid(`added token "${content}" uses lstrip, rstrip or single_word, which are not supported`);
    }
    // Words are counted at spaces to cut long prompts; CLIP and T5 have no such token.
    if (/\p{White_Space}/u.test(content))
      throw invalid(`added token "${content}" has white space in it, which is not supported`);
    return { id, content, normalized: Boolean(token.normalized ?? !token.special) };
  });
}

function vocabulary(json: Json, where: string): Map<string, number> {
  const vocab = new Map<string, number>();
  for (const [token, id] of Object.entries(json)) {
    if (!isId(id)) throw invalid(`${where} gives "${token}" no valid id`);
    vocab.set(token, id);
  }
  if (vocab.size === 0) throw invalid(`${where} is empty`);
  return vocab;
}

/** Half a surrogate pair has no UTF-8: two damaged entries would become the same bytes. */
function checkWellFormed(content: string, where: string): void {
  if (/\p{Surrogate}/u.test(content)) throw invalid(`${where} has half of a surrogate pair`);
}

/** Ids are below 2^24: larger ones are damage, and would ask for absurd tables. */
function isId(value: unknown): value is number {
  return typeof value === 'number' && Number.isInteger(value) && value >= 0 && value < 1 << 24;
}

function required(vocab: Map<string, number>, token: string): number {
  const id = vocab.get(token);
  if (id === undefined) throw invalid(`the vocabulary lacks "${token}"`);
  return id;
}

function splitMerge(line: string, where: string): readonly [string, string] {
  const [left, right, ...rest] = line.split(' ');
  if (!left || !right || rest.length > 0) throw invalid(`${where} is not two tokens with a space between`);
  return [left, right];
}

function maximum(values: Iterable<number>): number {
  let largest = -1;
  for (const value of values) if (value > largest) largest = value;
  return largest;
}

function steps(value: unknown, key: string, count: number, where: string): Json[] {
  const sequence = object(value, where);
  const list = sequence[key];
  if (sequence.type !== 'Sequence' || !Array.isArray(list) || list.length !== count) {
    throw invalid(`${where} must be a Sequence of ${count}`);
  }
  return list.map((step, i) => object(step, `${where} ${i + 1}`));
}

function pattern(step: Json | undefined): unknown {
  return (step?.pattern as Json | undefined)?.Regex;
}

function expectEqual(actual: unknown, wanted: unknown, where: string): void {
  const found = JSON.stringify(actual);
  if (found !== JSON.stringify(wanted)) throw invalid(`${where} is ${found}, supported is ${JSON.stringify(wanted)}`);
}

function object(value: unknown, where: string): Json {
  if (typeof value !== 'object' || value === null || Array.isArray(value))
    throw invalid(`${where} is missing or no object`);
  return value as Json;
}

function text(value: unknown, where: string): string {
  if (typeof value !== 'string') throw invalid(`${where} is missing or no text`);
  return value;
}

function parse(file: JsonFile, name: string): Json {
  if (typeof file !== 'string') return object(file, name);
  let json: unknown;
  try {
    json = JSON.parse(file);
  } catch (cause) {
    throw invalid(`${name} is not JSON (${(cause as Error).message}); it may be cut off`, cause);
  }
  return object(json, name);
}
