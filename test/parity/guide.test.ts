// The guides for Node and for programs ahead of time, run from top to bottom: every command and every program on the page.
// With the demo model and the sources instead of the installed package; the texts are otherwise taken as they are.
import { execFile } from 'node:child_process';
import { copyFileSync, existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { demoModel } from '../../sdk/src/model/demo.ts';

const root = new URL('../..', import.meta.url).pathname;
const pages = ['node', 'ahead-of-time'].map((name) => {
  const text = readFileSync(join(root, `docs/guide/${name}.md`), 'utf8');
  const blocks = [...text.matchAll(/^```(sh|js)\n([\s\S]*?)^```$/gm)].map(([, language, code]) => ({
    language,
    code: code!,
  }));
  // In the order of the page: a program may use what a command above it made.
  const parts = blocks.flatMap(({ language, code }) => (language === 'sh' ? code.trim().split('\n') : [code]));
  return [name, parts] as const;
});

let folder: string;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'kontext-guide-'));
  copyFileSync(join(demoModel(), '../inputs/apple-on-red.png'), join(folder, 'scene.png'));
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

describe.each(pages)('docs/guide/%s.md', { timeout: 600_000 }, (name, parts) => {
  it('has commands and programs', () => {
    expect(parts.filter((text) => text.startsWith('npx ')).length).toBeGreaterThanOrEqual(4);
    expect(parts.filter((text) => text.startsWith('import ')).length).toBeGreaterThanOrEqual(1);
  });

  it.each(parts.map((text, i) => [text.split('\n')[0]!, text, i] as const))('%s', async (_, text, i) => {
    if (text.startsWith('import ')) return runProgram(text, `${name}-${i}.mts`);
    const shell = text.replace(/^npx kontext/, `${TSX} ${join(root, 'sdk/src/cli/main.ts')}`);
    expect(shell).not.toBe(text);
    await execute('bash', ['-c', shell]);
    const output = /(?:-o|--svg|>) (\S+)$/.exec(text)?.[1] ?? /-o (\S+)/.exec(text)?.[1];
    if (output) expect(existsSync(join(folder, output))).toBe(true);
  });
});

async function runProgram(text: string, name: string): Promise<void> {
  const file = join(folder, name);
  writeFileSync(file, text.replace(`'kontext-webgpu'`, JSON.stringify(join(root, 'sdk/src/node.ts'))));
  const out = await execute(TSX, [file]);
  for (const [, saved] of text.matchAll(/saveImage\('([^']+)'/g))
    expect(existsSync(join(folder, saved!)), out).toBe(true);
}
