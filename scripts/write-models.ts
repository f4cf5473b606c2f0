// Writes the table of GPU memory into docs/guide/models.md: npm run docs:models.
import { readFileSync, writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { memoryTable } from './models-table.ts';

const path = fileURLToPath(new URL('../docs/guide/models.md', import.meta.url));
const page = readFileSync(path, 'utf8');
const between = /(<!-- memory -->\n)[\s\S]*(<!-- end of memory -->)/;
writeFileSync(
  path,
  page.replace(between, (_, start, end) => `${start}${memoryTable()}\n${end}`),
);
