// Bundles: the same bytes twice, the right program or the exact reason, nothing changed on the way, no compiler loaded.
// The edit from a bundle against the one compiled in the process is in test/parity, which has a GPU.

import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest';
import type { BundleManifest, BundleSource } from '../../kernels-codegen/src/bundle/types.ts';
import { writeBundle } from '../../kernels-codegen/src/bundle/write.ts';
import { type CompileRequest, compile } from '../../kernels-codegen/src/compile.ts';
import { FLUX1_KONTEXT_DEV } from '../../kernels-codegen/src/models/specs.ts';
import { targetByName } from '../../kernels-codegen/src/targets/profiles.ts';
import type { AdapterReport } from '../../runtime/src/gpu/report.ts';
import { runCommand } from '../../sdk/src/cli/command.ts';
import { diffBundles, shapesFor } from '../../sdk/src/cli/compile.ts';
import { layerTable, slabPicture } from '../../sdk/src/cli/inspect.ts';
import { justInTime, type ProgramRequest } from '../../sdk/src/kontext/programs.ts';
import { demoModel } from '../../sdk/src/model/demo.ts';
import { type Model, openModel } from '../../sdk/src/model/open.ts';
import { bundlePrograms, readEntry, readManifest } from '../../sdk/src/programs/bundle.ts';
import { bundleFolder } from '../../sdk/src/programs/sources.ts';

const size = { width: 64, height: 64 };
const targets = [targetByName('swiftshader'), targetByName('lavapipe')];
const shapes = shapesFor({ sizes: [size], references: undefined, steps: 2, textTokens: 32 });

const PART_OF: Record<string, keyof BundleManifest['specs']> = {
  clip: 'clip',
  t5: 't5',
  'vae-encode': 'vae',
  'vae-decode': 'vae',
};

let model: Model;
let files: Map<string, string>;
let folder: string;

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'kontext-bundle-'));
  model = await openModel(demoModel());
  const specs = await justInTime().specs(model);
  files = await writeBundle({ model: 'demo', specs, shapes, targets, quantizations: ['none', 'q8'] });
});
afterAll(async () => {
  await model.close();
  await rm(folder, { recursive: true });
});

const sourceOf = (contents: Map<string, string>): BundleSource => ({
  label: 'The bundle under test',
  read: async (path) => {
    const text = contents.get(path);
    if (text === undefined) throw new Error('no such file');
    return JSON.parse(text);
  },
});
const withFile = (path: string, text: string) => sourceOf(new Map(files).set(path, text));

/** A device that offers exactly what a target assumes. */
const device = (name: string, change: Partial<AdapterReport> = {}): AdapterReport => {
  const { limits, subgroupSize } = targetByName(name);
  return {
    vendor: 'test',
    architecture: '',
    device: '',
    description: '',
    isFallbackAdapter: true,
    features: name === 'lavapipe' ? ['shader-f16', 'subgroups'] : [],
    limits: { ...limits },
    ...(subgroupSize && { subgroupSize }),
    subgroupMatrixConfigs: [],
    ...change,
  };
};
const denoise = (over: object = {}): ProgramRequest =>
  ({
    ...shapes.find((shape) => shape.component === 'denoise' && shape.references.length === 1)!,
    target: targets[1],
    quantization: 'q8',
    ...over,
  }) as ProgramRequest;

