// Damaged bytes of a model: every flipped bit is found, by loading and by `kontext verify`, before anything runs on it.
import { cpSync, mkdtempSync, readFileSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type ByteSource, memoryBytes } from '../../../runtime/src/weights/bytes.ts';
import { checkLock, LOCK_FILE, type Lock, sha256 } from '../../../runtime/src/weights/integrity/lock.ts';
import { VerifiedPieces, verifiedBytes } from '../../../runtime/src/weights/integrity/verified.ts';
import { runCommand } from '../../../sdk/src/cli/command.ts';
import { folderFiles, urlFiles } from '../../../sdk/src/model/files.ts';
import { lockFolder, verifyFiles } from '../../../sdk/src/model/lock-folder.ts';
import { withLock } from '../../../sdk/src/model/locked.ts';
import { openModel, type PartName } from '../../../sdk/src/model/open.ts';
import { pipelineFile, writePipelineModel } from '../../support/pipeline-model.ts';
import { random as randomOf } from '../../support/random.ts';

const demo = join(import.meta.dirname, '../../../examples/demo-model/model');
let folder: string;
let lock: Lock;

beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), 'kontext-lock-'));
  writePipelineModel(folder);
  lock = await lockFolder(folder);
});
afterAll(() => rmSync(folder, { recursive: true }));

/** Opens the model and reads every tensor, in chunks as the GPU's upload does. */
async function readModel(place: string): Promise<void> {
  const model = await openModel(place);
  try {
    for (const part of Object.keys(model.parts) as PartName[]) {
      const { weights } = model.parts[part];
      for (const [name, { bytes }] of weights.tensors) await weights.read(name, 0, bytes);
    }
  } finally {
    await model.close();
  }
}

it('the demo model ships with a lock that holds (after changing the model: kontext lock)', async () => {
  expect(await verifyFiles(folderFiles(demo))).toEqual([]);
});

it('32 of 32 flipped bits of weights are found, with file, tensor and offset', async () => {
  const random = randomOf(11);
  const weights = Object.entries(lock.files).filter(([name]) => name.endsWith('.safetensors'));
  for (let i = 0; i < 32; i++) {
    const [name, { size }] = weights[i % weights.length]!;
    const path = join(folder, name);
    const sound = readFileSync(path);
    const header = 8 + Number(sound.readBigUInt64LE(0));
    const at = header + Math.floor(random() * (size - header));
    const bad = Buffer.from(sound);
    bad[at]! ^= 1 << Math.floor(random() * 8);
    writeFileSync(path, bad);
    const error = await readModel(folder).catch((caught: unknown) => caught);
    const tensor = tensorAt(sound, at - header);
    expect(error, `${name} byte ${at}`).toMatchObject({
      code: 'weights-invalid',
      details: { file: name, damaged: true },
    });
    const { offset, end, tensors } = (error as { details: { offset: number; end: number; tensors: string[] } }).details;
    expect(offset <= at && at < end).toBe(true);
    expect(tensors).toContain(tensor);
    expect((error as Error).message).toContain(`${offset}`);
    const found = await verifyFiles(folderFiles(folder));
    expect(found).toHaveLength(1);
    expect(found[0]).toMatchObject({ file: name, offset });
    expect(found[0]!.tensors).toContain(tensor);
    writeFileSync(path, sound);
  }
  await readModel(folder);
});

function tensorAt(file: Buffer, at: number): string {
  const header = JSON.parse(file.subarray(8, 8 + Number(file.readBigUInt64LE(0))).toString());
  const [name] = Object.entries(header).find(([, entry]) => {
    const [start, end] = (entry as { data_offsets?: [number, number] }).data_offsets ?? [0, 0];
    return start <= at && at < end;
  })!;
  return name;
}

describe('kontext lock and verify', () => {
  const run = (...args: string[]) => runCommand(args, new AbortController().signal);
  it('write and check; damage of any file, also of a config, is an exit code', async () => {
    const copy = mkdtempSync(join(tmpdir(), 'kontext-lock-'));
    try {
      cpSync(join(folder, 'vae'), join(copy, 'vae'), { recursive: true });
      expect(await run('verify', copy)).toBe(4);
      expect(await run('lock', copy)).toBe(0);
      expect(await run('verify', copy)).toBe(0);
      writeFileSync(join(copy, 'vae/config.json'), '{}');
      expect(await run('verify', copy, '--json')).toBe(4);
      expect(await verifyFiles(folderFiles(copy))).toMatchObject([{ file: 'vae/config.json' }]);
      rmSync(join(copy, 'vae/config.json'));
      writeFileSync(join(copy, 'more.json'), '{}');
      expect((await verifyFiles(folderFiles(copy))).map(({ problem }) => problem)).toEqual([
        'is not there',
        'is not in the lock',
      ]);
      expect(await run('lock', join(copy, 'nowhere'))).toBe(4);
    } finally {
      rmSync(copy, { recursive: true });
    }
  });
});

