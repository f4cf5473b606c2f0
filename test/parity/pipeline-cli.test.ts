// The command line end to end on the reference's tiny model: the same picture, latents in and out, and every wrong input.
// In this process, apart from Ctrl-C, which needs one of its own.
import { type ChildProcess, spawn } from 'node:child_process';
import { existsSync, rmSync, writeFileSync } from 'node:fs';
import { cp, mkdir, mkdtemp, readdir, readFile, rm, truncate, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import sharp from 'sharp';
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest';
import { latentsBytes } from '../../sdk/src/cli/latents-file.ts';
import { readPngText } from '../../sdk/src/image/metadata/png-text.ts';
import { decodeImage } from '../../sdk/src/image/node.ts';
import { commandLine as kontext } from '../support/command-line.ts';
import { pipelineFile, pipelineRuns, writePipelineModel } from '../support/pipeline-model.ts';
import { psnr } from '../support/psnr.ts';
import { floatTensor, readSafetensors } from '../support/safetensors.ts';

const TIMEOUT = 600_000;
const run = pipelineRuns().find(({ name }) => name === 'edit')!;
const input = run.image!;

let folder: string;
let model: string;
const at = (name: string) => join(folder, name);
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'kontext-pipeline-'));
  model = at('model');
  writePipelineModel(model);
});
afterAll(() => rm(folder, { recursive: true }));

const side = { width: run.width, height: run.height };
const exact = () => [
  ...['--model', model, '--no-auto-resize', '--precision', 'f32'],
  ...['--width', String(side.width), '--height', String(side.height)],
];
const small = () => [...exact(), '--steps', '1', '--max-sequence-length', '24', '--quiet'];