describe('writing', () => {
  it('gives the same bytes twice', async () => {
    const specs = await justInTime().specs(model);
    const again = await writeBundle({ model: 'demo', specs, shapes, targets, quantizations: ['none', 'q8'] });
    expect([...again]).toEqual([...files]);
  });

  it('holds every program as it was compiled, modules once', async () => {
    const source = sourceOf(files);
    const manifest = await readManifest(source);
    expect(manifest.programs.length).toBeGreaterThan(2 * shapes.length);
    for (const entry of manifest.programs) {
      const spec = manifest.specs[PART_OF[entry.shape.component] ?? 'transformer'];
      const target = targetByName(entry.target);
      const request = { ...entry.shape, spec, target, quantization: entry.quantization };
      expect(await readEntry(source, entry)).toEqual(compile(request as CompileRequest));
    }
    expect(new Set(manifest.modules).size).toBe(manifest.modules.length);
  });

  it('refuses a program its target cannot run', async () => {
    const real = { model: 'real', specs: FLUX1_KONTEXT_DEV, quantizations: ['q8' as const] };
    const decode = { component: 'vae-decode' as const, width: 1024, height: 1024 };
    await expect(writeBundle({ ...real, shapes: [decode], targets: [targetByName('mobile')] })).rejects.toMatchObject({
      code: 'limit-too-small',
    });
  });
});

describe('choosing', () => {
  it('takes the fastest target of the device, and the precision asked for', async () => {
    const programs = bundlePrograms(sourceOf(files));
    expect((await programs.target(device('lavapipe'), 'auto')).name).toBe('lavapipe');
    expect((await programs.target(device('swiftshader'), 'auto')).name).toBe('swiftshader');
    expect((await programs.target(device('swiftshader'), 'f32')).name).toBe('swiftshader');
    await expect(programs.target(device('swiftshader'), 'f16')).rejects.toMatchObject({
      code: 'feature-missing',
      message: expect.stringContaining('shader-f16'),
    });
  });

  it('refuses smaller limits and other subgroups by name', async () => {
    const programs = bundlePrograms(sourceOf(files));
    const small = device('swiftshader');
    small.limits.maxComputeInvocationsPerWorkgroup = 1;
    await expect(programs.target(small, 'auto')).rejects.toThrow(/maxComputeInvocationsPerWorkgroup/);
  });

  it('gives the program of the request', async () => {
    const programs = bundlePrograms(sourceOf(files));
    const program = await programs.program(denoise());
    const { specs } = await readManifest(sourceOf(files));
    expect(program).toEqual(compile({ ...denoise(), spec: specs.transformer } as CompileRequest));
  });

  it('says which sizes or quantisations there are when none matches', async () => {
    const programs = bundlePrograms(sourceOf(files));
    const other = denoise({ image: { height: 8, width: 8 } });
    await expect(programs.program(other)).rejects.toMatchObject({
      code: 'program-mismatch',
      message: expect.stringMatching(/no denoise program of shape .*"height":8.*it has .*"height":4/),
    });
    await expect(programs.program(denoise({ quantization: 'q4' }))).rejects.toThrow(/quantization "q4".*"none", "q8"/);
  });
});

describe('refusing', () => {
  it('a changed program, module or manifest', async () => {
    const { programs } = await readManifest(sourceOf(files));
    const entry = programs[0]!;
    const path = `programs/${entry.body}.json`;
    const body = JSON.parse(files.get(path)!);
    body.dispatches[0].workgroups[0] += 1;
    await expect(readEntry(withFile(path, JSON.stringify(body)), entry)).rejects.toMatchObject({
      code: 'program-invalid',
      details: { path },
    });
    const modules = JSON.parse(files.get('modules.json')!) as Record<string, string>;
    const broken = Object.fromEntries(Object.entries(modules).map(([hash, text]) => [hash, `${text} `]));
    await expect(readEntry(withFile('modules.json', JSON.stringify(broken)), entry)).rejects.toThrow(/modules\.json/);
    const manifest = JSON.parse(files.get('manifest.json')!) as BundleManifest;
    manifest.programs[0]!.flops++;
    await expect(readManifest(withFile('manifest.json', JSON.stringify(manifest)))).rejects.toThrow(/hash differs/);
  });

  it('another schema version, a missing file', async () => {
    const manifest = { ...JSON.parse(files.get('manifest.json')!), schema: 99 };
    await expect(readManifest(withFile('manifest.json', JSON.stringify(manifest)))).rejects.toMatchObject({
      code: 'program-mismatch',
    });
    await expect(readManifest(sourceOf(new Map()))).rejects.toMatchObject({ code: 'program-invalid' });
  });

  it('another model', async () => {
    const specs = FLUX1_KONTEXT_DEV;
    const cheap = [{ component: 'clip' as const, tokens: 77 }];
    const real = await writeBundle({ model: 'FLUX', specs, shapes: cheap, targets, quantizations: ['none'] });
    await expect(bundlePrograms(sourceOf(real)).specs(model)).rejects.toMatchObject({
      code: 'program-mismatch',
      message: expect.stringContaining('img_in.weight'),
    });
  });
});

