// Cuts a prompt to what its encoder can read, before it is tokenized: a book costs no more than a page.
// Only where no id changes: tokenizers work word by word, and no word is less than a token.
import { KontextError } from '../../../runtime/src/errors.ts';

/** CLIP's context. */
export const CLIP_TOKENS = 77;

/** What is left of a prompt after {@link cutPrompt} has at most this many characters (UTF-16 units). */
export const MAX_PROMPT = 2 ** 20;

/**
 * A word of ASCII letters and digits between two such words, one space from each: no rule of normalisation (clusters, composition,
 * joined or stripped white space) reaches across those spaces, and CLIP and T5 both make at least one token of it.
 */
const plainWord = /(?<=[0-9A-Za-z] )[0-9A-Za-z]+(?= [0-9A-Za-z])/g;

const loneSurrogate = /\p{Surrogate}/u;

/**
 * The text up to its `tokens`-th plain word: what follows cannot be among its first `tokens` tokens. A text with fewer is returned
 * whole, as is one that the tokenizer will refuse.
 *
 * @param tokens how many the encoder reads
 */
export function cutPrompt(text: string, tokens: number): string {
  // A token is at least a character of a word: short texts need no look.
  if (text.length <= 2 * tokens || loneSurrogate.test(text)) return text;
  let words = 0;
  for (const { index, 0: word } of text.matchAll(plainWord)) {
    if (++words === tokens) return text.slice(0, index + word.length);
  }
  return text;
}

/** @throws KontextError `invalid-request` for a text that is too long also when cut */
export function checkPromptLength(name: string, text: string, tokens: number): void {
  if (text.length <= MAX_PROMPT) return;
  const { length } = cutPrompt(text, tokens);
  if (length <= MAX_PROMPT) return;
  throw new KontextError(
    'invalid-request',
    `${name} has ${text.length} characters without words to cut it at; at most ${MAX_PROMPT} are read. Shorten it.`,
    { characters: text.length, limit: MAX_PROMPT },
  );
}
