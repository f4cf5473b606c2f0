// GGUF headers, whole and hostile: every count, length, type and place is checked before data is read.

import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { type ByteSource, fileBytes, memoryBytes } from '../../../runtime/src/weights/bytes.ts';
import { openGguf, openSplitGguf } from '../../../runtime/src/weights/files/gguf.ts';
import { decodeBlocks } from '../../../runtime/src/weights/types/decode.ts';
import { type GgufOptions, type GgufTensor, ggufBytes } from '../../support/gguf.ts';

const floats = (...values: number[]): Uint8Array => new Uint8Array(Float32Array.from(values).buffer);
const a: GgufTensor = { name: 'a', shape: [2, 3], type: 0, data: floats(0, 1, 2, 3, 4, 5) };
const b: GgufTensor = { name: 'b', shape: [32], type: 8, data: Uint8Array.from({ length: 34 }, (_, i) => i) };

describe('whole files', () => {
  it.each([
    { version: 2 },
    { version: 3 },
    { alignment: 64 },
    { alignment: 1 },
    { metadata: { 'general.architecture': 'flux', list: [1, 2], words: ['x', 'y', 'z'] } },
  ] as GgufOptions[])('are read: %j', async (options) => {
    const { source } = await openGguf(memoryBytes(ggufBytes([a, b], options)));
    expect(source.tensors.get('a')).toMatchObject({ dtype: 'F32', shape: [2, 3], bytes: 24 });
    expect(source.tensors.get('b')).toMatchObject({ dtype: 'Q8_0', shape: [32], bytes: 34 });
    expect([...new Float32Array((await source.read('a', 4, 16)).buffer)]).toEqual([1, 2, 3]);
    expect([...(await source.read('b', 0, 3))]).toEqual([0, 1, 2]);
    await expect(source.read('b', 0, 35)).rejects.toMatchObject({ code: 'weights-invalid' });
  });

  it('of types that nothing reads open all the same, with shapes kept beside the tensor', async () => {
    const list = [
      { name: 'i', shape: [4], type: 26, data: new Uint8Array(16) },
      { name: 'q', shape: [256], type: 19, data: new Uint8Array(50) },
      { name: 'new', shape: [256], type: 77, data: new Uint8Array(40) },
      { ...a, shape: [6] },
    ];
    const metadata = { 'comfy.gguf.orig_shape.a': [3, 2] };
    const { source } = await openGguf(memoryBytes(ggufBytes(list, { metadata })));
    expect([...source.tensors.values()].map(({ dtype, type }) => [dtype, type?.name])).toEqual([
      ['I32', undefined],
      ['IQ1_S', undefined],
      ['ggml type 77', undefined],
      ['F32', 'F32'],
    ]);
    expect(source.tensors.get('a')!.shape).toEqual([3, 2]);
  });

  it.each(['gguf-flux/flux.gguf', 'gguf-t5/t5.gguf'])('%s dequantises to the reference’s bytes', async (file) => {
    const url = new URL(`../../fixtures/${file}`, import.meta.url);
    const meta = JSON.parse(readFileSync(new URL('meta.json', url), 'utf8'));
    const { source } = await openGguf(await fileBytes(url.pathname));
    const listed = Object.entries(
      meta.tensors_in_file as Record<string, { type: string; ggml_ne: number[]; sha256_float32: string }>,
    );
    expect(source.tensors.size).toBe(listed.length);
    for (const [name, { type, ggml_ne: ne, sha256_float32: hash }] of listed) {
      const tensor = source.tensors.get(name)!;
      expect([tensor.dtype, tensor.shape]).toEqual([type, [...ne].reverse()]);
      const values = decodeBlocks(tensor.type!, await source.read(name, 0, tensor.bytes));
      expect(createHash('sha256').update(new Uint8Array(values.buffer)).digest('hex'), name).toBe(hash);
    }
    await source.close();
  });

  it('reads a header longer than its first piece, and only once', async () => {
    const words = Array.from({ length: 40_000 }, (_, i) => `word ${i}`);
    const bytes = memoryBytes(ggufBytes([a], { metadata: { words, after: 'end' } }));
    let read = 0;
    const counted: ByteSource = {
      ...bytes,
      read: (start, end) => {
        read += end - start;
        return bytes.read(start, end);
      },
    };
    const { source } = await openGguf(counted);
    expect(source.metadata).toEqual({ after: 'end' });
    expect(read).toBeLessThanOrEqual(bytes.size);
  });
});

