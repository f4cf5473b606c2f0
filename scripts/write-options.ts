// Writes the SDK's tables of options into the guides, between their marks: defaults and values, and where each option is.
// A test compares the pages with the tables, so that a changed default cannot leave a guide behind.
import { readFileSync, writeFileSync } from 'node:fs';
import { optionsTable, placesTable } from './options-table.ts';

const TABLES = [
  ['../docs/guide/node.md', 'options', optionsTable()],
  ['../docs/guide/editing.md', 'places', placesTable()],
] as const;

for (const [path, name, table] of TABLES) {
  const page = new URL(path, import.meta.url);
  const text = readFileSync(page, 'utf8');
  const marked = new RegExp(`<!-- ${name} -->[\\s\\S]*<!-- end of ${name} -->`);
  if (!marked.test(text)) throw new Error(`${page.pathname} has lost its marks`);
  writeFileSync(
    page,
    text.replace(marked, () => `<!-- ${name} -->\n${table}<!-- end of ${name} -->`),
  );
}
