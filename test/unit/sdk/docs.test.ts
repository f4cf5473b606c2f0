// The guide's table of options is the SDK's own.
// `npm run docs:options` writes it again after a default has changed.
import { readFileSync } from 'node:fs';
import { expect, it } from 'vitest';
import { optionsTable } from '../../../scripts/options-table.ts';

it('docs/guide/node.md has the options and defaults of the SDK', () => {
  const page = readFileSync(new URL('../../../docs/guide/node.md', import.meta.url), 'utf8');
  expect(page).toContain(optionsTable());
});
