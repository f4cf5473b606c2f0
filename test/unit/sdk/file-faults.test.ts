// The n-th call to the file system fails, n = 1, 2, … until a run has no fault left, for everything that writes files: each failure is told
// as what it is, what was there before is still there, nothing is half-written, and the next run succeeds.
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest';

vi.mock('node:fs/promises', async (load) =>
  (await import('../../support/failing-files.ts')).failingFiles(await load()),
);

const { contents, failAt, fault, noFault } = await import('../../support/failing-files.ts');
const { saveBundle } = await import('../../../sdk/src/cli/save-bundle.ts');
const { writeAllOrNone, writeWhole } = await import('../../../sdk/src/files/whole.ts');
const { downloadHub } = await import('../../../sdk/src/hub/open.ts');
const { lockFolder } = await import('../../../sdk/src/model/lock-folder.ts');
const { FolderStore } = await import('../../../sdk/src/server/stores/folder.ts');
const { hubServer } = await import('../../support/hub-server.ts');
const { writePipelineModel } = await import('../../support/pipeline-model.ts');

const root = mkdtempSync(join(tmpdir(), 'kontext-faults-'));
afterAll(() => rmSync(root, { recursive: true }));

interface Writer {
  name: string;
  /** What lies there before. */
  before?: (folder: string) => void;
  run: (folder: string) => Promise<unknown>;
  /** Error codes that are right. */
  codes: (string | number)[];
  /** What may be left of a run that failed, to be gone on with or replaced by the next. */
  leftovers?: RegExp;
  /** Of several files each is a result by itself: those that are whole stay. */
  keepsWhole?: boolean;
}

const bundle = (version: string) =>
  new Map([
    ['manifest.json', `{"v":"${version}"}`],
    ['index.js', version],
    ['index.d.ts', version],
    ['package.json', version],
    [`programs/${version.repeat(64)}.json`, version],
    [`modules/${version.repeat(64)}.json`, version],
  ]);
let hub: Awaited<ReturnType<typeof hubServer>>;
beforeAll(async () => {
  const model = join(root, 'model');
  writePipelineModel(model);
  const files = new Map(Object.entries(contents(model)).map(([name, text]) => [name, Buffer.from(text, 'latin1')]));
  hub = await hubServer(files);
  process.env.HF_ENDPOINT = hub.endpoint;
});
afterAll(() => {
  hub.close();
  delete process.env.HF_ENDPOINT;
});

const WRITERS: Writer[] = [
  { name: 'a new picture', run: (folder) => writeWhole(join(folder, 'a.png'), 'new'), codes: ['invalid-request'] },
  {
    name: 'a picture and latents over older ones',
    before: (folder) => {
      writeFileSync(join(folder, 'a.png'), 'old');
      writeFileSync(join(folder, 'a.safetensors'), 'old');
    },
    run: (folder) =>
      writeAllOrNone([
        { path: join(folder, 'a.png'), bytes: 'new' },
        { path: join(folder, 'a.safetensors'), bytes: 'new' },
      ]),
    codes: ['invalid-request'],
  },
  { name: 'a new bundle', run: (folder) => saveBundle(join(folder, 'b'), bundle('2')), codes: ['invalid-request'] },
  {
    name: 'a bundle over an older one',
    before: (folder) => {
      for (const [path, text] of bundle('1')) {
        mkdirSync(join(folder, 'b', path, '..'), { recursive: true });
        writeFileSync(join(folder, 'b', path), text);
      }
    },
    run: (folder) => saveBundle(join(folder, 'b'), bundle('2')),
    codes: ['invalid-request'],
    // Named by their hashes and not by the manifest: nobody reads them.
    leftovers: /^b\/(programs|modules)\/([12])\2{63}\.json$/,
  },
  {
    name: 'a lock over an older one',
    before: (folder) => {
      writeFileSync(join(folder, 'w.safetensors'), 'weights');
      writeFileSync(join(folder, 'kontext.lock.json'), '{}');
    },
    run: (folder) => lockFolder(folder),
    codes: ['weights-invalid'],
  },
  {
    name: 'a stored picture over an older one',
    before: (folder) => {
      mkdirSync(join(folder, 'job'));
      writeFileSync(join(folder, 'job/0.png'), 'old');
    },
    async run(folder) {
      const store = new FolderStore(folder);
      try {
        await store.put('job/0.png', Buffer.from('new'));
      } finally {
        await store.close();
      }
    },
    codes: ['no-space', 'store-failed'],
  },
  {
    name: 'a download',
    run: (folder) =>
      downloadHub('hf:owner/model:transformer/diffusion_pytorch_model.safetensors', {}, join(folder, 'm')),
    codes: ['download-failed'],
    leftovers: /\.part(\.release)?$/,
    keepsWhole: true,
  },
];

describe.each(WRITERS)('$name', ({ name, before, run, codes, leftovers, keepsWhole }) => {
  it('is written whole or not at all', { timeout: 300_000 }, async () => {
    const place = join(root, name.replaceAll(' ', '-'));
    const start = () => {
      rmSync(place, { recursive: true, force: true });
      mkdirSync(place);
      before?.(place);
    };
    start();
    noFault();
    const old = contents(place);
    await run(place);
    const done = contents(place);
    const { calls } = fault;
    expect(calls).toBeGreaterThan(1);
    let told = 0;
    for (let at = 1; at <= calls; at++) {
      start();
      failAt(at);
      const error = await run(place).then(
        () => undefined,
        (error: unknown) => error as { code: string; message: string },
      );
      noFault();
      const left = contents(place);
      if (error) {
        told++;
        expect(codes, error.message).toContain(error.code);
        const isKept = (file: string) => leftovers?.test(file) || (keepsWhole && left[file] === done[file]);
        const fresh = Object.keys(left).filter((file) => left[file] !== old[file] && !isKept(file));
        expect(fresh, `call ${at}`).toEqual([]);
        for (const file of Object.keys(old)) expect(left[file], `${file} after call ${at}`).toBe(old[file]);
      } else {
        // What only tidies up is not told; the next run does it.
        const stale = Object.keys(left).filter((file) => !(file in done) && file in old && leftovers?.test(file));
        for (const file of stale) delete left[file];
        expect(left, `call ${at}`).toEqual(done);
      }
      await run(place);
      expect(contents(place), `the run after call ${at}`).toEqual(done);
    }
    console.log(`${name}: ${calls} calls, ${told} failures told`);
    expect(told).toBeGreaterThan(0);
  });
});
