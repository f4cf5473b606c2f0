// The memory of the real model, as the guide tells it, is what its programs need.
import { readFileSync } from 'node:fs';
import { expect, it } from 'vitest';
import { memoryTable } from '../../../scripts/models-table.ts';

it('is what npm run docs:models writes', () => {
  const page = readFileSync(new URL('../../../docs/guide/models.md', import.meta.url), 'utf8');
  const [, table] = /<!-- memory -->\n([\s\S]*)\n<!-- end of memory -->/.exec(page)!;
  expect(table).toBe(memoryTable());
});