describe('a locked model', () => {
  it('knows its files: others are not asked for on a server, and refused on disk', async () => {
    const asked: string[] = [];
    const server: Server = createServer((request, response) => {
      asked.push(request.url!);
      const path = join(folder, request.url!);
      try {
        const bytes = readFileSync(path);
        const [, start, end] = /bytes=(\d+)-(\d+)/.exec(request.headers.range!)!.map(Number) as [
          number,
          number,
          number,
        ];
        const last = Math.min(end, bytes.length - 1);
        response.writeHead(206, { 'content-range': `bytes ${start}-${last}/${bytes.length}` });
        response.end(bytes.subarray(start, last + 1));
      } catch {
        // As servers of single-page apps do.
        response.writeHead(200, { 'content-type': 'text/html' }).end('<!doctype html><title>App</title>');
      }
    });
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    try {
      const model = await openModel(`http://127.0.0.1:${(server.address() as AddressInfo).port}/`);
      expect(Object.keys(model.parts)).toHaveLength(4);
      await model.close();
      const known = new Set([LOCK_FILE, ...Object.keys(lock.files)].map((name) => `/${name}`));
      expect(asked.filter((path) => !known.has(path))).toEqual([]);
      rmSync(join(folder, LOCK_FILE));
      asked.length = 0;
      const unlocked = await openModel(urlFiles(`http://127.0.0.1:${(server.address() as AddressInfo).port}`));
      await unlocked.close();
      expect(asked).toContain('/tokenizer/tokenizer.json');
    } finally {
      server.closeAllConnections();
      server.close();
      writeFileSync(join(folder, LOCK_FILE), JSON.stringify(lock));
    }
    writeFileSync(join(folder, 'kontext.json'), '{}');
    await expect(openModel(folder)).rejects.toThrow(/kontext\.json is not in the lock/);
    rmSync(join(folder, 'kontext.json'));
  });

  it('of another size, or without one of its files, is refused', async () => {
    const path = join(folder, 'vae/config.json');
    const sound = readFileSync(path);
    truncateSync(path, sound.length - 1);
    await expect(openModel(folder)).rejects.toThrow(/by its lock/);
    rmSync(path);
    await expect(openModel(folder)).rejects.toThrow(/in the lock, but not there/);
    writeFileSync(path, sound);
  });
});

it('reads any range, and again from the origin what came wrong once', async () => {
  const bytes = Uint8Array.from({ length: 10_000 }, (_, i) => i * 7);
  const pieces = [bytes.slice(0, 4096), bytes.slice(4096, 8192), bytes.slice(8192)];
  const entry = { size: bytes.length, sha256: await Promise.all(pieces.map(sha256)) };
  const origin = memoryBytes(bytes);
  const stale = { ...origin, read: async (a: number, b: number) => new Uint8Array(b - a), reload: origin.read };
  const source = verifiedBytes(stale, entry, 4096, 'f', new VerifiedPieces());
  for (const [start, end] of [
    [0, 10_000],
    [5, 5],
    [4095, 4097],
    [8000, 9999],
  ] as const) {
    expect(await source.read(start, end)).toEqual(bytes.slice(start, end));
  }
  const never = verifiedBytes({ ...stale, reload: stale.read }, entry, 4096, 'f', new VerifiedPieces());
  await expect(never.read(4100, 4101)).rejects.toMatchObject({ details: { file: 'f', offset: 4096, end: 8192 } });
});

it('a lock from outside is checked', () => {
  const good = {
    version: 1,
    pieceBytes: 4096,
    files: { 'a/b': { size: 4097, sha256: ['0'.repeat(64), 'f'.repeat(64)] } },
  };
  expect(checkLock(good, 'l').files['a/b']!.size).toBe(4097);
  for (const bad of [
    {},
    { ...good, version: 2 },
    { ...good, pieceBytes: 0 },
    { ...good, pieceBytes: 1e12 },
    { ...good, files: [] },
    { ...good, files: { a: null } },
    { ...good, files: { a: { size: -1, sha256: [] } } },
    { ...good, files: { a: { size: 5000, sha256: ['0'.repeat(64)] } } },
    { ...good, files: { a: { size: 1, sha256: ['x'.repeat(64)] } } },
  ]) {
    expect(() => checkLock(bad as never, 'l')).toThrow(/not a usable lock/);
  }
  expect(() => withLock(folderFiles(pipelineFile('.')), checkLock(good, 'l'))).not.toThrow();
});

it('keeps a few pieces of all files together, however many a model has open', async () => {
  const reads: string[] = [];
  const bytes = new Uint8Array(4 * 4096).map((_, i) => i % 251);
  const hashes = await Promise.all([0, 1, 2, 3].map((i) => sha256(bytes.slice(4096 * i, 4096 * (i + 1)))));
  const pieces = new VerifiedPieces(8);
  const open = (name: string): ByteSource => {
    const { read, ...rest } = memoryBytes(bytes, name);
    const counted: ByteSource['read'] = (start, end, signal) => {
      reads.push(`${name} ${start / 4096}`);
      return read(start, end, signal);
    };
    return verifiedBytes({ ...rest, read: counted }, { size: bytes.length, sha256: hashes }, 4096, name, pieces);
  };
  const files = Array.from({ length: 20 }, (_, i) => open(`shard ${i}`));
  for (const file of files) expect(await file.read(0, bytes.length)).toEqual(bytes);
  expect(reads.length).toBe(80);
  // The last two files' pieces are there, nobody else's.
  for (const file of files.slice(-2)) await file.read(100, 10_000);
  expect(reads.length).toBe(80);
  await files[0]!.read(0, 10);
  expect(reads.slice(80)).toEqual(['shard 0 0']);
  // A file that is closed leaves room, and nothing of it is given to one that is opened in its place.
  await files[19]!.close();
  await files[18]!.read(4096, 4100);
  expect(reads.length).toBe(81);
  await open('shard 19').read(0, 10);
  expect(reads.at(-1)).toBe('shard 19 0');
});
