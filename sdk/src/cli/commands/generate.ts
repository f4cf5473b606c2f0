// `kontext generate`: makes a picture from words alone.
import { defineCommand, usage } from '../grammar.ts';
import { requestFlags, requestOptions } from '../request-flags.ts';
import { RUN_FLAGS, runRequests } from '../run.ts';

export const generate = defineCommand({
  summary: 'Make a picture from words alone.',
  usage: ['PROMPT -o OUT', '[PROMPT] --from MADE -o OUT'],
  examples: ['kontext generate "a small rose on a white background" -o rose.png'],
  flags: { ...RUN_FLAGS, ...requestFlags('generate') },
  async run({ words, values, signal }) {
    const [prompt] = words;
    if ((prompt === undefined && values.from === undefined) || words.length > 1) {
      const hint = words.length > 1 ? ' Put the prompt in quotes.' : '';
      throw usage(`kontext generate takes PROMPT, but got ${words.length} words.${hint}`);
    }
    await runRequests(
      values,
      signal,
      { ...(await requestOptions('generate', values)), ...(prompt !== undefined && { prompt }) },
      undefined,
    );
  },
});
