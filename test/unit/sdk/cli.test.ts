// The command line's grammar, help and latents files: what can be judged without a GPU.
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { helpText, parseArguments } from '../../../sdk/src/cli/arguments.ts';
import { installAdvice } from '../../../sdk/src/cli/doctor.ts';
import { readLatents, writeLatents } from '../../../sdk/src/cli/latents-file.ts';
import { duration } from '../../../sdk/src/cli/progress-line.ts';
import { floatTensor, readSafetensors } from '../../support/safetensors.ts';

let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'kontext-cli-'));
});
afterAll(() => rm(folder, { recursive: true }));

describe('parseArguments', () => {
  it('reads words and options in any order', () => {
    const parsed = parseArguments([
      'edit',
      'a.png',
      '--seed',
      '-7',
      '-o',
      'b.png',
      'make it night',
      '--reference=c.png',
    ]);
    expect(parsed).toMatchObject({
      command: 'edit',
      words: ['a.png', 'make it night'],
      values: { seed: '-7', output: 'b.png', reference: ['c.png'] },
    });
  });

  it('asks for help when nothing is said', () => {
    for (const args of [[], ['--help'], ['edit', '-h'], ['help']]) expect(parseArguments(args)).toBeUndefined();
  });

  it.each([
    [['paint'], /no command "paint".*edit, generate, doctor/],
    [['edit', '--colour', 'red'], /--colour/],
    [['generate', '--reference', 'x.png'], /--reference/],
    [['edit', '--seed'], /--seed/],
    [['doctor', '--steps', '3'], /--steps/],
  ])('refuses %j', (args, message) => {
    expect(() => parseArguments(args)).toThrow(message);
  });
});

describe('helpText', () => {
  it('names every option of the interface', () => {
    const names =
      'model steps guidance seed width height no-auto-resize max-area max-sequence-length negative-prompt true-cfg-scale ' +
      'reference precision conditioning adapter save-latents latents json quiet';
    for (const name of names.split(' ')) expect(helpText()).toContain(`--${name}`);
    expect(helpText()).toContain('denoising steps (default: 28');
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
    await writeLatents(path, latents);
    const stored = readSafetensors(path);
    expect(stored.get('latents')!.shape).toEqual([2, 3, 64]);
    expect([...floatTensor(stored, 'latents')]).toEqual([...latents[0]!, ...latents[1]!]);
    expect([...(await readLatents(path))]).toEqual([...latents[0]!, ...latents[1]!]);
  });

  it('of another kind are refused', async () => {
    const path = join(folder, 'other.safetensors');
    await writeLatents(path, [new Float32Array(64)]);
    const text = join(folder, 'text.safetensors');
    await writeFile(text, 'nothing of the kind');
    await expect(readLatents(text)).rejects.toMatchObject({ code: 'weights-invalid' });
    await expect(readLatents(join(folder, 'absent'))).rejects.toThrow(/Cannot open/);
    await expect(readLatents(new URL('../../fixtures/rope/io.safetensors', import.meta.url).pathname)).rejects.toThrow(
      /no tensor "latents"/,
    );
  });
});
