// Who may run without bounds checks: what was compiled here, and bundles signed by a key the app names. Nobody else.
import { generateKeyPairSync, type KeyObject } from 'node:crypto';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { beforeAll, describe, expect, it } from 'vitest';
import type { BundleManifest } from '../../kernels-codegen/src/bundle/types.ts';
import { writeBundle } from '../../kernels-codegen/src/bundle/write.ts';
import { targetByName } from '../../kernels-codegen/src/targets/profiles.ts';
import { deviceOptions } from '../../sdk/src/kontext/device-options.ts';
import { justInTime } from '../../sdk/src/kontext/programs.ts';
import { demoModel } from '../../sdk/src/model/demo.ts';
import { openModel } from '../../sdk/src/model/open.ts';
import { Kontext } from '../../sdk/src/node.ts';
import { bundlePrograms, readEntry, readManifest } from '../../sdk/src/programs/bundle.ts';
import { publicKeyText, signBundle } from '../../sdk/src/programs/signature.ts';
import { openPrograms, type Programs } from '../../sdk/src/programs/sources.ts';
import { sourceOf, tamper } from '../support/tampered-bundle.ts';

const pair = () => {
  const { privateKey, publicKey } = generateKeyPairSync('ed25519');
  const pem = (key: KeyObject, type: 'pkcs8' | 'spki') => key.export({ type, format: 'pem' }) as string;
  return { privateKey: pem(privateKey, 'pkcs8'), publicKey: pem(publicKey, 'spki'), object: publicKey };
};
const [mine, other] = [pair(), pair()];
let files: Map<string, string>;

beforeAll(async () => {
  const model = await openModel(demoModel());
  files = await writeBundle({
    model: 'demo',
    specs: await justInTime().specs(model),
    shapes: [
      { component: 'clip', tokens: 77 },
      { component: 'euler', tokens: 16, channels: 64 },
    ],
    targets: [targetByName('lavapipe')],
    quantizations: ['none'],
    sign: (digest) => signBundle(mine.privateKey, digest),
  });
  await model.close();
});

const outcome = (work: Promise<unknown>) => work.catch((error: unknown) => error);

