// `--choose`: who may be asked, what is asked, and what an answer means. The terminal is two streams with a script.
import { mkdtemp, readdir, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { PassThrough } from 'node:stream';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { choiceFrom, chooserOf } from '../../../sdk/src/cli/choose.ts';
import { edit } from '../../../sdk/src/cli/commands/edit.ts';
import { parseWords } from '../../../sdk/src/cli/grammar.ts';
import { decodeImage } from '../../../sdk/src/image/node.ts';

let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'kontext-choose-'));
});
afterAll(() => rm(folder, { recursive: true }));

const previews = [10, 20, 30].map((grey) => ({
  width: 2,
  height: 1,
  data: Uint8ClampedArray.of(grey, grey, grey, 255, grey, grey, grey, 255),
}));

/** Answers the n-th question with the n-th line; `seen` is what lay in the folder when the first came. */
function scripted(...answers: (string | null)[]) {
  const input = new PassThrough();
  const output = new PassThrough();
  const text: string[] = [];
  const seen: string[] = [];
  output.setEncoding('utf8').on('data', async (part: string) => {
    text.push(part);
    if (!part.includes('Which go on?')) return;
    if (seen.length === 0) {
      for (const name of (await readdir(folder)).sort()) {
        seen.push(`${name} ${(await decodeImage(join(folder, name))).data[0]}`);
      }
    }
    const answer = answers.shift();
    if (answer === null) input.end();
    else if (answer !== undefined) input.write(`${answer}\n`);
  });
  const signal = new AbortController();
  const asking = chooserOf({ kind: 'ask' }, join(folder, 'out.jpg'), { input, output })!(previews, signal.signal);
  return { asking: Promise.resolve(asking), text, seen, signal };
}

describe('--choose', () => {
  it('may stand alone or with a value', () => {
    const choose = (...args: string[]) => parseWords('edit', edit.flags, args);
    expect(choose('a.png', '--choose', 'make it night')).toMatchObject({
      words: ['a.png', 'make it night'],
      values: { choose: 'ask' },
    });
    for (const value of ['score', '2', '1,3', 'ask']) {
      expect(choose('a.png', '--choose', value, 'x')).toMatchObject({
        words: ['a.png', 'x'],
        values: { choose: value },
      });
      expect(choose('a.png', `--choose=${value}`)).toMatchObject({ values: { choose: value } });
    }
    expect(choose('a.png', 'x', '--choose')).toMatchObject({ values: { choose: 'ask' } });
    expect(choose('a.png', '--', '--choose')).toMatchObject({ words: ['a.png', '--choose'] });
  });

  it('asks only where someone can answer, and says what else to do', () => {
    const nobody = () => false;
    expect(choiceFrom('ask', 4, () => true)).toEqual({ kind: 'ask' });
    expect(() => choiceFrom('ask', 4, nobody)).toThrow(/--choose score, or numbers such as --choose 2/);
    expect(choiceFrom('score', 4, nobody)).toEqual({ kind: 'score' });
    expect(choiceFrom(undefined, 1, nobody)).toEqual({ kind: 'score' });
    expect(choiceFrom('4,2,4', 4, nobody)).toEqual({ kind: 'numbers', numbers: [4, 2] });
    for (const wrong of ['0', '5', '1,5', 'best', '']) {
      expect(() => choiceFrom(wrong, 4, nobody)).toThrow(/numbers from 1 to 4/);
    }
    for (const text of ['ask', 'score', '1']) expect(() => choiceFrom(text, 1)).toThrow(/needs --variants/);
  });

  it('takes numbers as they are, and leaves the score to the engine', async () => {
    const terminal = { input: new PassThrough(), output: new PassThrough() };
    const signal = new AbortController().signal;
    expect(chooserOf({ kind: 'score' }, 'x.png', terminal)).toBeUndefined();
    expect(await chooserOf({ kind: 'numbers', numbers: [3, 1] }, 'x.png', terminal)!(previews, signal)).toEqual([2, 0]);
  });

  it('shows previews as files, asks again after nonsense, and clears up', async () => {
    const { asking, text, seen } = scripted('', '0', 'two', '4', ' 3, 1 ');
    expect(await asking).toEqual([2, 0]);
    expect(seen).toEqual(['out-preview-1.png 10', 'out-preview-2.png 20', 'out-preview-3.png 30']);
    expect(text.join('').match(/is none of them/g)).toHaveLength(4);
    expect(text.join('')).toContain(`2  ${join(folder, 'out-preview-2.png')}`);
    expect(await readdir(folder)).toEqual([]);
  });

  it.each([
    ['c', 'c'],
    ['cancel', 'cancel'],
    ['the end of the input', null],
  ])('is cancelled by %s', async (_, answer) => {
    await expect(scripted(answer).asking).rejects.toMatchObject({ code: 'aborted' });
    expect(await readdir(folder)).toEqual([]);
  });

  it('is cancelled by the request’s signal while it waits', async () => {
    const { asking, signal } = scripted();
    setTimeout(() => signal.abort(new Error('Ctrl-C')), 50);
    await expect(asking).rejects.toMatchObject({ code: 'aborted' });
    expect(await readdir(folder)).toEqual([]);
  });
});
