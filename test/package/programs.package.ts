// Every command and program of README and guides where their reader runs them: an empty folder with the packed package in it.
// The packages that the pages tell to install beside it are linked from the repository, for want of a network.
import { execFile } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { filesOf, partsOf } from '../support/page-programs.ts';
import { installInto, pack, root } from './project.ts';

const PAGES = ['README', 'docs/guide/node', 'docs/guide/ahead-of-time'].map(
  (name) => [name, partsOf(readFileSync(join(root, `${name}.md`), 'utf8'))] as const,
);

let packed: ReturnType<typeof pack>;
beforeAll(() => {
  packed = pack();
});
afterAll(() => rmSync(packed.folder, { recursive: true }));

describe.each(PAGES)('%s.md', (name, parts) => {
  let folder: string;
  beforeAll(() => {
    folder = join(packed.folder, name.replaceAll('/', '-'));
    mkdirSync(folder);
    installInto(folder, packed);
    for (const peer of ['webgpu', 'sharp'])
      symlinkSync(join(root, 'node_modules', peer), join(folder, 'node_modules', peer));
  });

  it.each(parts.map((part, i) => [part.code.split('\n')[0]!, part, i] as const))('%s', async (_, part, i) => {
    if (part.code.startsWith('npm install kontext-webgpu')) return;
    const file = join(folder, `program-${i}.mjs`);
    if (part.kind === 'program') writeFileSync(file, part.code);
    const [command, args] = part.kind === 'program' ? [process.execPath, [file]] : ['bash', ['-c', part.code]];
    const out = await run(folder, command, args);
    for (const written of filesOf(part)) expect(existsSync(join(folder, written)), out).toBe(true);
  });
});

function run(cwd: string, file: string, args: string[]): Promise<string> {
  return new Promise((resolve, reject) => {
    execFile(file, args, { cwd }, (error, out, err) =>
      error ? reject(new Error(`${error}\n${out}\n${err}`)) : resolve(`${out}${err}`),
    );
  });
}