describe('signatures', () => {
  it('are made and checked, with the key in every form', async () => {
    const spki = mine.object.export({ type: 'spki', format: 'der' });
    const raw = spki.subarray(-32);
    const imported = await crypto.subtle.importKey('raw', raw, 'Ed25519', true, ['verify']);
    for (const key of [
      mine.publicKey,
      raw.toString('base64'),
      spki.toString('base64'),
      raw,
      new Uint8Array(spki),
      imported,
    ]) {
      expect((await readManifest(sourceOf(files), [other.publicKey, key])).model).toBe('demo');
      expect(await publicKeyText(key)).toBe(raw.toString('base64'));
    }
    expect(manifestOf(files).signature).toMatchObject({ publicKey: raw.toString('base64') });
  });

  it('leave an unsigned reader alone', async () => {
    expect((await readManifest(sourceOf(files))).model).toBe('demo');
  });

  it.each([
    ['another key', () => files, other.publicKey],
    ['no signature', () => withSignature(undefined), mine.publicKey],
    ['a signature that is none', () => withSignature([]), mine.publicKey],
    ['another algorithm', () => changedSignature({ algorithm: 'none' }), mine.publicKey],
    ['a signature of zeros', () => changedSignature({ signature: btoa('\0'.repeat(64)) }), mine.publicKey],
    ['a signature that is too short', () => changedSignature({ signature: btoa('x') }), mine.publicKey],
    ['a kernel changed and all hashes right', () => tamper(files, { wgsl: (text) => `${text}\n` }), mine.publicKey],
    [
      'a program changed and all hashes right',
      () => tamper(files, { body: (b) => b.dispatches.pop() }),
      mine.publicKey,
    ],
    [
      'a manifest changed and its digest right',
      () =>
        tamper(files, {
          manifest: (m) => {
            m.model = 'x';
          },
        }),
      mine.publicKey,
    ],
  ])('refuse %s', async (_, change, key) => {
    const error = await outcome(readManifest(sourceOf(change()), [key]));
    expect(error).toMatchObject({ code: 'program-invalid', message: expect.stringMatching(/sign/) });
  });

  it('hold for programs and kernels too: one changed after the manifest was read is refused', async () => {
    const manifest = await readManifest(sourceOf(files), [mine.publicKey]);
    const evil = tamper(files, { wgsl: (text) => `${text}\n` });
    for (const entry of manifest.programs) {
      expect(await outcome(readEntry(sourceOf(evil), manifest, entry))).toMatchObject({ code: 'program-invalid' });
    }
    const renamed = new Map(files);
    for (const [path, text] of files) {
      if (path.startsWith('programs/')) renamed.set(path, text.replace('"workgroups":[', '"workgroups":[ 1'));
    }
    for (const entry of manifest.programs) {
      expect(await outcome(readEntry(sourceOf(renamed), manifest, entry))).toMatchObject({ code: 'program-invalid' });
    }
  });

  it.each([[''], ['AAAA'], ['-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----'], [new Uint8Array(31)]])(
    'refuse %j as a key',
    async (key) => {
      expect(await outcome(readManifest(sourceOf(files), [key]))).toMatchObject({
        code: 'invalid-request',
        details: { option: 'publicKey' },
      });
    },
  );

  it('are not made with what is no private key, and the error does not repeat it', async () => {
    for (const key of ['secret words', mine.publicKey]) {
      const error = (await outcome(signBundle(key, 'x'))) as Error;
      expect(error).toMatchObject({ code: 'invalid-request' });
      expect(error.cause).toBeUndefined();
      expect(error.message).not.toContain(key.slice(0, 20));
    }
  });

  const manifestOf = (of: ReadonlyMap<string, string>) => JSON.parse(of.get('manifest.json')!) as BundleManifest;
  const withSignature = (signature: unknown) =>
    new Map(files).set('manifest.json', JSON.stringify({ ...manifestOf(files), signature }));
  const changedSignature = (change: object) => withSignature({ ...manifestOf(files).signature, ...change });
});

describe('bounds checks', () => {
  it('are dropped for what is compiled here and for signed bundles only', () => {
    const trusted = (programs: Programs | undefined) => openPrograms(programs).trusted;
    expect(trusted(undefined)).toBe(true);
    expect(trusted({ bundle: '/some/folder', publicKey: mine.publicKey })).toBe(true);
    for (const programs of [
      '/some/folder',
      new URL('https://host/bundle'),
      sourceOf(files),
      bundlePrograms(sourceOf(files)),
    ])
      expect(trusted(programs)).toBe(false);
    // An own provider may hand out anything, also when it wraps the compiler.
    expect(trusted({ ...justInTime() })).toBe(false);
    expect(deviceOptions(undefined, true).unchecked).toBe(true);
    expect(deviceOptions({ unchecked: false }, true).unchecked).toBe(false);
    expect(deviceOptions(undefined, false).unchecked).toBe(false);
    expect(deviceOptions({ adapter: 'x' }, false)).toEqual({ adapter: 'x', unchecked: false });
  });

  it.each([{ unchecked: true }, { dawnToggles: ['disable_robustness'] }, { dawnToggles: ['disable_workgroup_init'] }])(
    'cannot be dropped for others by %j',
    async (device) => {
      const error = await outcome(Kontext.load(demoModel(), { programs: sourceOf(files), device }));
      expect(error).toMatchObject({ code: 'invalid-request', message: expect.stringContaining('--sign') });
    },
  );

  it.each([
    [{ bundle: '/x' }, /no publicKey/],
    [{ bundle: '/x', publicKey: [] }, /no publicKey/],
    [{ bundle: '/x', publicKey: 'k', unchecked: true }, /unknown field unchecked/],
    [{ bundle: 7, publicKey: 'k' }, /must be a bundle/],
    [7, /must be a bundle/],
    [null, /must be a bundle/],
    [{}, /must be a bundle/],
  ])('programs %j are refused', async (programs, message) => {
    const error = await outcome(Kontext.load(demoModel(), { programs: programs as never }));
    expect(error).toMatchObject({ code: 'invalid-request', message: expect.stringMatching(message) });
  });
});

