// `kontext edit`: changes a picture as a prompt says.
import { defineCommand, usage } from '../grammar.ts';
import { requestFlags, requestOptions } from '../request-flags.ts';
import { RUN_FLAGS, runRequest } from '../run.ts';

export const edit = defineCommand({
  summary: 'Change a picture as a prompt says.',
  usage: ['IMAGE PROMPT -o OUT'],
  examples: ['kontext edit photo.jpg "make it a rainy night" -o night.png'],
  flags: { ...RUN_FLAGS, ...requestFlags('edit') },
  async run({ words, values, signal }) {
    const [image, prompt] = words;
    if (image === undefined || prompt === undefined || words.length > 2) {
      const hint = words.length > 2 ? ' Put the prompt in quotes.' : '';
      throw usage(`kontext edit takes IMAGE and PROMPT, but got ${words.length} words.${hint}`);
    }
    await runRequest(values, signal, { ...(await requestOptions('edit', values)), image, prompt });
  },
});
