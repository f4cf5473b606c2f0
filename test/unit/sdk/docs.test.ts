// The guides' tables of options are the SDK's own, and what they say of the command line and the element is so.
// `npm run docs:options` writes them again after a default has changed.
import { readFileSync } from 'node:fs';
import { expect, it } from 'vitest';
import { optionsTable, placesTable } from '../../../scripts/options-table.ts';
import { edit } from '../../../sdk/src/cli/commands/edit.ts';
import { generate } from '../../../sdk/src/cli/commands/generate.ts';

const read = (path: string) => readFileSync(new URL(`../../../${path}`, import.meta.url), 'utf8');

it('docs/guide/node.md has the options and defaults of the SDK', () => {
  expect(read('docs/guide/node.md')).toContain(optionsTable());
});

it('docs/guide/editing.md tells where each option is, and there it is', () => {
  const table = placesTable();
  expect(read('docs/guide/editing.md')).toContain(table);
  const flags = [...table.matchAll(/`--([a-z-]+)`/g)].map(([, flag]) => flag!);
  expect(flags.length).toBeGreaterThan(40);
  for (const flag of flags) expect({ ...generate.flags, ...edit.flags }, flag).toHaveProperty(flag);
  // The element reads each attribute that it is said to have.
  const element = read('sdk/src/element/element.ts');
  const attributes = [...table.matchAll(/^\| `(\w+)` .*\| attribute/gm)].map(([, name]) => name!);
  expect(attributes).toEqual(['steps', 'guidance', 'seed', 'preview']);
  for (const name of attributes) expect(element).toContain(`number('${name}')`);
});
