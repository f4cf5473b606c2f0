// The safetensors reader against broken, hostile and truncated files, from every kind of byte source.

import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { blobBytes, fileBytes, memoryBytes, urlBytes } from '../../../runtime/src/weights/bytes.ts';
import { openSafetensors, openShardedSafetensors } from '../../../runtime/src/weights/files/safetensors.ts';
import { f32Tensor, safetensorsBytes } from '../../support/weights.ts';

const file = safetensorsBytes({ a: f32Tensor([2, 3], (i) => i), b: f32Tensor([4], (i) => 10 + i) });
const directory = mkdtempSync(join(tmpdir(), 'safetensors-'));
afterAll(() => rmSync(directory, { recursive: true }));

function withHeader(header: string, data = 40): Uint8Array {
  const json = new TextEncoder().encode(header);
  const bytes = new Uint8Array(8 + json.length + data);
  new DataView(bytes.buffer).setBigUint64(0, BigInt(json.length), true);
  bytes.set(json, 8);
  return bytes;
}

const tensor = (dtype: unknown, shape: unknown, offsets: unknown) => ({ dtype, shape, data_offsets: offsets });

describe('header', () => {
  it('reads types, shapes and ranges', async () => {
    const source = await openSafetensors(memoryBytes(file));
    expect(source.tensors.get('a')).toMatchObject({ dtype: 'F32', shape: [2, 3], bytes: 24 });
    expect([...new Float32Array((await source.read('a', 8, 20)).buffer)]).toEqual([2, 3, 4]);
    expect([...new Float32Array((await source.read('b', 0, 16)).buffer)]).toEqual([10, 11, 12, 13]);
    await expect(source.read('a', 0, 25)).rejects.toMatchObject({ code: 'weights-invalid' });
    await expect(source.read('c', 0, 1)).rejects.toMatchObject({ details: { tensor: 'c' } });
  });

  it('takes a type it does not know at its word, as no program may want the tensor', async () => {
    for (const dtype of ['F4', 'toString']) {
      const bytes = withHeader(JSON.stringify({ ...good, a: tensor(dtype, [2, 3], [0, 24]) }));
      const { tensors } = await openSafetensors(memoryBytes(bytes));
      expect(tensors.get('a')).toMatchObject({ dtype, bytes: 24 });
      expect(tensors.get('a')!.type).toBeUndefined();
    }
  });

  const good = { a: tensor('F32', [2, 3], [0, 24]), b: tensor('F32', [4], [24, 40]) };
  for (const [what, bytes, message] of [
    ['empty file', new Uint8Array(0), /too few/],
    ['header longer than the file', file.slice(0, 40), /header would be/],
    ['huge header', new Uint8Array([255, 255, 255, 255, 255, 255, 255, 255, 0]), /header would be/],
    ['no JSON', withHeader('{"a": '), /not JSON/],
    ['a list', withHeader('[]'), /does not start with \{/],
    ['a space before it', withHeader(` ${JSON.stringify(good)}`), /does not start with \{/],
    ['a name twice', withHeader(`{"b":1,${JSON.stringify(good).slice(1, -1)},"b":2}`), /"b" twice/],
    ['no type', withHeader(JSON.stringify({ ...good, a: tensor(7, [2, 3], [0, 24]) })), /"a".*no type/],
    ['negative size', withHeader(JSON.stringify({ ...good, a: tensor('F32', [-2, -3], [0, 24]) })), /"a".*shape/],
    [
      'shape and range disagree',
      withHeader(JSON.stringify({ ...good, a: tensor('F32', [2, 2], [0, 24]) })),
      /"a".*16 bytes/,
    ],
    ['offsets reversed', withHeader(JSON.stringify({ ...good, a: tensor('F32', [2, 3], [24, 0]) })), /"a"/],
    ['null entry', withHeader(JSON.stringify({ ...good, a: null })), /"a"/],
    ['overlap', withHeader(JSON.stringify({ ...good, b: tensor('F32', [4], [20, 36]) })), /"b" overlaps/],
    ['hole', withHeader(JSON.stringify({ ...good, b: tensor('F32', [3], [28, 40]) })), /"b".*gap/],
    ['bytes after the end', withHeader(JSON.stringify(good), 44), /end at byte/],
    ['truncated data', file.slice(0, file.length - 1), /"b".*truncated/],
  ] as const) {
    it(`refuses: ${what}`, async () => {
      const error = await openSafetensors(memoryBytes(bytes, 'model.safetensors')).catch((e: unknown) => e);
      expect(error).toMatchObject({ code: 'weights-invalid', details: { file: 'model.safetensors' } });
      expect((error as Error).message).toMatch(message);
    });
  }
});

describe('shards', () => {
  const shards: Record<string, Uint8Array> = {
    'one.safetensors': safetensorsBytes({ a: f32Tensor([2], (i) => i) }),
    'two.safetensors': safetensorsBytes({ b: f32Tensor([2], (i) => 5 + i) }),
  };
  const open = async (name: string) => memoryBytes(shards[name]!, name);

  it('reads each tensor from its file', async () => {
    const index = { weight_map: { a: 'one.safetensors', b: 'two.safetensors' } };
    const source = await openShardedSafetensors(index, open);
    expect([...new Float32Array((await source.read('b', 0, 8)).buffer)]).toEqual([5, 6]);
  });

  it('refuses an index that is none, or that promises a tensor its file lacks', async () => {
    await expect(openShardedSafetensors({}, open)).rejects.toThrow(/weight_map/);
    await expect(openShardedSafetensors(null, open)).rejects.toThrow(/weight_map/);
    await expect(openShardedSafetensors({ weight_map: { c: 'one.safetensors' } }, open)).rejects.toThrow(
      /one\.safetensors has no tensor "c"/,
    );
  });
});

describe('byte sources', () => {
  let server: Server;
  let base: string;
  const seen: string[] = [];
  let failures = 0;
  beforeAll(async () => {
    server = createServer((request, response) => {
      seen.push(request.headers.range ?? 'none');
      if (request.url === '/missing') return void response.writeHead(404).end();
      if (request.url === '/flaky' && failures-- > 0) return void response.writeHead(503).end();
      if (request.url === '/plain') return void response.writeHead(200, { 'content-length': file.length }).end(file);
      if (request.url === '/big') return void response.writeHead(200, { 'content-length': 2 ** 40 }).write('x');
      const [, start, end] = /bytes=(\d+)-(\d+)/.exec(request.headers.range!)!.map(Number) as [number, number, number];
      const body = file.slice(start, Math.min(end + 1, file.length));
      response.writeHead(206, { 'content-range': `bytes ${start}-${end}/${file.length}` }).end(body);
    });
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    base = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  });
  afterAll(() => {
    server.closeAllConnections();
    server.close();
  });

  it('file: reads ranges; truncation is found; a missing file is named', async () => {
    const path = join(directory, 'model.safetensors');
    writeFileSync(path, file);
    const bytes = await fileBytes(path);
    const source = await openSafetensors(bytes);
    expect([...new Float32Array((await source.read('a', 4, 12)).buffer)]).toEqual([1, 2]);
    await expect(bytes.read(file.length - 2, file.length + 2)).rejects.toThrow(/truncated/);
    await source.close();
    await expect(fileBytes(join(directory, 'none'))).rejects.toMatchObject({ code: 'weights-invalid' });
  });

  it('blob: reads ranges', async () => {
    const source = await openSafetensors(blobBytes(new Blob([file]), 'picked'));
    expect([...new Float32Array((await source.read('b', 4, 8)).buffer)]).toEqual([11]);
  });

  it('URL: asks for the ranges only, also after failures of the server', async () => {
    failures = 2;
    seen.length = 0;
    const source = await openSafetensors(await urlBytes(`${base}/flaky`));
    expect([...new Float32Array((await source.read('b', 4, 8)).buffer)]).toEqual([11]);
    const start = file.length - 12;
    expect(seen.at(-1)).toBe(`bytes=${start}-${start + 3}`);
  });

  it('URL: a small file without ranges is kept whole; a large one and a missing one are refused', async () => {
    const source = await openSafetensors(await urlBytes(`${base}/plain`));
    expect([...new Float32Array((await source.read('b', 4, 8)).buffer)]).toEqual([11]);
    await expect(urlBytes(`${base}/big`)).rejects.toThrow(/range requests/);
    await expect(urlBytes(`${base}/missing`)).rejects.toMatchObject({
      code: 'download-failed',
      details: { status: 404 },
    });
  });

  it('URL: a cancelled read rejects as aborted', async () => {
    const bytes = await urlBytes(`${base}/model`);
    await expect(bytes.read(0, 4, AbortSignal.abort())).rejects.toMatchObject({ code: 'aborted' });
  });
});