describe('kontext edit', { timeout: TIMEOUT }, () => {
  it('with --mask keeps everything outside it, 16 bits and transparency too', async () => {
    const [width, height] = [150, 101];
    const deep = Uint16Array.from({ length: 4 * width * height }, (_, i) => (i * 40503) % 65536);
    const grey = new Uint8Array(width * height);
    for (let y = 30; y < 60; y++) grey.fill(255, y * width + 40, y * width + 90);
    await sharp(deep, { raw: { width, height, channels: 4 } })
      .toColourspace('rgb16')
      .png()
      .toFile(at('deep.png'));
    await sharp(grey, { raw: { width, height, channels: 1 } })
      .png()
      .toFile(at('mask.png'));
    const args = ['--mask', at('mask.png'), '-o', at('masked.png')];
    const { code, err } = await kontext('edit', at('deep.png'), 'a red ball', ...small(), ...args);
    expect(err).toBe('');
    expect(code).toBe(0);
    const samples = async (name: string) =>
      new Uint16Array(
        new Uint8Array(await sharp(at(name)).toColourspace('rgb16').raw({ depth: 'ushort' }).toBuffer()).buffer,
      );
    const [before, after] = [await samples('deep.png'), await samples('masked.png')];
    expect(after.length).toBe(before.length);
    const changed: number[] = [];
    for (const [i, v] of after.entries()) if (v !== before[i]) changed.push(i >> 2);
    expect(changed.length).toBeGreaterThan(1000);
    expect(changed.every((pixel) => grey[pixel]! > 0)).toBe(true);
    const empty = await kontext('edit', at('deep.png'), 'x', ...small(), '--mask', input, '-o', at('none.png'));
    expect(empty).toMatchObject({ code: 2 });
    expect(empty.err).toMatch(/Give a mask of the picture's size/);
  });

  it('makes the reference’s picture and latents, and reports as JSON', async () => {
    const [seed] = run.seeds;
    const args = ['--steps', `${run.steps}`, '--guidance', `${run.guidance}`, '--seed', `${seed}`, '--json'];
    const files = ['-o', at('edit.png'), '--save-latents', at('edit.safetensors')];
    const { code, out, err } = await kontext('edit', input, run.prompts[0]!, ...exact(), ...args, ...files);
    expect(err).toBe('');
    expect(code).toBe(0);
    const report = JSON.parse(out);
    expect(report).toMatchObject({ seed, ...side, output: at('edit.png'), truncated: false });
    expect(report.timings.totalMs).toBeGreaterThan(0);
    expect(report.memory.peakBytes).toBeGreaterThan(0);
    expect(psnr(await decodeImage(at('edit.png'), 'x'), await decodeImage(run.png[0]!, 'x'))).toBeGreaterThan(55);

    const latents = floatTensor(readSafetensors(at('edit.safetensors')), 'latents');
    const expected = floatTensor(readSafetensors(pipelineFile('edit.safetensors')), 'mid.latents_after_step');
    expect(latents.length * run.steps).toBe(expected.length);
    const last = expected.subarray(expected.length - latents.length);
    expect(Math.max(...latents.map((value, i) => Math.abs(value - last[i]!)))).toBeLessThan(1e-3);

    const text = JSON.parse(readPngText(await readFile(at('edit.png')))!);
    const { steps, guidance } = run;
    expect(text).toMatchObject({ prompt: run.prompts[0], seed: `${seed}`, options: { steps, guidance } });
    expect(readPngText(await readFile(at('edit.png')), 'parameters')).toMatch(
      new RegExp(`Steps: ${steps}, Sampler: Euler, .*Seed: ${seed},`),
    );
  });

  it('makes a picture again from the settings in its file, or keeps them out', async () => {
    const made = ['--seed', '7', '--steps', '2', '--sampler', 'dpmpp_2m'];
    const { code, err } = await kontext('edit', input, 'a "blue" bicycle', ...exact(), ...made, '-o', at('made.webp'));
    expect([code, err]).toEqual([0, '']);
    const again = await kontext('edit', input, '--from', at('made.webp'), ...exact(), '-o', at('again.png'));
    expect([again.code, again.err]).toEqual([0, '']);
    const direct = ['edit', input, 'a "blue" bicycle', ...exact(), ...made, '-o', at('direct.png'), '--no-metadata'];
    expect((await kontext(...direct)).code).toBe(0);
    const pixels = async (name: string) => (await decodeImage(at(name), 'x')).data;
    expect(await pixels('again.png')).toEqual(await pixels('direct.png'));
    expect(readPngText(await readFile(at('direct.png')))).toBeUndefined();
    expect(readPngText(await readFile(at('direct.png')), 'parameters')).toBeUndefined();
    const none = await kontext('edit', input, '--from', at('direct.png'), ...exact(), '-o', at('none.png'));
    expect([none.code, none.err]).toEqual([2, expect.stringMatching(/does not say how it was made/)]);
  });

  it('lets the variants that --choose names go on', async () => {
    const common = ['edit', input, 'x', ...exact(), '--steps', '2', '--seed', '3'];
    const chosen = await kontext(...common, '--variants', '3', '--choose', '3,1', '-o', at('chosen.png'));
    expect([chosen.code, chosen.err]).toEqual([0, '']);
    for (const [name, seed] of [
      ['chosen-1.png', 5],
      ['chosen-2.png', 3],
    ] as const) {
      expect(JSON.parse(readPngText(await readFile(at(name)))!)).toMatchObject({ seed: String(seed) });
    }
    const asked = await kontext(...common, '--variants', '3', '--choose', '-o', at('none.png'));
    expect([asked.code, asked.err]).toEqual([2, expect.stringMatching(/asks in a terminal, and this is none/)]);
  });

  it('starts from given latents', async () => {
    const noise = floatTensor(readSafetensors(pipelineFile('edit.safetensors')), 'mid.latents_initial');
    await writeFile(at('noise.safetensors'), latentsBytes([noise]));
    const common = ['edit', input, run.prompts[0]!, ...small()];
    expect((await kontext(...common, '-o', at('a.png'), '--latents', at('noise.safetensors'))).code).toBe(0);
    expect((await kontext(...common, '-o', at('b.png'), '--seed', `${run.seeds[0]}`)).code).toBe(0);
    // Noise is the reference's to a few units in the last place; pictures differ by a grey level here and there.
    expect(psnr(await decodeImage(at('a.png'), 'x'), await decodeImage(at('b.png'), 'x'))).toBeGreaterThan(60);
  });

  it('writes JPEG and WebP by the ending', async () => {
    for (const [name, format] of [
      ['c.jpg', 'jpeg'],
      ['c.webp', 'webp'],
    ] as const) {
      expect((await kontext('edit', input, 'x', ...small(), '-o', at(name))).code).toBe(0);
      expect((await sharp(at(name)).metadata()).format).toBe(format);
    }
  });

  it('edits several pictures with one model, passes over a bad one, and does not exit with 0', async () => {
    await mkdir(at('photos'));
    for (const name of ['1.png', '3.png']) await cp(input, at(join('photos', name)));
    await writeFile(at('photos/2.png'), 'no picture');
    const { code, out, err } = await kontext('edit', at('photos'), 'x', ...small(), '--json', '-o', `${at('out')}/`);
    expect(code).toBe(2);
    expect(err).toMatch(/1 of 3 pictures failed: .*2.png/);
    const lines = out.split('\n').map((line) => JSON.parse(line));
    expect(lines).toMatchObject([
      { input: at('photos/1.png'), output: at('out/1.png') },
      { input: at('photos/2.png'), error: { code: 'image-invalid' } },
      { input: at('photos/3.png'), output: at('out/3.png') },
      { done: 2, failed: 1 },
    ]);
    expect((await readdir(at('out'))).sort()).toEqual(['1.png', '3.png']);
    // What the first run wrote is not replaced unasked.
    const again = await kontext('edit', at('photos'), 'x', ...small(), '-o', at('out'));
    expect([again.code, again.err]).toEqual([2, expect.stringMatching(/1.png, .*3.png exist. Give --force/)]);
  });

  it('makes several pictures of one, numbered', async () => {
    const args = ['edit', input, 'x', ...small(), '--images', '2', '--seed', '7', '-o', at('several.png')];
    expect((await kontext(...args)).code).toBe(0);
    for (const [i, name] of ['several-1.png', 'several-2.png'].entries())
      expect(JSON.parse(readPngText(await readFile(at(name)))!)).toMatchObject({ seed: `${7 + i}` });
  });

  it('reads standard input and writes standard output, and nothing else there', async () => {
    const root = new URL('../..', import.meta.url).pathname;
    const args = ['--import', 'tsx', 'sdk/src/cli/main.ts', 'edit', '-', 'x', ...small(), '--json', '-o', '-'];
    const child = spawn(process.execPath, args, { cwd: root, stdio: ['pipe', 'pipe', 'pipe'] });
    child.stdin.end(await readFile(input));
    const [out, err]: [Buffer[], Buffer[]] = [[], []];
    child.stdout.on('data', (chunk: Buffer) => out.push(chunk));
    child.stderr.on('data', (chunk: Buffer) => err.push(chunk));
    const code = await new Promise((resolve) => child.on('close', resolve));
    expect(code, String(Buffer.concat(err))).toBe(0);
    expect(await sharp(Buffer.concat(out)).metadata()).toMatchObject({ format: 'png', ...side });
    // The report is all that standard error has: none of Dawn's warnings, no progress, no escape codes.
    expect(JSON.parse(String(Buffer.concat(err)))).toMatchObject({ output: '-' });
  });

  it('keeps a picture that cannot be written', async () => {
    await mkdir(at('gone'));
    const stages = vi.spyOn(process.stderr, 'write').mockImplementation((text) => {
      if (!String(text).includes('denoising')) return true;
      rmSync(at('gone'), { recursive: true });
      writeFileSync(at('gone'), 'in the way');
      return true;
    });
    const args = [...small().filter((arg) => arg !== '--quiet'), '--save-latents', at('late.safetensors')];
    const { code, err } = await kontext('edit', input, 'x', ...args, '-o', at('gone/late.png'));
    stages.mockRestore();
    expect(code).toBe(2);
    const kept = /It is kept in (\S+)\.$/m.exec(err)?.[1];
    expect((await sharp(kept).metadata()).width).toBe(side.width);
    await rm(join(kept!, '..'), { recursive: true });
    // What could be written is.
    expect(existsSync(at('late.safetensors'))).toBe(true);
  });

  it('leaves no file when it is stopped with Ctrl-C', async () => {
    const root = new URL('../..', import.meta.url).pathname;
    const args = [
      '--import',
      'tsx',
      'sdk/src/cli/main.ts',
      'edit',
      input,
      'x',
      ...exact(),
      '--steps',
      '900',
      '-o',
      at('never.png'),
    ];
    const child: ChildProcess = spawn(process.execPath, args, { cwd: root, stdio: ['ignore', 'pipe', 'pipe'] });
    let err = '';
    child.stderr!.on('data', (chunk) => {
      err += chunk;
      // Once only: the second Ctrl-C is the shell's way of killing.
      if (err.includes('denoising') && !child.killed) child.kill('SIGINT');
    });
    const code = await new Promise((resolve) => child.on('exit', resolve));
    expect(code, err).toBe(130);
    expect(err).toContain('cancelled');
    expect((await readdir(folder)).filter((name) => name.startsWith('never'))).toEqual([]);
  });
});

describe('wrong inputs', { timeout: TIMEOUT }, () => {
  const edit = (image: string, prompt: string, ...rest: string[]) => ['edit', image, prompt, ...small(), ...rest];

  beforeAll(async () => {
    await writeFile(at('text.png'), 'no picture');
    await sharp({ create: { width: 30000, height: 4, channels: 3, background: 'red' } })
      .png()
      .toFile(at('wide.png'));
  });

  it.each<[what: string, args: () => string[], code: number, message: RegExp]>([
    ['no command', () => ['paint'], 2, /no command "paint"/],
    ['no prompt', () => ['edit', input, '-o', at('no.png')], 2, /takes IMAGE and PROMPT/],
    ['a prompt without quotes', () => ['generate', 'a', 'fox', '-o', at('no.png')], 2, /quotes/],
    ['no output', () => ['edit', input, 'x'], 2, /-o OUT/],
    ['an unknown format', () => edit(input, 'x', '-o', at('no.bmp')), 2, /must end in .png/],
    ['an unknown option', () => edit(input, 'x', '-o', at('no.png'), '--colour'), 2, /--colour/],
    [
      'a missing picture',
      () => edit(at('absent.png'), 'x', '-o', at('no.png')),
      2,
      /absent.png cannot be opened: there is no/,
    ],
    ['what is no picture', () => edit(at('text.png'), 'x', '-o', at('no.png')), 2, /text.png cannot be read/],
    ['a picture 30,000 wide', () => edit(at('wide.png'), 'x', '-o', at('no.png')), 2, /30000×4/],
    ['an empty prompt', () => edit(input, '', '-o', at('no.png')), 2, /prompt is empty/],
    [
      'a size off the grid',
      () => edit(input, 'x', '-o', at('no.png'), '--width', '100'),
      2,
      /width is 100.*multiple of 16/,
    ],
    ['a size of 0', () => edit(input, 'x', '-o', at('no.png'), '--width', '0', '--height', '0'), 2, /width is 0/],
    ['half a size', () => ['generate', 'x', '-o', at('no.png'), '--width', '64'], 2, /--height together/],
    ['steps that are no number', () => edit(input, 'x', '-o', at('no.png'), '--steps', 'many'), 2, /--steps is "many"/],
    ['no steps', () => edit(input, 'x', '-o', at('no.png'), '--steps', '0'), 2, /steps is 0/],
    ['a seed that is none', () => edit(input, 'x', '-o', at('no.png'), '--seed', '1.5'), 2, /--seed is "1.5"/],
    ['an unknown precision', () => edit(input, 'x', '-o', at('no.png'), '--precision', 'f64'), 2, /precision is "f64"/],
    ['an absent adapter', () => edit(input, 'x', '-o', at('no.png'), '--adapter', 'Voodoo'), 3, /Voodoo/],
    ['a missing folder', () => edit(input, 'x', '-o', at('no.png'), '--model', at('absent')), 4, /no model at/],
    [
      'a folder without a model',
      () => edit(input, 'x', '-o', at('no.png'), '--model', at('.')),
      4,
      /is no model|has no transformer|has no CLIP/,
    ],
    [
      'a silent server',
      () => edit(input, 'x', '-o', at('no.png'), '--model', 'http://127.0.0.1:9/m'),
      4,
      /127.0.0.1:9/,
    ],
    [
      'several pictures for one file',
      () => ['edit', input, input, 'x', ...small(), '-o', at('no.png')],
      2,
      /Give a folder/,
    ],
    ['settings of no picture', () => edit(input, 'x', '-o', at('no.jpg'), '--from', at('r.png')), 2, /r.png cannot/],
    [
      'a missing reference',
      () => edit(input, 'x', '-o', at('no.png'), '--reference', at('r.png')),
      2,
      /reference .*r.png cannot/,
    ],
    ['two ways to say a size', () => edit(input, 'x', '-o', at('no.png'), '--size', '64x64'), 2, /--size, or --width/],
    ['a folder to write in that is not there', () => edit(input, 'x', '-o', at('absent/no.png')), 2, /Cannot write/],
  ])('%s: message, exit code, nothing written', async (_, args, code, message) => {
    const result = await kontext(...args());
    expect(result.err).toMatch(message);
    expect(result.code).toBe(code);
    expect(result.out).toBe('');
    expect((await readdir(folder)).filter((name) => name.startsWith('no.'))).toEqual([]);
  });

  const transformer = 'transformer/diffusion_pytorch_model.safetensors';
  it.each<[what: string, spoil: (path: string) => Promise<void>, message: RegExp]>([
    ['truncated weights', (path) => truncate(join(path, transformer), 100_000), /truncated/],
    [
      'weights that are no safetensors',
      (path) => writeFile(join(path, transformer), 'x'.repeat(999)),
      /neither a safetensors nor a GGUF/,
    ],
    ['missing weights', (path) => rm(join(path, transformer)), /has no transformer/],
    [
      'a missing tensor',
      (path) => renameTensor(join(path, transformer), 'x_embedder.weight', 'y_embedder.weight'),
      /img_in.weight/,
    ],
    ['a wrong shape', (path) => editConfig(path, 'transformer', { num_attention_heads: 4 }), /head size|shape|\[/],
    [
      'networks of two models',
      (path) => editConfig(path, 'text_encoder_2', { d_model: 16 }),
      /text of width 12, T5 gives 16/,
    ],
    ['a broken config', (path) => writeFile(join(path, 'vae/config.json'), '{'), /vae\/config.json is not valid JSON/],
    ['a broken tokenizer', (path) => writeFile(join(path, 'tokenizer_2/tokenizer.json'), '{}'), /model/],
    ['odd defaults', (path) => writeFile(join(path, 'kontext.json'), '{"steps": 0}'), /steps must be a whole number/],
  ])('%s: message, exit code 4, nothing written', async (what, spoil, message) => {
    const broken = at(`broken ${what}`);
    await mkdir(broken);
    await cp(model, broken, { recursive: true });
    await spoil(broken);
    const result = await kontext(...edit(input, 'x', '-o', at('no.png'), '--model', broken));
    expect(result.err).toMatch(message);
    expect(result.code).toBe(4);
    expect(existsSync(at('no.png'))).toBe(false);
    await rm(broken, { recursive: true });
  });

  it('are reported as JSON when that is asked for', async () => {
    const { code, err } = await kontext('edit', at('absent.png'), 'x', ...small(), '-o', at('no.png'), '--json');
    expect(code).toBe(2);
    expect(JSON.parse(err)).toMatchObject({ error: { code: 'image-invalid', details: { path: at('absent.png') } } });
  });
});

describe('kontext doctor', () => {
  it('prints the adapter and what will run', async () => {
    const { code, out } = await kontext('doctor');
    expect(code).toBe(0);
    expect(out).toMatch(/Adapter {3}\S/);
    expect(out).toMatch(/Will run {2}(f32|f16|subgroups|subgroup-matrix): /);
    const json = JSON.parse((await kontext('doctor', '--json', '--precision', 'f32')).out);
    expect(json).toMatchObject({ tier: 'f32', why: 'asked for with --precision f32' });
    expect(json.adapter.limits.maxBufferSize).toBeGreaterThan(0);
  });

  it('says what to install when there is none', async () => {
    const { code, out, err } = await kontext('doctor', '--adapter', 'Voodoo');
    expect([code, /No usable GPU/.test(out), /Voodoo/.test(err)]).toEqual([3, true, true]);
  });
});

async function editConfig(path: string, part: string, change: Record<string, unknown>): Promise<void> {
  const file = join(path, part, 'config.json');
  await writeFile(file, JSON.stringify({ ...JSON.parse(await readFile(file, 'utf8')), ...change }));
}

/** Same length, so that no offset changes. */
async function renameTensor(path: string, from: string, to: string): Promise<void> {
  const bytes = await readFile(path);
  const where = bytes.indexOf(`"${from}"`);
  expect(where).toBeGreaterThan(0);
  bytes.write(`"${to}"`, where);
  await writeFile(path, bytes);
}
