// `--choose`: which variants go on, asked in the terminal, or said beforehand.
// Previews are written beside the picture to come, because a terminal cannot show them.
import { rm } from 'node:fs/promises';
import { extname } from 'node:path';
import { createInterface } from 'node:readline/promises';
import { abortedError, KontextError, throwIfAborted } from '../../../runtime/src/errors.ts';
import { writeWhole } from '../files/whole.ts';
import { encodeImage } from '../image/node.ts';
import type { PixelImage } from '../image/pixels.ts';
import type { ChooseVariants } from '../kontext/types.ts';
import { type Flags, usage } from './grammar.ts';
import { canAsk } from './terminal.ts';

export const CHOOSE_FLAGS = {
  choose: {
    value: 'ask|score|N[,N…]',
    bare: { value: 'ask', unless: /^(ask|score|\d+(,\d+)*)$/ },
    help: 'which of --variants go on: ask shows their previews as files and asks; score is the built-in choice; or their numbers, from 1',
  },
} as const satisfies Flags;

/** Who chooses. */
export type Choice = { kind: 'score' } | { kind: 'numbers'; numbers: readonly number[] } | { kind: 'ask' };

/**
 * @param variants how many there are
 * @throws KontextError `invalid-request` for what is none, without variants, and where nobody can be asked
 */
export function choiceFrom(text: string | undefined, variants: number, asks: () => boolean = canAsk): Choice {
  if (text === undefined || text === 'score') {
    if (text !== undefined && variants < 2) throw usage('--choose needs --variants, such as --variants 4.');
    return { kind: 'score' };
  }
  if (variants < 2) throw usage('--choose needs --variants, such as --variants 4.');
  if (text === 'ask') {
    if (asks()) return { kind: 'ask' };
    throw usage('--choose asks in a terminal, and this is none. Use --choose score, or numbers such as --choose 2.');
  }
  const numbers = numbersFrom(text, variants);
  if (numbers) return { kind: 'numbers', numbers };
  throw usage(`--choose is "${text}"; it must be ask, score, or numbers from 1 to ${variants} such as 1,3.`);
}

/** Names of the previews of the picture at `path`. */
export function previewPaths(path: string, variants: number): string[] {
  const stem = path.slice(0, path.length - extname(path).length);
  return Array.from({ length: variants }, (_, i) => `${stem}-preview-${i + 1}.png`);
}

/** Where the question is read and written. */
export interface Terminal {
  input: NodeJS.ReadableStream;
  output: NodeJS.WritableStream;
}

/** Option `choose` of the request; undefined takes the built-in one. @param path of the picture to come */
export function chooserOf(choice: Choice, path: string, terminal: Terminal): ChooseVariants | undefined {
  if (choice.kind === 'score') return undefined;
  if (choice.kind === 'numbers') return () => choice.numbers.map((number) => number - 1);
  return (previews, signal) => ask(previews, previewPaths(path, previews.length), terminal, signal);
}

/** Asks until there is an answer. The previews are gone afterwards, whatever it was. */
async function ask(
  previews: readonly PixelImage[],
  paths: readonly string[],
  { input, output }: Terminal,
  signal: AbortSignal,
): Promise<number[]> {
  const lines = createInterface({ input, output });
  // The end of the input, Ctrl-D, is no answer: without this the question would never be settled.
  const ended = new AbortController();
  lines.once('close', () => ended.abort());
  const either = AbortSignal.any([signal, ended.signal]);
  try {
    for (const [i, preview] of previews.entries()) await writeWhole(paths[i]!, await encodeImage(preview, 'png'));
    output.write(`Previews:\n${paths.map((path, i) => `  ${i + 1}  ${path}\n`).join('')}`);
    for (;;) {
      const answer = await lines.question(`Which go on? 1 to ${paths.length}, as 1,3 for several, c to cancel: `, {
        signal: either,
      });
      if (/^\s*c(ancel)?\s*$/i.test(answer)) throw cancelled();
      const numbers = numbersFrom(answer, paths.length);
      if (numbers) return numbers.map((number) => number - 1);
      output.write(`"${answer.trim().slice(0, 40)}" is none of them.\n`);
    }
  } catch (error) {
    throwIfAborted(signal);
    throw ended.signal.aborted && !(error instanceof KontextError) ? cancelled() : error;
  } finally {
    lines.close();
    for (const path of paths) await rm(path, { force: true });
  }
}

const cancelled = (): KontextError => abortedError(AbortSignal.abort(new Error('none of the variants was chosen')));

/** Whole numbers from 1 on, each once; undefined when it is no such list. */
function numbersFrom(text: string, most: number): number[] | undefined {
  const words = text.trim().split(/[\s,]+/);
  const numbers = words.map((word) => (/^\d{1,3}$/.test(word) ? Number(word) : 0));
  return numbers.every((number) => number >= 1 && number <= most) ? [...new Set(numbers)] : undefined;
}
