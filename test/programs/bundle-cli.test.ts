// Bundles on the command line: compile, targets, inspect, diff; the same bytes from any process; profiles from files.

import { execFile } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { mkdir, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import ts from 'typescript';
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest';
import type { BundleManifest, BundleSource } from '../../kernels-codegen/src/bundle/types.ts';
import { describeAdapter } from '../../runtime/src/gpu/open.ts';
import { runCommand } from '../../sdk/src/cli/command.ts';
import { slabValues } from '../../sdk/src/cli/slab-values.ts';
import { readEntry, readManifest } from '../../sdk/src/programs/bundle.ts';
import { bundleFolder } from '../../sdk/src/programs/sources.ts';
import { commandLine } from '../support/command-line.ts';

const root = new URL('../..', import.meta.url).pathname;
let folder: string;
let [a, b] = ['', ''];

const run = async (...args: string[]) => {
  const { code, out, err } = await commandLine(...args);
  return { code, text: [out, err].filter(Boolean).join('\n') };
};
const demo = (target: string, output: string, ...more: string[]) =>
  run('compile', '--model', 'demo', '--size', '64x64', '--target', target, ...more, '-o', output);

/** All files of a folder by path. */
async function contents(of: string): Promise<Map<string, string>> {
  const names = (await readdir(of, { recursive: true, withFileTypes: true })).filter((entry) => entry.isFile());
  const paths = names.map(({ parentPath, name }) => join(parentPath, name)).sort();
  return new Map(
    await Promise.all(paths.map(async (path) => [path.slice(of.length), await readFile(path, 'utf8')] as const)),
  );
}

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'kontext-bundle-'));
  [a, b] = [join(folder, 'a'), join(folder, 'b')];
  expect(await demo('swiftshader', a, '--wgsl')).toMatchObject({ code: 0 });
  expect(await demo('swiftshader,lavapipe', b, '--quantization', 'none,q8', '--steps', '2,4')).toMatchObject({
    code: 0,
  });
});
afterAll(() => rm(folder, { recursive: true }));

describe('compile', () => {
  it('writes the same bytes in another process, folder, language and time zone', { timeout: 600_000 }, async () => {
    const [elsewhere, output] = [join(folder, 'elsewhere'), join(folder, 'again')];
    await mkdir(elsewhere);
    const options = [
      'compile',
      '--model',
      'demo',
      '--size',
      '64x64',
      '--target',
      'swiftshader',
      '--wgsl',
      '-o',
      output,
    ];
    const cli = [join(root, 'sdk/src/cli/main.ts'), ...options];
    const env = { ...process.env, LC_ALL: 'tr_TR.UTF-8', LANG: 'tr_TR.UTF-8', TZ: 'Asia/Kathmandu' };
    await promisify(execFile)(join(root, 'node_modules/.bin/tsx'), cli, { cwd: elsewhere, env });
    expect(await contents(output)).toEqual(await contents(a));
  });

  it('names the WGSL files by kernel and keeps them out of what is loaded', async () => {
    const names = await readdir(join(a, 'wgsl'));
    expect(names.length).toBeGreaterThan(20);
    for (const name of names) expect(name).toMatch(/^[a-z0-9-]+-[0-9a-f]{8}\.wgsl$/i);
    expect(await readFile(join(a, 'index.js'), 'utf8')).not.toContain('wgsl/');
  });

  it('replaces a bundle, and nothing else', async () => {
    const before = await contents(a);
    expect(await demo('swiftshader', a, '--wgsl')).toMatchObject({ code: 0 });
    expect(await contents(a)).toEqual(before);
    expect((await demo('swiftshader', folder)).text).toContain('is no bundle');
  });

  it('stops on Ctrl-C and leaves nothing behind', async () => {
    const stop = new AbortController();
    const error = vi.spyOn(console, 'error').mockImplementation(() => {});
    const output = join(folder, 'stopped');
    const started = performance.now();
    const args = ['--size', '1024x1024', '--target', 'nvidia,apple-m,mali,adreno', '--quantization', 'none,q8,q4'];
    const running = runCommand(['compile', ...args, '-o', output], stop.signal);
    // As a signal of the system comes: between two turns of the event loop.
    setTimeout(() => stop.abort(new Error('Ctrl-C')), 500);
    expect(await running).toBe(130);
    expect(error.mock.calls.flat().join()).toContain('cancelled');
    error.mockRestore();
    // The whole bundle takes ten times as long.
    expect(performance.now() - started).toBeLessThan(5000);
    expect((await readdir(folder)).filter((name) => name.startsWith('stopped'))).toEqual([]);
  });

  it('refuses a folder that it will not replace before it compiles', async () => {
    const started = performance.now();
    const args = ['--size', '1024x1024', '--target', 'nvidia,apple-m,mali,adreno', '--quantization', 'none,q8,q4'];
    expect((await run('compile', ...args, '-o', folder)).text).toContain('is no bundle');
    expect(performance.now() - started).toBeLessThan(500);
  });

  it('says what is wrong with the arguments', async () => {
    expect(await run('compile', '--size', '64x64', '-o', 'x')).toMatchObject({ code: 2 });
    expect((await demo('rtx', 'x')).text).toContain('Known targets');
    expect((await run('compile', '--size', '100x64', '--target', 'baseline', '-o', 'x')).text).toContain(
      'multiples of 16',
    );
    expect((await demo('baseline', 'x', '--steps', '2,no')).text).toContain('whole number');
    expect((await demo('baseline', 'x', '--quantization', 'q2')).text).toContain('q4');
  });

  it('writes an entry that is a source, with types', { timeout: 600_000 }, async () => {
    // Node itself, in a folder that says nothing of modules, and the compiler of TypeScript.
    const script = `import programs from '${a}/index.js'; console.log((await programs.read('manifest.json')).model);`;
    const plain = await promisify(execFile)(process.execPath, ['--input-type=module', '-e', script], { cwd: folder });
    expect(plain.stdout).toBe('demo\n');
    expect(
      typeErrors(`import { Kontext } from '${root}sdk/src/browser.ts';
import programs from '${a}/index.js';
export const kontext: Promise<Kontext> = Kontext.load('/model/', { programs });`),
    ).toEqual([]);
    const entry = (await import(/* @vite-ignore */ join(a, 'index.js'))) as { default: BundleSource };
    expect(await readManifest(entry.default)).toEqual(await readManifest(bundleFolder(a)));
    expect(await readFile(join(a, 'index.d.ts'), 'utf8')).toContain('export default programs');
  });
});

