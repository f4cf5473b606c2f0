// The command line's files: which pictures are meant, where results go, what is refused before work, and that none is lost.
import { chmod, mkdir, mkdtemp, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { openInputs } from '../../../sdk/src/cli/inputs.ts';
import { withoutWarnings } from '../../../sdk/src/cli/launcher.ts';
import { checkWritable, deliver, planOutputs } from '../../../sdk/src/cli/outputs.ts';
import { progressLine } from '../../../sdk/src/cli/progress-line.ts';

let folder: string;
const at = (...names: string[]) => join(folder, ...names);
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'kontext-files-'));
  await mkdir(at('photos', 'older'), { recursive: true });
  for (const name of ['b.JPG', 'a.png', 'notes.txt', 'older/c.png']) await writeFile(at('photos', name), 'x');
  await mkdir(at('empty'));
});
afterAll(() => rm(folder, { recursive: true }));

const labels = async (...words: string[]) => (await openInputs(words)).map(({ label }) => label);

describe('inputs', () => {
  it('are files, URLs and the pictures of folders, in order', async () => {
    expect(await labels(at('photos'), 'https://example.com/x.webp')).toEqual([
      at('photos', 'a.png'),
      at('photos', 'b.JPG'),
      'https://example.com/x.webp',
    ]);
  });

  it('that are missing fail at once when alone, in their turn among others', async () => {
    await expect(labels(at('none.png'))).rejects.toMatchObject({
      code: 'image-invalid',
      details: { path: at('none.png') },
    });
    expect(await labels(at('photos', 'a.png'), at('none.png'))).toHaveLength(2);
  });

  it.each<[words: () => string[], message: RegExp]>([
    [() => [at('photos', 'a.png'), 'make', 'it'], /no picture "make". Put the prompt in quotes/],
    [() => [at('empty')], /holds no pictures/],
    [() => ['-', '-'], /read once/],
  ])('refuse %j', async (words, message) => {
    await expect(openInputs(words())).rejects.toThrow(message);
  });
});

