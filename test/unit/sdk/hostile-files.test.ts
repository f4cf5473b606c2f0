// Model files as an attacker or an accident makes them: links, names, configs that lie, sources that break their contract.
import { cp, mkdir, mkdtemp, readFile, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { memoryBytes } from '../../../runtime/src/weights/bytes.ts';
import { openSafetensors } from '../../../runtime/src/weights/files/safetensors.ts';
import { guardSource } from '../../../runtime/src/weights/guard.ts';
import { justInTime } from '../../../sdk/src/kontext/programs.ts';
import { folderFiles, readJson } from '../../../sdk/src/model/files.ts';
import { openModel } from '../../../sdk/src/model/open.ts';
import { writePipelineModel } from '../../support/pipeline-model.ts';
import { hasProc, openFiles } from '../../support/process-use.ts';

let folder: string;
const at = (name: string) => join(folder, name);
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'kontext-hostile-'));
});
afterEach(() => rm(folder, { recursive: true }));
const outcome = (work: Promise<unknown>) => work.catch((error: unknown) => error);

describe('names and links', () => {
  it.each([
    '../secret',
    '/etc/passwd',
    'a/../../secret',
    'a//b',
    './x',
    'a\\..\\secret',
    'C:x',
    'x\0y',
    'x?y',
    '%2e%2e/x',
    '..%2fsecret',
    '.. /secret',
    '. . ./secret.',
    'x. ',
    'vae/NUL',
    'aux.json',
    'Com1.safetensors',
    'conout$',
    'file:secret',
    'secret:stream',
  ])('refuses the name %j', async (name) => {
    await writeFile(at('secret'), 'root:x');
    await mkdir(at('model'));
    expect(await outcome(folderFiles(at('model')).open(name))).toMatchObject({ code: 'weights-invalid' });
  });

  it('refuses a link that leaves the folder, follows one that stays, and those of a hub cache', async () => {
    const repository = at('models--owner--name');
    const snapshot = join(repository, 'snapshots', 'abc');
    await mkdir(join(repository, 'blobs'), { recursive: true });
    await mkdir(join(snapshot, 'vae'), { recursive: true });
    await writeFile(join(repository, 'blobs', 'hash'), 'weights');
    await writeFile(at('secret'), 'root:x');
    await symlink('../../../blobs/hash', join(snapshot, 'vae', 'x'));
    await symlink('x', join(snapshot, 'vae', 'y'));
    await symlink('../../../../secret', join(snapshot, 'vae', 'evil'));
    await symlink('..', join(snapshot, 'vae', 'up'));
    const files = folderFiles(snapshot);
    for (const name of ['vae/x', 'vae/y']) {
      const source = (await files.open(name))!;
      expect(new TextDecoder().decode(await source.read(0, 7))).toBe('weights');
      await source.close();
    }
    expect(await outcome(files.open('vae/evil'))).toMatchObject({
      code: 'weights-invalid',
      message: expect.stringContaining('link that leaves'),
    });
    // Copied out of its cache, the same links lead nowhere they may.
    await cp(snapshot, at('plain'), { recursive: true, verbatimSymlinks: true });
    await symlink(join(repository, 'blobs', 'hash'), at('plain/z'));
    expect(await outcome(folderFiles(at('plain')).open('z'))).toMatchObject({ code: 'weights-invalid' });
    expect(await files.open('vae/missing')).toBeUndefined();
  });

  it('refuses a shard outside the folder, and leaves nothing open', async () => {
    writePipelineModel(at('model'));
    await rm(at('model/text_encoder/model.safetensors'));
    const index = { weight_map: { x: '../../text_encoder_2/model.safetensors' } };
    await writeFile(at('model/text_encoder/model.safetensors.index.json'), JSON.stringify(index));
    const before = hasProc ? openFiles() : [];
    expect(await outcome(openModel(at('model')))).toMatchObject({ code: 'weights-invalid' });
    if (hasProc) expect(openFiles()).toEqual(before);
  });
});

