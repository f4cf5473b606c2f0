// The command line's grammar, help and latents files: what can be judged without a GPU.
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest';
import { runCommand } from '../../../sdk/src/cli/command.ts';
import { installAdvice } from '../../../sdk/src/cli/commands/doctor.ts';
import { edit } from '../../../sdk/src/cli/commands/edit.ts';
import { COMMANDS } from '../../../sdk/src/cli/commands.ts';
import { parseWords } from '../../../sdk/src/cli/grammar.ts';
import { commandHelp, helpText } from '../../../sdk/src/cli/help.ts';
import { latentsBytes, readLatents } from '../../../sdk/src/cli/latents-file.ts';
import { duration } from '../../../sdk/src/cli/progress-line.ts';
import { LOAD_OPTIONS, REQUEST_OPTIONS } from '../../../sdk/src/kontext/options.ts';
import { floatTensor, readSafetensors } from '../../support/safetensors.ts';

let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'kontext-cli-'));
});
afterAll(() => rm(folder, { recursive: true }));

describe('the words of a command', () => {
  const parse = (...args: string[]) => parseWords('edit', edit.flags, args);

  it('are read with options in any order', () => {
    const parsed = parse('a.png', '--seed', '-7', '-o', 'b.png', 'make it night', '--reference=c.png');
    expect(parsed).toMatchObject({
      words: ['a.png', 'make it night'],
      values: { seed: '-7', output: 'b.png', reference: ['c.png'] },
    });
    expect(parse('a.png', '--', '--help')).toMatchObject({ words: ['a.png', '--help'] });
  });

  it('ask for help', () => {
    for (const args of [['-h'], ['a.png', '--help'], ['--colour', '--help']]) expect(parse(...args)).toBeUndefined();
  });

  it.each([
    [['--colour', 'red'], /no --colour\. See kontext edit --help/],
    [['--step', '3'], /no --step\. Did you mean --steps\?/],
    [['--negativ-prompt=x'], /Did you mean --negative-prompt\?/],
    [['--seed'], /--seed/],
  ])('refuse %j', (args, message) => {
    expect(() => parse(...args)).toThrow(message);
  });
});

describe('a command', () => {
  const typed = async (...args: string[]) => {
    const text: string[] = [];
    const out = vi.spyOn(process.stdout, 'write').mockImplementation((part) => text.push(String(part)) > 0);
    const log = vi.spyOn(console, 'log').mockImplementation((line: string) => void text.push(line));
    const error = vi.spyOn(console, 'error').mockImplementation((line: string) => void text.push(line));
    try {
      const code = await runCommand(args, new AbortController().signal);
      return { code, text: text.join('\n') };
    } finally {
      for (const spy of [out, log, error]) spy.mockRestore();
    }
  };

  it.each([
    [['paint'], /no command "paint".*edit, generate, doctor/],
    [['edti'], /Did you mean edit\?/],
    [['generate', '--reference', 'x.png'], /no --reference/],
    [['doctor', '--steps', '3'], /no --steps/],
    [['compile', '--targets', 'baseline'], /Did you mean --target\?/],
    [['inspect', '--rooflin', 'm2'], /Did you mean --roofline\?/],
    [['targets', 'this'], /only --probe/],
  ])('is refused with what was meant: %j', async (args, message) => {
    expect(await typed(...args)).toMatchObject({ code: 2, text: expect.stringMatching(message) });
  });

  it('tells its help, however it is asked', async () => {
    for (const args of [
      ['edit', '--help'],
      ['help', 'edit'],
      ['edit', '-h', '--what'],
    ]) {
      expect(await typed(...args)).toEqual({ code: 0, text: commandHelp('edit', edit) });
    }
    for (const args of [[], ['--help'], ['help'], ['-h']]) {
      expect(await typed(...args)).toEqual({ code: 0, text: await helpText() });
    }
  });

  it.each(['--version', '-v', 'version'])('%s is the package’s version', async (word) => {
    const { version } = JSON.parse(await readFile(new URL('../../../package.json', import.meta.url), 'utf8'));
    expect(await typed(word)).toEqual({ code: 0, text: `${version}` });
  });
});

