// Writes the prebuilt vocabulary tables of FLUX.1 to a folder that an app can serve: clip.table and t5.table.
// `npm run build:tables -- [folder] [model folder]`; by default dist/tables, from the tokenizer files of the demo model (FLUX.1's own).
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { gzipSync } from 'node:zlib';
import { buildClipTable, buildT5Table } from '../sdk/src/host/tables.ts';

const root = fileURLToPath(new URL('../', import.meta.url));
const folder = process.argv[2] ?? join(root, 'dist/tables');
const model = process.argv[3] ?? join(root, 'examples/demo-model/model');
const read = (path: string) => readFileSync(join(model, path), 'utf8');

mkdirSync(folder, { recursive: true });
const tables = {
  'clip.table': buildClipTable({ vocab: read('tokenizer/vocab.json'), merges: read('tokenizer/merges.txt') }),
  't5.table': buildT5Table({ tokenizerJson: read('tokenizer_2/tokenizer.json') }),
};
for (const [name, table] of Object.entries(tables)) {
  writeFileSync(join(folder, name), table);
  console.log(`${join(folder, name)}: ${table.length} bytes, ${gzipSync(table, { level: 9 }).length} gzipped`);
}