describe('outputs', () => {
  const inputs = ['x/a.jpg', 'y/b.webp', 'y/c.tif'].map((label) => ({ label, picture: label }));
  const paths = async (...args: Parameters<typeof planOutputs>) =>
    (await planOutputs(...args)).map((list) => list.map(({ path, format }) => `${path} ${format}`));

  it('keep names and formats in a folder', async () => {
    const expected = [['out/a.jpg jpeg'], ['out/b.webp webp'], ['out/c.png png']];
    expect(await paths('out/', inputs, 1, undefined)).toEqual(expected);
    expect(await paths('out', inputs, 1, undefined)).toEqual(expected);
    expect(await paths(at('empty'), inputs.slice(0, 1), 1, 'webp')).toEqual([[`${at('empty', 'a.webp')} webp`]]);
  });

  it('are numbered when there are several of one input', async () => {
    expect(await paths('a.b.jpeg', inputs.slice(0, 1), 2, undefined)).toEqual([['a.b-1.jpeg jpeg', 'a.b-2.jpeg jpeg']]);
  });

  it.each<[args: Parameters<typeof planOutputs>, message: RegExp]>([
    [[undefined, inputs, 1, undefined], /Give -o OUT/],
    [['a.png', inputs, 1, undefined], /3 pictures do not go into one file. Give a folder: -o a\//],
    [['a.gif', inputs.slice(0, 1), 1, undefined], /must end in .png/],
    [['a.png', inputs.slice(0, 1), 1, 'webp'], /is png by its ending/],
    [['out/', inputs, 1, 'bmp'], /--format is "bmp"/],
    [['-', inputs, 1, undefined], /one picture/],
    [['-', inputs.slice(0, 1), 2, undefined], /one picture/],
    [['out/', [...inputs, { label: 'z/a.jpg', picture: '' }], 1, undefined], /x\/a.jpg and z\/a.jpg would both/],
  ])('refuse %j', async (args, message) => {
    await expect(planOutputs(...args)).rejects.toThrow(message);
  });
});

describe('before any work', () => {
  const signal = new AbortController().signal;
  const check = (path: string, more = {}) =>
    checkWritable([path], { force: false, bytes: 1, makesFolders: false, signal, ...more });

  it('a missing folder is refused, or will be made where one was asked for', async () => {
    await expect(check(at('none', 'a.png'))).rejects.toThrow(/Cannot write into .*none: there is no such folder/);
    await check(at('none', 'deep', 'a.png'), { makesFolders: true });
    await expect(stat(at('none'))).rejects.toThrow();
    await expect(check(at('photos', 'a.png', 'b.png'), { makesFolders: true })).rejects.toThrow(/is no folder/);
  });

  it('files that are there need --force', async () => {
    await expect(check(at('photos', 'a.png'))).rejects.toMatchObject({
      code: 'invalid-request',
      message: expect.stringMatching(/a.png exists. Give --force to replace/),
    });
    await check(at('photos', 'a.png'), { force: true });
    await expect(check(at('photos'), { force: true })).rejects.toThrow(/is a folder/);
  });

  it('too little space is refused with both amounts', async () => {
    await expect(check(at('new.png'), { bytes: 1e18 })).rejects.toThrow(
      /Only [\d,]+ kB are free in .*; the result may take [\d,]+ kB/,
    );
  });

  // Root may write anywhere.
  it.skipIf(process.getuid?.() === 0)('a write-protected folder is refused', async () => {
    await chmod(at('empty'), 0o500);
    await expect(check(at('empty', 'a.png'))).rejects.toThrow(/permission denied/);
    await chmod(at('empty'), 0o700);
  });
});

it('a picture that cannot be written is kept in a named temporary file', async () => {
  const bytes = new TextEncoder().encode('a finished picture');
  const error = await deliver(at('photos', 'a.png', 'night.png'), bytes).catch((error: unknown) => error);
  expect(error).toMatchObject({
    code: 'invalid-request',
    message: expect.stringMatching(/It is kept in .*night.png\.$/),
  });
  const { kept } = (error as { details: { kept: string } }).details;
  expect(kept.startsWith(tmpdir())).toBe(true);
  expect(new Uint8Array(await readFile(kept))).toEqual(bytes);
  await rm(dirname(kept), { recursive: true });
});

describe('what the launcher passes on', () => {
  const through = (...chunks: string[]) => {
    const passed: string[] = [];
    const filter = withoutWarnings((text) => passed.push(text));
    for (const chunk of chunks) filter.push(chunk);
    const before = passed.join('');
    filter.end();
    return { before, all: passed.join('') };
  };

  it('is everything but lines that begin with Warning:', () => {
    const text = 'Warning: maxA reduced\nerror: b\nWarning: c\n(node:1) Warning: kept\nWar and peace\n';
    const expected = 'error: b\n(node:1) Warning: kept\nWar and peace\n';
    expect(through(text).all).toBe(expected);
    // In whatever pieces it comes.
    for (let cut = 0; cut <= text.length; cut++)
      expect(through(text.slice(0, cut), text.slice(cut)).all).toBe(expected);
    expect(through(...text).all).toBe(expected);
  });

  it('comes at once, also without an end of line', () => {
    expect(through('\r███ denoising', '\r███ step 2').before).toBe('\r███ denoising\r███ step 2');
    expect(through('Replace? [y/N] ').before).toBe('Replace? [y/N] ');
    expect(through('\rstep 1', '\rWarning: x\n', '\rstep 2').all).toBe('\rstep 1\r\rstep 2');
    expect(through('Warn').all).toBe('Warn');
  });
});

it('progress is plain lines where there is no terminal, and has no escape codes anywhere', () => {
  const draw = (isTTY: boolean, width: string | undefined) => {
    const written: string[] = [];
    const before = process.env.KONTEXT_TERMINAL_WIDTH;
    if (width === undefined) delete process.env.KONTEXT_TERMINAL_WIDTH;
    else process.env.KONTEXT_TERMINAL_WIDTH = width;
    const out = { isTTY, write: (text: string) => written.push(text) > 0 } as unknown as NodeJS.WriteStream;
    const line = progressLine(out, '1/2 a.png: ');
    line.show({ type: 'stage', stage: 'denoise', progress: 0 });
    line.show({ type: 'step', image: 0, step: 1, steps: 2, stepMs: 5, progress: 0.5, remainingMs: 65_000 });
    line.clear();
    if (before === undefined) delete process.env.KONTEXT_TERMINAL_WIDTH;
    else process.env.KONTEXT_TERMINAL_WIDTH = before;
    return written.join('');
  };
  expect(draw(false, undefined)).toBe('1/2 a.png: denoising\n');
  const drawn = draw(false, '60');
  expect(drawn).toContain('step 1/2');
  expect(drawn).not.toContain('\x1b');
  for (const line of drawn.split('\r')) expect(line.length).toBeLessThan(60);
  expect(drawn.endsWith('\r')).toBe(true);
});
