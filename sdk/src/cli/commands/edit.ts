// `kontext edit`: changes pictures as a prompt says.
import { defineCommand, usage } from '../grammar.ts';
import { openInputs } from '../inputs.ts';
import { requestFlags, requestOptions } from '../request-flags.ts';
import { RUN_FLAGS, runRequests } from '../run.ts';

export const edit = defineCommand({
  summary: 'Change a picture, or many, as a prompt says.',
  usage: ['IMAGE… PROMPT -o OUT'],
  examples: [
    'kontext edit photo.jpg "make it a rainy night" -o night.png',
    'kontext edit photos/*.jpg "make it a rainy night" -o nights/',
    'kontext edit - "make it a rainy night" -o - < photo.jpg > night.png',
  ],
  notes: `IMAGE is a file, a folder of pictures, a URL, - for standard input, or demo for a picture that comes along. Several are edited one after the other with one model;
a bad one is told and passed over, and the exit code is then not 0.`,
  flags: { ...RUN_FLAGS, ...requestFlags('edit') },
  async run({ words, values, signal }) {
    const images = words.slice(0, -1);
    const prompt = words.at(-1);
    if (images.length === 0 || prompt === undefined) {
      throw usage(`kontext edit takes IMAGE and PROMPT, but got ${words.length} words.`);
    }
    const inputs = await openInputs(images);
    await runRequests(values, signal, { ...(await requestOptions('edit', values)), prompt }, inputs);
  },
});
