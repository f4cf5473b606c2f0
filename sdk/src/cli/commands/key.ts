// `kontext key`: a new API key for kontext serve, printed once, and what the key file keeps of it.
import { defineCommand, usage } from '../grammar.ts';
import { serverModule } from '../serving.ts';

export const key = defineCommand({
  summary: 'Make an API key for kontext serve.',
  usage: ['NAME'],
  examples: ['kontext key alice'],
  notes: 'The file given to kontext serve --keys is a JSON array of such entries. The key itself is stored nowhere.',
  flags: {
    json: { help: 'key and entry as JSON' },
  },
  async run({ words, values }) {
    const [name] = words;
    if (name === undefined || words.length > 1 || !/^[\w.@-]{1,100}$/.test(name)) {
      throw usage('Whose key? Give one name of letters, digits, and . _ @ -');
    }
    const { makeKey } = await serverModule();
    const made = makeKey(name);
    if (values.json) console.log(JSON.stringify(made));
    else console.log(`Key, for the client:  ${made.key}\nEntry, for the file:  ${JSON.stringify(made.entry)}`);
  },
});
