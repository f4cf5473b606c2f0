// Bundles: the same bytes twice, the right program or the exact reason, nothing changed on the way, no compiler loaded.
// The edit from a bundle against the one compiled in the process is in test/parity, which has a GPU.

import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { BundleManifest, BundleSource } from '../../kernels-codegen/src/bundle/types.ts';
import { writeBundle } from '../../kernels-codegen/src/bundle/write.ts';
import { type CompileRequest, compile } from '../../kernels-codegen/src/compile.ts';
import { FLUX1_KONTEXT_DEV } from '../../kernels-codegen/src/models/specs.ts';
import { targetByName } from '../../kernels-codegen/src/targets/profiles.ts';
import { KontextError } from '../../runtime/src/errors.ts';
import type { AdapterReport } from '../../runtime/src/gpu/report.ts';
import { tokenCount } from '../../sdk/src/kontext/latents.ts';
import type { Parts, ShapeRequest, Work } from '../../sdk/src/kontext/parts.ts';
import { fitPreview } from '../../sdk/src/kontext/preview.ts';
import { justInTime, type ProgramRequest } from '../../sdk/src/kontext/programs.ts';
import { decodeTiled, encodeTiled, TILINGS, wholeOrTiled } from '../../sdk/src/kontext/tiling.ts';
import type { ImageSize } from '../../sdk/src/kontext/types.ts';
import { demoModel } from '../../sdk/src/model/demo.ts';
import { type Model, openModel } from '../../sdk/src/model/open.ts';
import { Kontext } from '../../sdk/src/node.ts';
import { bundlePrograms, readEntry, readManifest } from '../../sdk/src/programs/bundle.ts';
import { shapesFor } from '../../sdk/src/programs/shapes.ts';

const size = { width: 64, height: 64 };
const targets = [targetByName('swiftshader'), targetByName('lavapipe')];
const shapes = shapesFor({ sizes: [size], references: undefined, steps: [2], textTokens: 32 });

const PART_OF: Record<string, keyof BundleManifest['specs']> = {
  clip: 'clip',
  t5: 't5',
  'vae-encode': 'vae',
  'vae-decode': 'vae',
};

let model: Model;
let files: Map<string, string>;

