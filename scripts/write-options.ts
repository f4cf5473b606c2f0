// Writes the SDK's table of options and defaults into the guide, between its two marks.
// A test compares the page with the table, so that a changed default cannot leave the guide behind.
import { readFileSync, writeFileSync } from 'node:fs';
import { optionsTable } from './options-table.ts';

const page = new URL('../docs/guide/node.md', import.meta.url);
const text = readFileSync(page, 'utf8');
const marked = /<!-- options -->[\s\S]*<!-- end of options -->/;
if (!marked.test(text)) throw new Error(`${page.pathname} has lost its marks`);
writeFileSync(page, text.replace(marked, `<!-- options -->\n${optionsTable()}<!-- end of options -->`));