describe('split files', () => {
  const part = (no: number, count: number, tensors: GgufTensor[]) =>
    ggufBytes(tensors, { metadata: { 'split.no': no, 'split.count': count } });
  const folder: Record<string, Uint8Array> = {
    'm-00001-of-00002.gguf': part(0, 2, [a]),
    'm-00002-of-00002.gguf': part(1, 2, [b]),
  };
  const open = (name: string, files = folder) =>
    openSplitGguf(memoryBytes(files[name]!, `dir/${name}`), async (other) => {
      return files[other] && memoryBytes(files[other], other);
    });

  it('are one source, from any part', async () => {
    for (const name of Object.keys(folder)) {
      const source = await open(name);
      expect([...source.tensors.keys()].sort()).toEqual(['a', 'b']);
      expect([...(await source.read('b', 0, 2))]).toEqual([0, 1]);
    }
  });

  it('name the part that is missing or of another file', async () => {
    const one = { 'm-00001-of-00002.gguf': folder['m-00001-of-00002.gguf']! };
    await expect(open('m-00001-of-00002.gguf', one)).rejects.toThrow(
      /part 1 of 2, and m-00002-of-00002\.gguf is not beside it/,
    );
    const wrong = { ...folder, 'm-00002-of-00002.gguf': part(0, 2, [b]) };
    await expect(open('m-00001-of-00002.gguf', wrong)).rejects.toThrow(/is of another file/);
    const twice = { ...folder, 'm-00002-of-00002.gguf': part(1, 2, [a]) };
    await expect(open('m-00001-of-00002.gguf', twice)).rejects.toThrow(/both .* hold "a"/);
  });
});

describe('hostile files', () => {
  const good = ggufBytes([a, b]);
  const patched = (at: number, ...bytes: number[]) => {
    const copy = good.slice();
    copy.set(bytes, at);
    return copy;
  };
  it.each([
    ['another magic', patched(0, 0x58), /does not start with "GGUF"/],
    ['version 1', ggufBytes([a], { version: 1 }), /version 1; convert it again/],
    ['version 4', ggufBytes([a], { version: 4 }), /version 4; this program reads/],
    ['big-endian', ggufBytes([a], { version: 0x03000000 }), /big-endian/],
    ['more tensors than bytes', ggufBytes([a], { tensorCount: 1n << 40n }), /more than fit/],
    ['a count beyond numbers', ggufBytes([a], { tensorCount: 1n << 63n }), /number of tensors is/],
    ['more metadata than bytes', ggufBytes([a], { valueCount: 1n << 33n }), /more than fit/],
    ['metadata of an unknown type', ggufBytes([a], { valueCount: 1n }), /unknown type|longer|more than fit|goes on/],
    ['an alignment of zero', ggufBytes([a], { metadata: { 'general.alignment': 0 } }), /no power of two/],
    ['an alignment of three', ggufBytes([a], { metadata: { 'general.alignment': 3 } }), /no power of two/],
    ['an alignment beyond the file', ggufBytes([a], { metadata: { 'general.alignment': 2 ** 30 } }), /no power of two/],
    ['a name twice', ggufBytes([a, { ...b, name: 'a' }]), /"a" occurs twice/],
    ['an offset off the alignment', ggufBytes([a, { ...b, offset: 33 }]), /off the alignment/],
    ['an overlap', ggufBytes([a, { ...b, offset: 0 }]), /overlaps another/],
    ['an offset beyond the file', ggufBytes([a, { ...b, offset: 2 ** 40 }]), /truncated/],
    ['rows that are no blocks', ggufBytes([{ ...b, shape: [33] }]), /no whole blocks of 32/],
    ['an axis of zero', ggufBytes([{ ...a, shape: [0, 3] }]), /has the shape/],
    ['more elements than numbers', ggufBytes([{ ...a, shape: [2 ** 40, 2 ** 40] }]), /has the shape/],
    ['too many axes', ggufBytes([{ ...a, shape: [1, 1, 1, 1, 1, 1, 1, 2, 3] }]), /9 axes/],
    [
      'another original shape',
      ggufBytes([a], { metadata: { 'comfy.gguf.orig_shape.a': [5] } }),
      /does not have its 6 elements/,
    ],
    ['cut-off data', good.slice(0, -33), /truncated/],
    ['a cut-off header', good.slice(0, 40), /truncated|more than fit/],
  ])('%s', async (_, bytes, message) => {
    const error = await openGguf(memoryBytes(bytes, 'x.gguf')).catch((e: unknown) => e);
    expect(error).toMatchObject({ code: 'weights-invalid', details: { file: 'x.gguf' } });
    expect((error as Error).message).toMatch(message);
  });

  it('no single changed byte of a header gives anything but a file or a KontextError', async () => {
    for (let at = 0; at < 160; at++) {
      for (const value of [0, 1, 127, 255]) {
        const result = await openGguf(memoryBytes(patched(at, value), 'x.gguf')).then(
          () => 'open',
          (error: { code?: string }) => error.code,
        );
        expect(['open', 'weights-invalid'], `byte ${at} = ${value}`).toContain(result);
      }
    }
  });
});