/** What TypeScript says of a module that lies beside the bundle. */
function typeErrors(code: string): string[] {
  const file = join(folder, 'app.ts');
  writeFileSync(file, code);
  const { config } = ts.readConfigFile(`${root}tsconfig.json`, ts.sys.readFile);
  const { options } = ts.parseJsonConfigFileContent(config, ts.sys, root);
  const program = ts.createProgram([file], {
    ...options,
    typeRoots: [`${root}node_modules/@types`, `${root}node_modules`],
  });
  return program
    .getSemanticDiagnostics(program.getSourceFile(file))
    .map(({ messageText }) => ts.flattenDiagnosticMessageText(messageText, '\n'));
}

describe('diff', () => {
  it('lists targets, programs and kernels', async () => {
    expect((await run('compile', '--diff', a, a)).text).toBe('No difference.');
    const { text } = await run('compile', '--diff', a, b);
    expect(text).toMatch(/^\+ target lavapipe \(subgroups\)$/m);
    expect(text).toMatch(/^- .*denoise 64×64.* for swiftshader \(f16\)$/m);
    expect(text).toMatch(/^\+ .*denoise 64×64.* for lavapipe \(q8\): \d+ kernels, \d+ dispatches$/m);
    expect(text).toMatch(/^\+ modulation 2 steps for swiftshader \(none\)/m);
    expect(text).toMatch(/^WGSL modules: \d+ new, \d+ gone$/m);
  });

  it('names the kernels, dispatches and memory that changed', async () => {
    // The same target with less workgroup memory gets other tiles: what a new version of the compiler would show.
    const profile = JSON.parse(await readFile(join(a, 'manifest.json'), 'utf8')).targets[0];
    const file = join(folder, 'small.json');
    profile.limits.maxComputeInvocationsPerWorkgroup = 64;
    await writeFile(file, JSON.stringify(profile));
    const small = join(folder, 'small');
    expect(await demo(file, small)).toMatchObject({ code: 0 });
    const { text } = await run('compile', '--diff', a, small);
    expect(text).toMatch(/^~ target swiftshader: another profile$/m);
    expect(text).toMatch(/^~ .* 64×64.*: .*other requirements/m);
    expect(text).toMatch(/^ {4}[-+~] .*, \d+ dispatches|^ {4}~ .*texts differ/m);
  });
});

describe('targets', () => {
  it('lists every family', async () => {
    const { text } = await run('targets');
    const families = [
      'baseline',
      'swiftshader',
      'lavapipe',
      'apple-m',
      'nvidia',
      'intel-xe',
      'amd-rdna',
      'adreno',
      'mali',
    ];
    for (const name of families) expect(text).toMatch(new RegExp(`^${name} `, 'm'));
  });

  it('a probe, saved, compiles to what this machine compiles for itself', async () => {
    const { code, text } = await run('targets', '--probe');
    expect(code).toBe(0);
    const [probe, report] = [join(folder, 'probe.json'), join(folder, 'report.json')];
    await writeFile(probe, text);
    await writeFile(report, JSON.stringify(await describeAdapter()));
    for (const [i, target] of ['this', probe, report].entries())
      expect(await demo(target, join(folder, `probe-${i}`))).toMatchObject({ code: 0 });
    const [here, saved, reported] = await Promise.all([0, 1, 2].map((i) => contents(join(folder, `probe-${i}`))));
    expect(saved).toEqual(here);
    expect(reported).toEqual(here);
  });

  it('refuses broken profiles by name', async () => {
    const file = join(folder, 'broken.json');
    const profile = JSON.parse((await run('targets', '--probe')).text);
    const cases: [object, RegExp][] = [
      [{ tier: 'f64' }, /tier "f64" is not one of/],
      [{ limits: { ...profile.limits, maxBufferSize: undefined } }, /no limit maxBufferSize/],
      [{ tier: 'subgroups', subgroupSize: undefined }, /needs a subgroupSize/],
      [{ tier: 'subgroup-matrix', subgroupSize: { min: 8, max: 8 }, subgroupMatrix: [] }, /needs subgroupMatrix/],
    ];
    for (const [change, message] of cases) {
      await writeFile(file, JSON.stringify({ ...profile, ...change }));
      expect(await demo(file, 'x')).toMatchObject({ code: 2, text: expect.stringMatching(message) });
    }
    expect((await demo(join(folder, 'none.json'), 'x')).text).toContain('cannot be read');
  });
});