describe('right hashes, wrong structure', () => {
  const wrong: [string, Parameters<typeof tamper>[1]][] = [
    [
      'programs no list',
      {
        manifest: (m) => {
          m.programs = {} as never;
        },
      },
    ],
    [
      'modules no list',
      {
        manifest: (m) => {
          m.modules = null as never;
        },
      },
    ],
    [
      'a path for a body',
      {
        manifest: (m) => {
          m.programs[0]!.body = '../../etc/passwd';
        },
      },
    ],
    [
      'a path for a pack',
      {
        manifest: (m) => {
          m.modules[0]!.file = '../../../etc/passwd';
        },
      },
    ],
    [
      'an unknown target',
      {
        manifest: (m) => {
          m.programs[0]!.target = 'nowhere';
        },
      },
    ],
    [
      'no shape',
      {
        manifest: (m) => {
          m.programs[0]!.shape = null as never;
        },
      },
    ],
    [
      'requirements that are text',
      {
        manifest: (m) => {
          m.programs[0]!.requires = 'x' as never;
        },
      },
    ],
    [
      'no specs',
      {
        manifest: (m) => {
          m.specs = undefined as never;
        },
      },
    ],
    [
      'endless depth',
      {
        manifest: (m) => {
          m.specs.transformer.doubleBlocks = 1e9;
        },
      },
    ],
    [
      'half a block',
      {
        manifest: (m) => {
          m.specs.t5.layers = 1.5;
        },
      },
    ],
    [
      'an infinite width',
      {
        manifest: (m) => {
          m.specs.clip.width = 1e308;
        },
      },
    ],
    [
      'axes beyond the head',
      {
        manifest: (m) => {
          m.specs.transformer.axes = [1e9, 2, 2];
        },
      },
    ],
    [
      'kernels no list',
      {
        body: (b) => {
          (b as { kernels: unknown }).kernels = 7;
        },
      },
    ],
    [
      'a kernel that is null',
      {
        body: (b) => {
          b.kernels[0] = null as never;
        },
      },
    ],
    [
      'a module that is a path',
      {
        body: (b) => {
          b.kernels[0]!.module = '../x';
        },
      },
    ],
    [
      'a module called __proto__',
      {
        body: (b) => {
          b.kernels[0]!.module = '__proto__';
        },
      },
    ],
    [
      'a range outside its buffer',
      {
        body: (b) => {
          b.dispatches[0]!.bindings[0]![3] = 2 ** 40;
        },
      },
    ],
    [
      'workgroups of minus one',
      {
        body: (b) => {
          b.dispatches[0]!.workgroups[0] = -1;
        },
      },
    ],
    [
      'a port without a shape',
      {
        body: (b) => {
          b.ports[0]!.shape = undefined as never;
        },
      },
    ],
    ['a constant that is no text', { body: (b) => void b.constants.push({ type: 'f32', data: 3, bytes: 4 } as never) }],
  ];
  it.each(wrong)('%s', async (_, change) => {
    const source = sourceOf(tamper(files, change));
    const error = await outcome(
      readManifest(source).then((manifest) =>
        Promise.all(manifest.programs.map((entry) => readEntry(source, manifest, entry))),
      ),
    );
    expect(error).toMatchObject({ name: 'KontextError', code: 'program-invalid' });
  });

  it('a file that is no JSON is not quoted', async () => {
    const folder = await mkdtemp(`${tmpdir()}/kontext-quoted-`);
    await writeFile(`${folder}/manifest.json`, 'root:secret:0:0');
    const told = (await outcome(openPrograms(folder).provider.specs(undefined as never))) as Error;
    expect(told).toMatchObject({ code: 'program-invalid' });
    for (let at: unknown = told; at instanceof Error; at = at.cause) expect(at.message).not.toContain('secret');
    await rm(folder, { recursive: true });
  });
});