beforeAll(async () => {
  model = await openModel(demoModel());
  const specs = await justInTime().specs(model);
  files = await writeBundle({ model: 'demo', specs, shapes, targets, quantizations: ['none', 'q8'] });
});
afterAll(async () => {
  await model.close();
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
      expect(await readEntry(source, manifest, entry)).toEqual(compile(request as CompileRequest));
    }
    const modules = manifest.modules.flatMap(({ holds }) => holds);
    expect(new Set(modules).size).toBe(modules.length);
    for (const { file, bytes } of manifest.modules)
      expect(Buffer.byteLength(files.get(`modules/${file}.json`)!)).toBe(bytes);
    for (const { body, bytes } of manifest.programs)
      expect(Buffer.byteLength(files.get(`programs/${body}.json`)!)).toBe(bytes);
  });

  it('refuses a program its target cannot run', async () => {
    const real = { model: 'real', specs: FLUX1_KONTEXT_DEV, quantizations: ['q8' as const] };
    const decode = { component: 'vae-decode' as const, width: 1024, height: 1024 };
    await expect(writeBundle({ ...real, shapes: [decode], targets: [targetByName('adreno')] })).rejects.toMatchObject({
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
  it('a changed program or module, by any byte', async () => {
    const manifest = await readManifest(sourceOf(files));
    const entry = manifest.programs[0]!;
    const path = `programs/${entry.body}.json`;
    const body = JSON.parse(files.get(path)!);
    body.dispatches[0].workgroups[0] += 1;
    await expect(readEntry(withFile(path, JSON.stringify(body)), manifest, entry)).rejects.toMatchObject({
      code: 'program-invalid',
      details: { path },
    });
    const changed = new Map(files);
    for (const [path, text] of files) {
      if (path.startsWith('modules/')) changed.set(path, text.replaceAll('fn main', 'fn  main'));
    }
    await expect(readEntry(sourceOf(changed), manifest, entry)).rejects.toThrow(/modules\/.* its hash differs/);
    changed.delete(path);
    await expect(readEntry(sourceOf(changed), manifest, entry)).rejects.toMatchObject({ code: 'program-invalid' });
  });

  /** A GPU that counts how far loading got. */
  const counting = (name: string, change: Partial<AdapterReport> = {}) => {
    const { features, limits, subgroupSize } = device(name, change);
    const calls = { adapters: 0, devices: 0 };
    const info = { vendor: '', architecture: '', device: '', description: '', isFallbackAdapter: false };
    const lanes = subgroupSize && { subgroupMinSize: subgroupSize.min, subgroupMaxSize: subgroupSize.max };
    const adapter = {
      info: { ...info, ...lanes },
      features: new Set(features),
      limits,
      requestDevice: async () => {
        calls.devices++;
        throw new Error('opened');
      },
    };
    const gpu = {
      requestAdapter: async () => {
        calls.adapters++;
        return adapter;
      },
    };
    return { calls, gpu: gpu as unknown as GPU };
  };
  const load = async (programs: BundleSource, { calls, gpu }: ReturnType<typeof counting>) => {
    const error = await Kontext.load(demoModel(), { programs, device: { gpu } }).catch((error: unknown) => error);
    return { error, ...calls };
  };

  it.each([
    ['a changed manifest', { programs: [] }, 'program-invalid', /manifest\.json is not what was compiled/],
    [
      'another schema version',
      { schema: 99 },
      'program-mismatch',
      /has schema 99; this version reads 1\. Run kontext compile/,
    ],
  ])('%s, without opening a device', async (_, change, code, message) => {
    const manifest = JSON.stringify({ ...JSON.parse(files.get('manifest.json')!), ...change });
    const { error, ...calls } = await load(withFile('manifest.json', manifest), counting('lavapipe'));
    expect(error).toMatchObject({ code, message: expect.stringMatching(message) });
    expect(calls).toEqual({ adapters: 1, devices: 0 });
  });

  it('no bundle at all, without opening a device', async () => {
    const { error, ...calls } = await load(sourceOf(new Map()), counting('lavapipe'));
    expect(error).toMatchObject({ code: 'program-invalid', message: expect.stringContaining('manifest.json') });
    expect(calls).toEqual({ adapters: 1, devices: 0 });
  });

  it('the bundle of another model, without opening a device', async () => {
    const specs = FLUX1_KONTEXT_DEV;
    const cheap = [{ component: 'clip' as const, tokens: 77 }];
    const real = await writeBundle({ model: 'FLUX', specs, shapes: cheap, targets, quantizations: ['none'] });
    const { error, ...calls } = await load(sourceOf(real), counting('lavapipe'));
    expect(error).toMatchObject({
      code: 'program-mismatch',
      message: expect.stringMatching(/is for FLUX, not for .*img_in\.weight should be \[3072, 64\]/),
    });
    expect(calls).toEqual({ adapters: 1, devices: 0 });
  });

  it('a missing feature or a smaller limit, without opening a device', async () => {
    const specs = await justInTime().specs(model);
    const only = { model: 'demo', specs, shapes, targets: [targets[1]!], quantizations: ['none' as const] };
    const lavapipe = sourceOf(await writeBundle(only));
    const plain = await load(lavapipe, counting('lavapipe', { features: ['subgroups'] }));
    expect(plain.error).toMatchObject({
      code: 'feature-missing',
      message: expect.stringMatching(/lavapipe: .* needs the WebGPU feature "shader-f16"/),
    });
    const limits = { ...device('lavapipe').limits, maxComputeInvocationsPerWorkgroup: 16 };
    const small = await load(lavapipe, counting('lavapipe', { limits }));
    expect(small.error).toMatchObject({
      code: 'limit-too-small',
      details: { limit: 'maxComputeInvocationsPerWorkgroup', available: 16 },
    });
    for (const { adapters, devices } of [plain, small]) expect([adapters, devices]).toEqual([2, 0]);
    // The guard is awake: what fits goes on to the device.
    expect(await load(lavapipe, counting('lavapipe'))).toMatchObject({ adapters: 2, devices: 1 });
  });
});

describe('a bundle has all that a request may need', () => {
  const large = { width: 1024, height: 576 };
  const keys = new Set(
    shapesFor({ sizes: [large], references: undefined, steps: [2, 4], textTokens: 32 }).map((shape) =>
      JSON.stringify(Object.entries(shape).sort()),
    ),
  );
  const asked: ShapeRequest[] = [];
  /** Takes down what is asked for and computes zeros. */
  const parts = {
    bind: async (shape: ShapeRequest) => {
      asked.push(shape);
      return { port: () => ({}), write: () => {}, read: async () => new Uint8Array(large.width * large.height * 4) };
    },
    run: async () => 0,
    unbind: async () => {},
  } as unknown as Parts;
  const work = { signal: new AbortController().signal } as Work;

  it('tiles and previews', async () => {
    const data = new Uint8ClampedArray(large.width * large.height * 4);
    for (const tiling of TILINGS) {
      await decodeTiled(parts, new Float32Array(tokenCount(large) * 64), large, tiling, work);
      await encodeTiled(parts, { ...large, data }, tiling, work);
    }
    expect(asked).toHaveLength(6 * TILINGS.length);
    await fitPreview(parts, work).catch(() => {});
    expect(asked.at(-1)).toMatchObject({ component: 'vae-encode', width: 256 });
    for (const shape of asked) expect(keys).toContain(JSON.stringify(Object.entries(shape).sort()));
  });

  it('for caches and drawing encoders where it was compiled for them, and says with which flags', async () => {
    const wanted = { sizes: [size], references: undefined, steps: [2], textTokens: 32 };
    const names = (more: object) => new Set(shapesFor({ ...wanted, ...more }).map(({ component }) => component));
    expect(names({})).not.toContain('denoise-first');
    expect([...names({ caches: ['first-block', 'taylor'] })]).toEqual(
      expect.arrayContaining(['denoise-first', 'denoise-rest', 'denoise-skip', 'taylor-update', 'taylor-predict']),
    );
    expect([...names({ caches: ['region'], nag: true, cfgZero: true })]).toEqual(
      expect.arrayContaining(['denoise-region', 'denoise-nag', 'cfg-zero']),
    );
    // What is asked for beside stands for itself: the other programs are the same, in the same order.
    const all = shapesFor({ ...wanted, caches: ['first-block', 'taylor', 'region'], nag: true, cfgZero: true });
    const beside = new Set([...names({ caches: ['first-block', 'taylor', 'region'], nag: true, cfgZero: true })]);
    for (const component of names({})) beside.delete(component);
    expect(all.filter(({ component }) => !beside.has(component))).toEqual(shapesFor(wanted));
    expect([...beside].sort()).toEqual(
      ['cfg-zero', 'denoise-first', 'denoise-nag', 'denoise-region', 'denoise-rest', 'denoise-skip'].concat([
        'taylor-predict',
        'taylor-update',
      ]),
    );
    const drawn = (more: object) => shapesFor({ ...wanted, ...more }).filter((shape) => 'sample' in shape);
    expect(
      [drawn({}), drawn({ imageToImage: true }), drawn({ controlChannels: 320 })].map((all) => all.length),
    ).toEqual([0, 1, 2]);
    const provider = bundlePrograms(sourceOf(files));
    const target = await provider.target(device('lavapipe'), 'auto');
    const { component: _, ...shape } = shapes.find(({ component }) => component === 'denoise')!;
    const lacks = (request: object) => provider.program({ target, quantization: 'none', ...request } as ProgramRequest);
    await expect(lacks({ component: 'denoise-rest', ...shape })).rejects.toThrow(/kontext compile --cache first-block/);
    await expect(lacks({ component: 'denoise-tell', ...shape })).rejects.toThrow(/with lite: true/);
    await expect(lacks({ component: 'denoise-nag', ...shape })).rejects.toThrow(/kontext compile --nag/);
    await expect(lacks({ component: 'denoise-region', ...shape })).rejects.toThrow(/--cache region/);
    await expect(lacks({ component: 'cfg-zero', tokens: 16, channels: 64 })).rejects.toThrow(/--cfg-zero/);
    await expect(lacks({ component: 'taylor-predict', rows: 16, cols: 64 })).rejects.toThrow(/--cache taylor/);
    await expect(lacks({ component: 'modulation', steps: 1 })).rejects.toThrow(/--steps 1/);
    await expect(lacks({ component: 'vae-encode', ...size, sample: true })).rejects.toThrow(/--image-to-image/);
  });

  it('for devices that the autoencoder does not fit in one piece', async () => {
    const phone = targetByName('adreno');
    const size = { width: 512, height: 512 };
    const wanted = shapesFor({ sizes: [size], references: [], steps: [2], textTokens: 32 });
    const decoding = wanted.filter(({ component }) => component === 'vae-decode' || component.startsWith('tile-'));
    const real = { model: 'real', specs: FLUX1_KONTEXT_DEV, quantizations: ['q8' as const], targets: [phone] };
    const { programs } = await readManifest(sourceOf(await writeBundle({ ...real, shapes: decoding })));
    const fits = programs
      .filter(({ shape }) => shape.component === 'vae-decode')
      .map(({ shape, requires }) => {
        const limits = Object.entries(requires.limits) as [keyof typeof phone.limits, number][];
        return [(shape as ImageSize).width, limits.every(([limit, needed]) => needed <= phone.limits[limit])];
      });
    expect(Object.fromEntries(fits)).toEqual({ 512: false, 256: true });
  });

  it('the largest piece that fits is taken, and other failures are told', async () => {
    const tooLarge = new KontextError('limit-too-small', 'too large');
    const until = (tile: number) =>
      wholeOrTiled(
        large,
        () => Promise.reject(tooLarge),
        async (tiling) => {
          if (tiling.tile > tile) throw tooLarge;
          return tiling.tile;
        },
      );
    expect(await until(512)).toBe(512);
    expect(await until(256)).toBe(256);
    await expect(until(128)).rejects.toBe(tooLarge);
    const lost = new KontextError('device-lost', 'lost');
    await expect(
      wholeOrTiled(
        large,
        () => Promise.reject(lost),
        async () => 0,
      ),
    ).rejects.toBe(lost);
    const small = { width: 64, height: 64 };
    await expect(
      wholeOrTiled(
        small,
        () => Promise.reject(tooLarge),
        async () => 0,
      ),
    ).rejects.toBe(tooLarge);
  });

  it('steps of each count', () => {
    for (const steps of [2, 4])
      expect(keys).toContain(JSON.stringify(Object.entries({ component: 'modulation', steps }).sort()));
  });
});