describe('inspect', () => {
  const denoise = async () => {
    const manifest = await readManifest(bundleFolder(a));
    const i = manifest.programs.findIndex((p) => p.shape.component === 'denoise' && p.shape.references.length === 1);
    return { i, manifest, program: await readEntry(bundleFolder(a), manifest, manifest.programs[i]!) };
  };

  it('lists programs, with the roofline of a GPU', async () => {
    const { i, program } = await denoise();
    expect((await run('inspect', a)).text).toMatch(/denoise 64×64 \+ 64×64, 16 text tokens/);
    const [line] = (await run('inspect', a, '--roofline', '10,100')).text.match(/^ +\d+ .*denoise 64×64 \+ .*$/m)!;
    const best = program.dispatches.reduce((sum, { flops, bytes }) => sum + Math.max(flops / 10e12, bytes / 100e9), 0);
    expect(Number(line!.trim().split(/ +/)[6])).toBeCloseTo(best * 1e3, 3);
    expect(Number(line!.trim().split(/ +/)[0])).toBe(i);
  });

  it('shows layers, kernels, memory and needs of one program', async () => {
    const { i, program } = await denoise();
    const svg = join(folder, 'slabs.svg');
    const { text } = await run('inspect', a, '--program', `${i}`, '--svg', svg, '--roofline', 'm2');
    expect(text).toMatch(new RegExp(`^total +${program.dispatches.length} `, 'm'));
    for (const { label } of program.kernels) expect(text).toContain(label);
    expect(text).toMatch(/arithmetic$|memory$/m);
    expect(text).toMatch(/^ {2}maxStorageBufferBindingSize \d+$/m);
    const picture = await readFile(svg, 'utf8');
    const values = slabValues(program);
    expect(picture.match(/<rect [^>]*><title>/g)).toHaveLength(values.length);
    expect(picture).toMatch(/written by matmul[\s\S]*slab 0, [\s\S]*>dispatch</);
  });

  it('finds values that never overlap in space and time and fill every slab', async () => {
    const { manifest } = await denoise();
    for (const entry of manifest.programs) {
      const values = slabValues(await readEntry(bundleFolder(a), manifest, entry));
      for (const [n, x] of values.entries()) {
        for (const y of values.slice(n + 1)) {
          const together = x.slab === y.slab && x.first < y.last && y.first < x.last;
          const overlapping = x.offset < y.offset + y.bytes && y.offset < x.offset + x.bytes;
          expect(together && overlapping, `${entry.label}: ${x.label} and ${y.label}`).toBe(false);
        }
      }
      const used = entry.memory.slabs.map((_, slab) =>
        values.filter((v) => v.slab === slab).reduce((most, { offset, bytes }) => Math.max(most, offset + bytes), 0),
      );
      // Slabs are rounded up to 256 bytes, values are not.
      for (const [slab, bytes] of entry.memory.slabs.entries()) expect(bytes - used[slab]!).toBeLessThan(256);
    }
  });

  it('says what is wrong with the arguments', async () => {
    expect((await run('inspect', a, '--roofline', 'rtx-1')).text).toMatch(/rtx-4090.*TFLOPS,GB\/s/);
    expect((await run('inspect', a, '--program', '999')).text).toContain('There is no program 999');
    expect((await run('inspect', a, '--svg', 'x')).text).toContain('--program N');
    expect((await run('inspect', join(folder, 'none'))).text).toContain('manifest.json cannot be read');
  });
});

it('the manifest says what a program assumes and costs', async () => {
  const manifest = JSON.parse(await readFile(join(b, 'manifest.json'), 'utf8')) as BundleManifest;
  expect(manifest).toMatchObject({ schema: 1, model: 'demo', digest: expect.stringMatching(/^[0-9a-f]{64}$/) });
  for (const entry of manifest.programs) {
    expect(entry.requires.limits.maxBufferSize).toBeGreaterThan(0);
    expect(entry.flops).toBeGreaterThan(0);
    expect(entry.memory.ports).toBeGreaterThan(0);
    if (entry.target === 'lavapipe' && entry.shape.component === 'denoise')
      expect(entry.requires.features).toContain('shader-f16');
  }
});
