// Runs the program in docs/guide/host-module.md as a reader would: the three files beside it, node, and its output.
import { execFileSync } from 'node:child_process';
import { copyFileSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { expect, it } from 'vitest';
import { buildClipTable, buildT5Table } from '../../../sdk/src/host/tables.ts';
import { files } from '../../support/tokenizers.ts';

const root = fileURLToPath(new URL('../../../', import.meta.url));

it('prints what docs/guide/host-module.md says', () => {
  const guide = readFileSync(`${root}docs/guide/host-module.md`, 'utf8');
  const [, program] = /```js\n(.*?)```/s.exec(guide)!;
  const [, output] = /```text\n(.*?)```/s.exec(guide)!;
  const folder = mkdtempSync(join(tmpdir(), 'kontext-guide-'));
  try {
    copyFileSync(`${root}sdk/src/host/kontext.wasm`, join(folder, 'kontext.wasm'));
    writeFileSync(join(folder, 'clip.table'), buildClipTable({ vocab: files.vocab(), merges: files.merges() }));
    writeFileSync(join(folder, 't5.table'), buildT5Table({ tokenizerJson: files.t5() }));
    writeFileSync(join(folder, 'program.mjs'), program!);
    expect(execFileSync(process.execPath, ['program.mjs'], { cwd: folder, encoding: 'utf8' })).toBe(output);
  } finally {
    rmSync(folder, { recursive: true });
  }
});
