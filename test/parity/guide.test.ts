// The guide for Node, run from top to bottom: every command and every program on the page.
// With the demo model and the sources instead of the installed package; the texts are otherwise taken as they are.
import { execFile } from 'node:child_process';
import { copyFileSync, existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { demoModel } from '../../sdk/src/model/demo.ts';

const root = new URL('../..', import.meta.url).pathname;
const page = readFileSync(join(root, 'docs/guide/node.md'), 'utf8');
const blocks = [...page.matchAll(/^```(sh|js)\n([\s\S]*?)^```$/gm)].map(([, language, text]) => ({
  language: language!,
  text: text!,
}));
const commands = blocks.filter(({ language }) => language === 'sh').flatMap(({ text }) => text.trim().split('\n'));
const programs = blocks.filter(({ language }) => language === 'js').map(({ text }) => text);

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

describe('docs/guide/node.md', { timeout: 600_000 }, () => {
  it('has commands and programs', () => {
    expect(commands.length).toBeGreaterThanOrEqual(4);
    expect(programs.length).toBeGreaterThanOrEqual(1);
  });

  it.each(commands)('%s', async (command) => {
    const shell = command.replace(/^npx kontext/, `${TSX} ${join(root, 'sdk/src/cli/main.ts')}`);
    expect(shell).not.toBe(command);
    await execute('bash', ['-c', shell]);
    const output = /-o (\S+)/.exec(command)?.[1];
    if (output) expect(existsSync(join(folder, output))).toBe(true);
  });

  it.each(programs.map((text, i) => [i + 1, text] as const))('program %i', async (i, text) => {
    const file = join(folder, `program-${i}.mts`);
    writeFileSync(file, text.replace(`'kontext-webgpu'`, JSON.stringify(join(root, 'sdk/src/node.ts'))));
    const out = await execute(TSX, [file]);
    for (const [, name] of text.matchAll(/saveImage\('([^']+)'/g))
      expect(existsSync(join(folder, name!)), out).toBe(true);
  });
});
