// What the guide says of files' types is what loading makes of them.
import { readFileSync } from 'node:fs';
import { expect, it } from 'vitest';
import { typesTable } from '../../../scripts/files-table.ts';

it('is what npm run docs:files writes', () => {
  const page = readFileSync(new URL('../../../docs/guide/models-files.md', import.meta.url), 'utf8');
  const [, table] = /<!-- types -->\n([\s\S]*?)\n<!-- end of types -->/.exec(page)!;
  expect(table).toBe(typesTable());
});