describe('the command line', () => {
  const run = async (...args: string[]) => {
    const log = vi.spyOn(console, 'log').mockImplementation(() => {});
    const error = vi.spyOn(console, 'error').mockImplementation(() => {});
    try {
      const code = await runCommand(args, new AbortController().signal);
      return { code, text: [...log.mock.calls, ...error.mock.calls].flat().join('\n') };
    } finally {
      log.mockRestore();
      error.mockRestore();
    }
  };
  const compileArgs = ['compile', '--model', 'demo', '--size', '64x64', '--target', 'swiftshader'];

  it('compiles, lists, inspects and compares', async () => {
    const [a, b] = [join(folder, 'a'), join(folder, 'b')];
    expect(await run(...compileArgs, '-o', a, '--wgsl')).toMatchObject({ code: 0 });
    expect(await run(...compileArgs, '--quantization', 'q8', '-o', b)).toMatchObject({ code: 0 });
    expect((await run('inspect', a)).text).toContain('denoise 64×64');
    const svg = join(folder, 'slabs.svg');
    const shown = await run('inspect', a, '--program', '3', '--svg', svg, '--roofline', '10,100');
    expect(shown).toMatchObject({ code: 0, text: expect.stringContaining('at best (ms)') });
    expect(await readFile(svg, 'utf8')).toMatch(/^<svg/);
    expect((await run('compile', '--diff', a, b)).text).toMatch(/^- .*\(f16\)[\s\S]*^\+ .*\(q8\)/m);
    expect((await run('compile', '--diff', a, a)).text).toBe('No difference.');
    expect((await run('targets')).text).toContain('nvidia-matrix');
  });

  it('says what is wrong with the arguments', async () => {
    expect(await run('compile', '--size', '64x64', '-o', 'x')).toMatchObject({ code: 2 });
    expect((await run(...compileArgs.slice(0, 3), '--target', 'rtx', '--size', '64x64', '-o', 'x')).text).toContain(
      'Known targets',
    );
    expect((await run(...compileArgs, '--size', '100x64', '-o', 'x')).text).toContain('multiples of 16');
    // A folder that is no bundle is never replaced.
    expect((await run(...compileArgs, '-o', folder)).text).toContain('is no bundle');
  });

  it('the written entry is a source', async () => {
    const entry = (await import(/* @vite-ignore */ join(folder, 'a', 'index.js'))) as { default: BundleSource };
    expect(await readManifest(entry.default)).toEqual(await readManifest(bundleFolder(join(folder, 'a'))));
  });
});

it('a diff names what changed', async () => {
  const manifest = await readManifest(sourceOf(files));
  const changed = structuredClone(manifest);
  changed.programs[0]!.dispatches += 2;
  expect(diffBundles(manifest, changed)).toEqual([expect.stringMatching(/^~ .*dispatches \d+ → \d+$/)]);
});

it('tables and pictures add up', async () => {
  const manifest = await readManifest(sourceOf(files));
  const entry = manifest.programs.find((p) => p.shape.component === 'denoise')!;
  const program = await readEntry(sourceOf(files), entry);
  expect(layerTable(program).at(-1)).toMatch(new RegExp(`^total +${program.dispatches.length} `));
  const slabUses = program.dispatches.flatMap(({ bindings }) => bindings.filter(([kind]) => kind === 'slab')).length;
  expect(slabPicture(program).match(/<rect/g)).toHaveLength(slabUses + program.slabs.length);
});
