// The guides for Node and for programs ahead of time, run from top to bottom: every command and every program on the page.
// With the demo model and the sources instead of the installed package; the texts are otherwise taken as they are.
import { execFile } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { filesOf, partsOf } from '../support/page-programs.ts';

const root = new URL('../..', import.meta.url).pathname;
const pages = ['guide/node', 'guide/ahead-of-time'].map(
  (name) => [name, partsOf(readFileSync(join(root, `docs/${name}.md`), 'utf8'))] as const,
);

let folder: string;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'kontext-guide-'));
  mkdirSync(join(folder, 'node_modules'));
  symlinkSync(root.replace(/\/$/, ''), join(folder, 'node_modules/kontext-webgpu'));
});
afterAll(() => rmSync(folder, { recursive: true }));

const TSX = join(root, 'node_modules/.bin/tsx');

function execute(file: string, args: string[]): Promise<string> {
  return new Promise((resolve, reject) => {
    execFile(file, args, { cwd: folder }, (error, out, err) =>
      error ? reject(new Error(`${error}\n${err}`)) : resolve(out),
    );
  });
}

describe.each(pages)('docs/%s.md', { timeout: 600_000 }, (name, parts) => {
  it('has commands and programs', () => {
    expect(parts.filter(({ code }) => code.startsWith('npx ')).length).toBeGreaterThanOrEqual(4);
    expect(parts.filter(({ kind }) => kind === 'program').length).toBeGreaterThanOrEqual(1);
  });

  it.each(parts.map((part, i) => [part.code.split('\n')[0]!, part, i] as const))('%s', async (_, part, i) => {
    const command = part.code.replace(/^npx kontext/, `${TSX} ${join(root, 'sdk/src/cli/main.ts')}`);
    const out = await (part.kind === 'program'
      ? runProgram(part.code, `${name.replace('/', '-')}-${i}.mts`)
      : execute('bash', ['-c', command]));
    for (const file of filesOf(part)) expect(existsSync(join(folder, file)), out).toBe(true);
  });
});

function runProgram(text: string, name: string): Promise<string> {
  const file = join(folder, name);
  writeFileSync(file, text.replace(`'kontext-webgpu'`, JSON.stringify(join(root, 'sdk/src/node.ts'))));
  return execute(TSX, [file]);
}