describe('help', () => {
  it('lists every command with an example that its own grammar takes', async () => {
    const text = await helpText();
    for (const [name, load] of Object.entries(COMMANDS)) {
      const { summary, examples, flags } = await load();
      expect(text).toContain(`  ${name}`);
      expect(text).toContain(summary);
      expect(text).toContain(examples[0]);
      for (const example of examples) {
        const words = [...example.replace(/ >.*$/, '').matchAll(/"([^"]*)"|(\S+)/g)].map(
          ([, quoted, plain]) => quoted ?? plain!,
        );
        expect(words.slice(0, 2)).toEqual(['kontext', name]);
        expect(parseWords(name, flags, words.slice(2))).toBeDefined();
      }
    }
  });

  it('takes the words of the demo script', async () => {
    const script = await readFile(new URL('../../../scripts/demo.sh', import.meta.url), 'utf8');
    const [, words] = /^node dist\/cli\.js edit (.+)$/m.exec(script)!;
    expect(parseWords('edit', edit.flags, words!.split(' '))).toMatchObject({ values: { seed: '1' } });
  });

  it('has every option of the table, with its default', async () => {
    const text = commandHelp('edit', edit);
    for (const [name, option] of Object.entries<{ kind: string; flag?: string; help: string }>({
      ...REQUEST_OPTIONS,
      ...LOAD_OPTIONS,
    })) {
      const flag = (option.flag ?? name).replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`);
      expect(text).toMatch(new RegExp(`--(no-)?${flag}[ \n]`));
      expect(text).toContain(option.help);
    }
    expect(text).toMatch(/denoising steps.*\(default: 28\)/);
    const names =
      'model width height no-auto-resize reference adapter save-latents json quiet programs no-metadata from choose';
    for (const name of names.split(' ')) expect(text).toContain(`--${name}`);
  });
});

describe('installAdvice', () => {
  it('says what to install on each system', () => {
    expect(installAdvice('linux')).toMatch(/mesa-vulkan-drivers/);
    expect(installAdvice('win32')).toMatch(/graphics driver/);
    expect(installAdvice('darwin')).toMatch(/Metal/);
  });
});

describe('duration', () => {
  it('reads as people write it', () => {
    expect([400, 59_400, 65_000].map(duration)).toEqual(['0 s', '59 s', '1 min 05 s']);
  });
});

describe('latents files', () => {
  it('are safetensors that come back as they were', async () => {
    const latents = [1, 2].map((k) => Float32Array.from({ length: 3 * 64 }, (_, i) => Math.sin(k * i)));
    const path = join(folder, 'l.safetensors');
    await writeFile(path, latentsBytes(latents));
    const stored = readSafetensors(path);
    expect(stored.get('latents')!.shape).toEqual([2, 3, 64]);
    expect([...floatTensor(stored, 'latents')]).toEqual([...latents[0]!, ...latents[1]!]);
    expect([...(await readLatents(path))]).toEqual([...latents[0]!, ...latents[1]!]);
  });

  it('of another kind are refused', async () => {
    const path = join(folder, 'other.safetensors');
    await writeFile(path, latentsBytes([new Float32Array(64)]));
    const text = join(folder, 'text.safetensors');
    await writeFile(text, 'nothing of the kind');
    await expect(readLatents(text)).rejects.toMatchObject({ code: 'weights-invalid' });
    await expect(readLatents(join(folder, 'absent'))).rejects.toThrow(/Cannot open/);
    await expect(readLatents(new URL('../../fixtures/rope/io.safetensors', import.meta.url).pathname)).rejects.toThrow(
      /no tensor "latents"/,
    );
  });
});
