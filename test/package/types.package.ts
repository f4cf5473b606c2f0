// The declarations stand alone: `tsc` in fresh projects, as strict as it goes, with and without the DOM library and @types/node.
import { execFileSync } from 'node:child_process';
import { cpSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { install, pack, root } from './project.ts';

let packed: ReturnType<typeof pack>;
let project: string;

beforeAll(() => {
  packed = pack();
  project = install(packed, 'types', 'types');
});
afterAll(() => rmSync(packed.folder, { recursive: true }));

/** What `tsc` says about a file of the project; empty when it is content. */
function check(file: string, options: Record<string, unknown>): string {
  const compilerOptions = {
    noEmit: true,
    strict: true,
    target: 'ES2022',
    skipLibCheck: false,
    exactOptionalPropertyTypes: true,
    noUncheckedIndexedAccess: true,
    noPropertyAccessFromIndexSignature: true,
    types: [],
    ...options,
  };
  writeFileSync(join(project, 'tsconfig.json'), JSON.stringify({ compilerOptions, files: [file] }));
  const tsc = join(root, 'node_modules/typescript/bin/tsc');
  try {
    execFileSync(process.execPath, [tsc, '-p', project], { encoding: 'utf8' });
    return '';
  } catch (error) {
    return (error as { stdout: string }).stdout;
  }
}

const RESOLUTIONS = {
  bundler: { module: 'ESNext', moduleResolution: 'Bundler' },
  node16: { module: 'Node16', moduleResolution: 'Node16' },
};

describe.each(Object.entries(RESOLUTIONS))('moduleResolution %s', (_, resolution) => {
  it('with nothing but ES2022', () => {
    expect(check('app.ts', { ...resolution, lib: ['ES2022'] })).toBe('');
  });

  it('with the DOM', () => {
    for (const file of ['app.ts', 'dom.ts']) {
      expect(check(file, { ...resolution, lib: ['ES2022', 'DOM', 'DOM.Iterable'] }), file).toBe('');
    }
  });

  it('with @types/node alone', () => {
    for (const name of ['@types/node', 'undici-types']) {
      cpSync(join(root, 'node_modules', name), join(project, 'node_modules', name), { recursive: true });
    }
    expect(check('app.ts', { ...resolution, lib: ['ES2022'], types: ['node'] })).toBe('');
  });
});