describe('configs', () => {
  const change = async (part: string, values: object) => {
    const file = at(`model/${part}/config.json`);
    await writeFile(file, JSON.stringify({ ...JSON.parse(await readFile(file, 'utf8')), ...values }));
    const model = await openModel(at('model'));
    try {
      return await outcome(justInTime().specs(model));
    } finally {
      await model.close();
    }
  };
  beforeEach(() => writePipelineModel(at('model')));

  it.each([
    ['a block left out', 'transformer', { num_single_layers: 1 }],
    ['a block too many', 'transformer', { num_layers: 2 }],
    ['a billion blocks', 'transformer', { num_single_layers: 1e9 }],
    ['half a head', 'transformer', { num_attention_heads: 1.5 }],
    ['no head', 'transformer', { num_attention_heads: 0 }],
    ['another split of the heads', 'text_encoder_2', { num_heads: 4, d_kv: 6 }],
    ['a layer of T5 left out', 'text_encoder_2', { num_layers: 1 }],
    ['odd buckets', 'text_encoder_2', { relative_attention_num_buckets: 31 }],
    ['an infinite distance', 'text_encoder_2', { relative_attention_max_distance: 1e300 }],
    ['a layer of CLIP left out', 'text_encoder', { num_hidden_layers: 1 }],
    ['fewer positions', 'text_encoder', { max_position_embeddings: 7 }],
    ['a negative width', 'text_encoder', { hidden_size: -12 }],
    ['a level of the autoencoder left out', 'vae', { block_out_channels: [32, 32, 64] }],
    ['groups that do not divide', 'vae', { norm_num_groups: 7 }],
    ['blocks left out', 'vae', { layers_per_block: 2 }],
    ['a scale of zero', 'vae', { scaling_factor: 0 }],
    ['axes of text', 'transformer', { axes_dims_rope: ['8', 12, 12] }],
    ['a number beyond all whole ones', 'transformer', { num_layers: 2 ** 53 }],
    ['minus zero blocks', 'transformer', { num_layers: -0 }],
    ['a text for a number', 'text_encoder', { num_hidden_layers: 'NaN' }],
    ['a list for a number', 'text_encoder_2', { d_model: [24] }],
    ['an epsilon of 1e308', 'text_encoder_2', { layer_norm_epsilon: 1e308 }],
    ['nothing for a number', 'vae', { latent_channels: null }],
  ])('%s', async (_, part, values) => {
    expect(await change(part, values)).toMatchObject({ name: 'KontextError', code: 'weights-invalid' });
  });

  it.each([
    ['beyond what e can be raised to', { use_dynamic_shifting: true, max_shift: 1e308 }],
    ['of text', { use_dynamic_shifting: true, base_shift: 'NaN' }],
    ['of no length', { use_dynamic_shifting: true, base_image_seq_len: 0 }],
    ['whose lengths are one', { use_dynamic_shifting: true, base_image_seq_len: 64, max_image_seq_len: 64 }],
    ['without a factor', { shift: 0 }],
    ['with a negative factor', { shift: -3 }],
    ['with an endless factor', { shift: 1e308 }],
  ])('a schedule %s', async (_, values) => {
    await mkdir(at('model/scheduler'), { recursive: true });
    await writeFile(at('model/scheduler/scheduler_config.json'), JSON.stringify(values));
    expect(await outcome(openModel(at('model')))).toMatchObject({ name: 'KontextError', code: 'weights-invalid' });
  });

  it('that are no JSON are told by place, not by what they say', async () => {
    await writeFile(at('model/vae/config.json'), '{"root":"x",oops secret');
    const error = (await outcome(openModel(at('model')))) as Error;
    expect(error).toMatchObject({ code: 'weights-invalid' });
    for (let e: unknown = error; e instanceof Error; e = e.cause) expect(e.message).not.toMatch(/secret|oops/);
  });

  it('larger than any config are not read', async () => {
    const huge = { name: 'config.json', size: 2 ** 40, read: async () => expect.fail('read'), close: async () => {} };
    expect(await outcome(readJson(huge as never, 'weights-invalid'))).toMatchObject({ code: 'weights-invalid' });
  });
});

describe('headers', () => {
  const withHeader = (header: Uint8Array, length = header.length) => {
    const file = new Uint8Array(8 + header.length);
    new DataView(file.buffer).setBigUint64(0, BigInt(length), true);
    file.set(header, 8);
    return memoryBytes(file);
  };
  it.each([
    ['not UTF-8', withHeader(Uint8Array.of(0x7b, 0x22, 0xff, 0x22, 0x3a, 0x31, 0x7d)), /not UTF-8/],
    ['more than 10 MB', withHeader(new Uint8Array(10_000_001).fill(0x20)), /10000001 bytes long/],
    [
      'a field twice',
      withHeader(new TextEncoder().encode('{"a":{"dtype":"F32","dtype":"F16","shape":[0],"data_offsets":[0,0]}}')),
      /"dtype" twice/,
    ],
    [
      'too many tensors',
      withHeader(
        new TextEncoder().encode(
          `{${Array.from({ length: 100_001 }, (_, i) => `"${i}":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}`).join()}}`,
        ),
      ),
      /100001 tensors/,
    ],
  ])('%s', async (_, bytes, message) => {
    expect(await outcome(openSafetensors(bytes))).toMatchObject({
      code: 'weights-invalid',
      message: expect.stringMatching(message),
    });
  });
});

describe('sources of an app', () => {
  const source = (read: (start: number, end: number) => unknown) =>
    guardSource({ name: 'own', size: 64, read: read as never, close: async () => {} });

  it('may give pooled Buffers and views; what they get is memory of their own', async () => {
    const pool = Buffer.from('0123456789abcdef');
    for (const give of [
      (s: number, e: number) => pool.subarray(s, e),
      (s: number, e: number) => new Uint8Array(pool.buffer, pool.byteOffset + s, e - s),
    ]) {
      const bytes = await source(give).read(4, 12);
      expect([bytes.byteOffset, bytes.buffer.byteLength, bytes.constructor]).toEqual([0, 8, Uint8Array]);
      expect(new TextDecoder().decode(bytes)).toBe('456789ab');
    }
    const held = await memoryBytes(pool).read(0, 4);
    pool.fill(0);
    expect(new TextDecoder().decode(held)).toBe('0123');
  });

  it.each([
    ['too few bytes', () => new Uint8Array(3)],
    ['too many bytes', () => new Uint8Array(9)],
    ['nothing', () => undefined],
    ['a text', () => 'x'.repeat(8)],
    ['an error of their own', () => Promise.reject(new TypeError('disk on fire'))],
    [
      'an error at once',
      () => {
        throw 'text';
      },
    ],
  ])('that give %s are told, by name', async (_, read) => {
    expect(await outcome(source(read).read(0, 8))).toMatchObject({
      code: 'weights-invalid',
      message: expect.stringContaining('own'),
    });
  });

  it('that never settle hold nobody', async () => {
    const stop = new AbortController();
    const reading = outcome(source(() => new Promise(() => {})).read(0, 8, stop.signal));
    stop.abort();
    expect(await reading).toMatchObject({ code: 'aborted' });
  });
});
