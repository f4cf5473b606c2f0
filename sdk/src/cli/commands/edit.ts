// `kontext edit`: changes pictures as a prompt says.
import { stat } from 'node:fs/promises';
import { defineCommand, usage } from '../grammar.ts';
import { openInputs } from '../inputs.ts';
import { requestFlags, requestOptions } from '../request-flags.ts';
import { RUN_FLAGS, runRequests } from '../run.ts';

export const edit = defineCommand({
  summary: 'Change a picture, or many, as a prompt says.',
  usage: ['IMAGE… PROMPT -o OUT', 'IMAGE… [PROMPT] --from MADE -o OUT'],
  examples: [
    'kontext edit photo.jpg "make it a rainy night" -o night.png',
    'kontext edit photos/*.jpg "make it a rainy night" -o nights/',
    'kontext edit photo.jpg "make it a rainy night" --variants 4 --choose -o night.png',
    'kontext edit other.jpg --from night.png -o other-night.png',
    'kontext edit - "make it a rainy night" -o - < photo.jpg > night.png',
  ],
  notes: `IMAGE is a file, a folder of pictures, a URL, - for standard input, or demo for a picture that comes along. Several are edited one after the other with one model;
a bad one is told and passed over, and the exit code is then not 0. With --from the last word is a prompt unless it is a picture, a folder or a URL.`,
  flags: { ...RUN_FLAGS, ...requestFlags('edit') },
  async run({ words, values, signal }) {
    const promptless = typeof values.from === 'string' && words.length > 0 && (await isPicture(words.at(-1)!));
    const images = promptless ? words : words.slice(0, -1);
    const prompt = promptless ? undefined : words.at(-1);
    if (images.length === 0) throw usage(`kontext edit takes IMAGE and PROMPT, but got ${words.length} words.`);
    const inputs = await openInputs(images);
    await runRequests(
      values,
      signal,
      { ...(await requestOptions('edit', values)), ...(prompt !== undefined && { prompt }) },
      inputs,
    );
  },
});

/** Whether a word names something to edit rather than saying what to do. */
async function isPicture(word: string): Promise<boolean> {
  if (word === '-' || word === 'demo' || /^(https?|file|data):/i.test(word)) return true;
  return (await stat(word).catch(() => undefined)) !== undefined;
}
