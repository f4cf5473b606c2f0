// Packing where one call after the other fails: reads of the model, calls of the file system, the device. Each failure is told as what it
// is, nothing half-written is left, what lay there before is as it was, and the next packing gives the same bytes. A sample here; all of
// them by `npm run test:faults`.
import { existsSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest';
import type { KontextDevice } from '../../runtime/src/index.ts';
import type { ByteSource } from '../../runtime/src/weights/byte-source.ts';
import type { Model } from '../../sdk/src/model/open.ts';
import { hasProc, openFiles } from '../support/process-use.ts';

vi.mock('node:fs/promises', async (load) => (await import('../support/failing-files.ts')).failingFiles(await load()));

const { contents, failAt, fault, noFault } = await import('../support/failing-files.ts');
const { openDevice } = await import('../../runtime/src/index.ts');
const { openModel } = await import('../../sdk/src/model/open.ts');
const { packModel } = await import('../../sdk/src/model/pack.ts');
const { caughtGpu } = await import('../support/caught-gpu.ts');
const { writePipelineModel } = await import('../support/pipeline-model.ts');

const root = mkdtempSync(join(tmpdir(), 'kontext-pack-faults-'));
const counted = { source: { at: 0, calls: 0 }, device: { at: 0, calls: 0 } };
const due = (of: { at: number; calls: number }) => ++of.calls === of.at;

class GPUOutOfMemoryError {
  readonly message = 'no memory';
}

let gpu: KontextDevice;
let model: Model;
let sound: Record<string, string>;
beforeAll(async () => {
  const { gpu: dawn, device } = caughtGpu();
  gpu = await openDevice({ gpu: dawn });
  const made = device()!;
  const pop = made.popErrorScope.bind(made);
  made.popErrorScope = async () => {
    const error = await pop();
    return due(counted.device) ? (new GPUOutOfMemoryError() as unknown as GPUError) : error;
  };
  const { folderFiles } = await import('../../sdk/src/model/files.ts');
  const folder = join(root, 'model');
  writePipelineModel(folder);
  const files = folderFiles(folder);
  const failing = (source: ByteSource): ByteSource => ({
    ...source,
    async read(start, end, signal) {
      if (due(counted.source)) throw new Error('EIO: i/o error, read');
      return source.read(start, end, signal);
    },
  });
  const open: typeof files.open = async (...args) => {
    const source = await files.open(...args);
    return source && failing(source);
  };
  model = await openModel({ ...files, open });
  await packModel(model, gpu, join(root, 'sound'), { quantization: 'q8' });
  sound = contents(join(root, 'sound'));
}, 600_000);
afterAll(async () => {
  noFault();
  await model?.close();
  gpu?.destroy();
  rmSync(root, { recursive: true });
});

/** All when asked for, else a few from the first to the last. */
function chosen(calls: number): number[] {
  const all = Array.from({ length: calls }, (_, i) => i + 1);
  if (process.env.KONTEXT_FAULTS) return all;
  return [...new Set([1, 3, Math.ceil(calls / 2), calls])];
}

const start = (kind: string, at: number) => {
  noFault();
  for (const one of Object.values(counted)) Object.assign(one, { at: 0, calls: 0 });
  if (kind === 'files') failAt(at);
  else counted[kind as keyof typeof counted].at = at;
};
const callsOf = (kind: string) => (kind === 'files' ? fault.calls : counted[kind as keyof typeof counted].calls);

/** What may lie at the place before. */
const BEFORE: Record<string, (folder: string) => void> = {
  nothing: () => {},
  'an empty folder with a hidden file': (folder) => {
    mkdirSync(folder, { recursive: true });
    writeFileSync(join(folder, '.gitattributes'), 'old');
  },
};

describe('where', () => {
  it.each([
    ['a read of the model', 'source', 'nothing', ['weights-invalid']],
    ['a call of the file system', 'files', 'nothing', ['invalid-request', 'weights-invalid']],
    [
      'a call of the file system',
      'files',
      'an empty folder with a hidden file',
      ['invalid-request', 'weights-invalid'],
    ],
    ['a call of the device', 'device', 'nothing', ['out-of-memory']],
  ] as const)('%s fails (%s), over %s', { timeout: 7_200_000 }, async (_, kind, what, codes) => {
    const before = BEFORE[what]!;
    const deep = join(root, `${kind}-${what.replaceAll(' ', '-')}`);
    const place = join(deep, 'of', 'models');
    const pack = () => packModel(model, gpu, place, { quantization: 'q8' });
    const reset = () => {
      noFault();
      rmSync(deep, { recursive: true, force: true });
      before(place);
    };
    reset();
    const old = contents(deep);
    const [existed, open] = [existsSync(deep), hasProc ? openFiles() : []];
    start(kind, 0);
    await pack();
    const calls = callsOf(kind);
    expect(calls).toBeGreaterThan(4);
    const done = contents(place);
    expect({ ...done, ...old }).toMatchObject(sound);
    let told = 0;
    for (const at of chosen(calls)) {
      reset();
      start(kind, at);
      const error = await pack().then(
        () => undefined,
        (error: unknown) => error as { code: string; message: string },
      );
      start(kind, 0);
      if (error) {
        told++;
        expect(codes, error.message).toContain(error.code);
        expect(contents(deep), `call ${at}`).toEqual(old);
        expect(existsSync(deep), `call ${at}`).toBe(existed);
      } else expect(contents(place), `call ${at}`).toEqual(done);
      if (hasProc) expect(openFiles(), `call ${at}`).toEqual(open);
    }
    reset();
    await pack();
    expect(contents(place)).toEqual(done);
    console.log(`${kind}, over ${what}: ${calls} calls, ${told} failures told`);
    expect(told).toBeGreaterThan(0);
  });
});

it('an older model at the place is refused before anything is done, and stays as it is', async () => {
  const place = join(root, 'sound');
  await expect(packModel(model, gpu, place, { quantization: 'q8' })).rejects.toMatchObject({ code: 'invalid-request' });
  expect(contents(place)).toEqual(sound);
});
