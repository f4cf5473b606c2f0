// The runtime imports neither the compiler nor the SDK, and no package but Dawn, which it loads when asked.

import { readdirSync, readFileSync } from 'node:fs';
import { dirname, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { expect, it } from 'vitest';

const root = fileURLToPath(new URL('../../../runtime/src', import.meta.url));

it('every import of the runtime stays inside it', () => {
  const files = readdirSync(root, { recursive: true, encoding: 'utf8' }).filter((name) => name.endsWith('.ts'));
  expect(files.length).toBeGreaterThan(15);
  let imports = 0;
  for (const file of files) {
    const text = readFileSync(`${root}/${file}`, 'utf8');
    for (const [, specifier] of text.matchAll(/(?:from|import\()\s*'([^']+)'/g)) {
      imports++;
      if (specifier!.startsWith('node:')) continue;
      expect(specifier, file).toMatch(/^\.\.?\/.*\.ts$/);
      expect(
        resolve(dirname(`${root}/${file}`), specifier!).startsWith(`${root}/`),
        `${file} imports ${specifier}`,
      ).toBe(true);
    }
    // Node modules only behind a dynamic import, or a page could not load the bundle.
    expect(text, file).not.toMatch(/^import (?!type ).* from 'node:/m);
  }
  expect(imports).toBeGreaterThan(40);
});
