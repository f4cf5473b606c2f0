// Files written whole or not at all, and bundles replaced at one moment; whatever fails, what was there before is there.
import { existsSync } from 'node:fs';
import { chmod, mkdir, mkdtemp, readdir, readFile, readlink, rm, stat, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { saveBundle } from '../../../sdk/src/cli/save-bundle.ts';
import { writeAllOrNone, writeWhole } from '../../../sdk/src/files/whole.ts';

let folder: string;
const at = (name: string) => join(folder, name);
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'kontext-whole-'));
});
afterEach(() => rm(folder, { recursive: true }));

describe('writeAllOrNone', () => {
  it('writes new files and replaces old ones, and leaves nothing beside them', async () => {
    await writeFile(at('old'), 'before');
    await chmod(at('old'), 0o600);
    await writeAllOrNone([
      { path: at('old'), bytes: 'after' },
      { path: at('new'), bytes: Uint8Array.of(1, 2) },
    ]);
    expect(await readFile(at('old'), 'utf8')).toBe('after');
    expect((await stat(at('old'))).mode & 0o777).toBe(0o600);
    expect([...(await readFile(at('new')))]).toEqual([1, 2]);
    expect((await readdir(folder)).sort()).toEqual(['new', 'old']);
  });

  it('writes through a link, which stays one', async () => {
    await writeFile(at('real'), 'before');
    await symlink('real', at('link'));
    await writeWhole(at('link'), 'after');
    expect(await readlink(at('link'))).toBe('real');
    expect(await readFile(at('real'), 'utf8')).toBe('after');
  });

  it.each([
    ['a folder that is missing', 'missing/x'],
    ['a folder of that name', 'folder'],
    ['a name that is too long', 'n'.repeat(300)],
    ['a file where a folder should be', 'old/x'],
  ])('after %s everything is as it was', async (_, name) => {
    await mkdir(at('folder'));
    await writeFile(at('old'), 'before');
    const error = await writeAllOrNone([
      { path: at('old'), bytes: 'after' },
      { path: at('new'), bytes: 'x' },
      { path: at(name), bytes: 'y' },
    ]).catch((error: unknown) => error);
    expect(error).toMatchObject({ code: 'invalid-request', details: { path: at(name) } });
    expect(await readFile(at('old'), 'utf8')).toBe('before');
    expect((await readdir(folder)).sort()).toEqual(['folder', 'old']);
  });

  it('undoes what is in place when a later file cannot be put there', async () => {
    await writeFile(at('old'), 'before');
    await writeFile(at('late'), 'before');
    // The last file's place becomes a folder once all are written beside theirs.
    const files = ['old', 'fresh', 'late'].map((name) => ({ path: at(name), bytes: 'x'.repeat(1e6) }));
    const writing = writeAllOrNone(files);
    while (!(await readdir(folder)).some((name) => /^late\..*\.old$/.test(name))) await new Promise(setImmediate);
    await rm(at('late'));
    await mkdir(at('late'));
    await expect(writing).rejects.toMatchObject({ code: 'invalid-request', details: { path: at('late') } });
    expect(await readFile(at('old'), 'utf8')).toBe('before');
    expect(existsSync(at('fresh'))).toBe(false);
  });

  it('many at once to one place leave one of them, whole', async () => {
    await Promise.all(Array.from({ length: 20 }, (_, i) => writeWhole(at('x'), `${i}`.repeat(100_000))));
    const text = await readFile(at('x'), 'utf8');
    expect(new Set(text.match(/../g)).size).toBe(1);
    expect(await readdir(folder)).toEqual(['x']);
  });
});

describe('saveBundle', () => {
  const hash = (letter: string) => letter.repeat(64);
  const bundle = (letter: string) =>
    new Map([
      ['manifest.json', letter],
      [`modules/${hash(letter)}.json`, letter],
      [`programs/${hash(letter)}.json`, letter],
      ['index.js', letter],
      ['index.d.ts', letter],
      ['package.json', letter],
    ]);
  const contents = async () =>
    ((await readdir(at('b'), { recursive: true })) as string[]).filter((name) => name.includes('.')).sort();

  it('makes a folder, replaces a bundle, and leaves other files in it alone', async () => {
    await saveBundle(at('b'), bundle('a'));
    expect(await contents()).toEqual([...bundle('a').keys()].sort());
    await writeFile(at('b/modules/mine.json'), 'mine');
    await saveBundle(at('b'), bundle('c'));
    expect(await contents()).toEqual([...bundle('c').keys(), 'modules/mine.json'].sort());
    expect(await readFile(at('b/manifest.json'), 'utf8')).toBe('c');
  });

  it('refuses a folder that is no bundle, and leaves it as it was', async () => {
    await mkdir(at('b'));
    await writeFile(at('b/thesis.txt'), 'years of work');
    await expect(saveBundle(at('b'), bundle('a'))).rejects.toMatchObject({ code: 'invalid-request' });
    expect(await contents()).toEqual(['thesis.txt']);
  });

  it('a failure leaves the old bundle working', async () => {
    await saveBundle(at('b'), bundle('a'));
    // A folder where the new index.js should go.
    await rm(at('b/index.js'));
    await mkdir(at('b/index.js'));
    await expect(saveBundle(at('b'), bundle('c'))).rejects.toMatchObject({ code: 'invalid-request' });
    for (const name of ['manifest.json', `modules/${hash('a')}.json`, `programs/${hash('a')}.json`, 'package.json'])
      expect(await readFile(at(`b/${name}`), 'utf8')).toBe('a');
  });

  it('a failure where there was nothing leaves nothing', async () => {
    await writeFile(at('file'), '');
    await expect(saveBundle(at('file/b'), bundle('a'))).rejects.toMatchObject({ code: 'invalid-request' });
    expect(await readdir(folder)).toEqual(['file']);
  });
});
