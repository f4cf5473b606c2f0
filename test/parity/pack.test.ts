// A packed model gives the same latents as the model it was packed from, from copies alone; and what is wrong with one is said.
import { cpSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest';
import { KontextDevice } from '../../runtime/src/gpu/device.ts';
import { openDevice } from '../../runtime/src/gpu/open.ts';
import { folderFiles } from '../../sdk/src/model/files.ts';
import { verifyFiles } from '../../sdk/src/model/lock-folder.ts';
import { openModel } from '../../sdk/src/model/open.ts';
import { packModel } from '../../sdk/src/model/pack.ts';
import { packFormats } from '../../sdk/src/model/pack-formats.ts';
import { PACKED_FILE, type PackedManifest } from '../../sdk/src/model/packed.ts';
import { Kontext, type LoadOptions } from '../../sdk/src/node.ts';
import { pipelineModel } from '../support/pipeline-model.ts';

let folder: string;
beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), 'kontext-pack-'));
  const gpu = await openDevice();
  const model = await openModel(pipelineModel());
  try {
    await packModel(model, gpu, join(folder, 'f16'), { quantization: 'f16' });
    await packModel(model, gpu, join(folder, 'mixed'), {
      quantization: { 'single_blocks.*': 'q8', t5: 'f16', '*img_mlp*': 'q4', 'single_blocks.0.linear2.weight': 'f16' },
      licence: 'non-commercial',
    });
  } finally {
    await model.close();
    gpu.destroy();
  }
});
afterAll(() => rmSync(folder, { recursive: true }));

const manifestOf = (name: string): PackedManifest => JSON.parse(readFileSync(join(folder, name, PACKED_FILE), 'utf8'));

async function run(source: Parameters<typeof Kontext.load>[0], options: LoadOptions = {}) {
  await using kontext = await Kontext.load(source, options);
  const request = { prompt: 'a red fox', size: { width: 64, height: 64 }, steps: 2, seed: 3, maxSequenceLength: 24 };
  const { latents, memory } = await kontext.generate({ ...request, output: 'latents' });
  return { latents: latents[0]!, memory };
}

it.each(['phased', 'streamed'] as const)('f16: the same bits, and no transcode kernel (%s)', async (memory) => {
  const expected = await run(pipelineModel(), { quantization: 'f16', memory });
  const compiled = vi.spyOn(KontextDevice.prototype, 'kernel');
  try {
    const packed = await run(join(folder, 'f16'), { memory });
    expect(packed.latents).toEqual(expected.latents);
    expect(compiled.mock.calls.map(([{ label }]) => label).filter((label) => label.startsWith('transcode'))).toEqual(
      [],
    );
    expect(compiled).toHaveBeenCalled();
  } finally {
    compiled.mockRestore();
  }
});

it('mixed: formats by part and pattern, near the unpacked model, smaller', async () => {
  const { tensors } = manifestOf('mixed').parts.transformer;
  const format = (name: string) => tensors[name]!.stored!.format;
  expect(format('single_blocks.0.linear1.weight')).toBe('q8');
  expect(format('single_blocks.0.linear2.weight')).toBe('f16');
  expect(format('double_blocks.0.img_mlp.0.weight')).toBe('q4');
  expect(format('double_blocks.0.txt_mlp.0.weight')).toBe('f16');
  expect(format('double_blocks.0.img_attn.norm.query_norm.scale')).toBe('f32');
  expect(manifestOf('mixed').licence).toBe('non-commercial');
  const [packed, expected] = [await run(join(folder, 'mixed')), await run(pipelineModel())];
  let [difference, norm] = [0, 0];
  for (const [i, value] of expected.latents.entries()) {
    difference += (packed.latents[i]! - value) ** 2;
    norm += value ** 2;
  }
  // q4 of random weights is wrong by 8 % in each product it takes part in.
  expect(Math.sqrt(difference / norm)).toBeGreaterThan(0);
  expect(Math.sqrt(difference / norm)).toBeLessThan(0.1);
});

it('has shards as the manifest says, and a lock', async () => {
  for (const { shards } of Object.values(manifestOf('mixed').parts)) {
    for (const { file, bytes, sha256 } of shards) {
      expect(statSync(join(folder, 'mixed', file)).size).toBe(bytes);
      expect(bytes).toBeLessThanOrEqual(64 * 2 ** 20);
      expect(sha256).toMatch(/^[\da-f]{64}$/);
    }
  }
  expect(await verifyFiles(folderFiles(join(folder, 'mixed')))).toEqual([]);
});

it('refuses another quantization than it was packed in, and a folder that is not empty', async () => {
  await expect(run(join(folder, 'f16'), { quantization: 'q4' })).rejects.toThrow(/packed.*Leave out quantization/);
  const gpu = await openDevice();
  const model = await openModel(join(folder, 'f16'));
  try {
    await expect(packModel(model, gpu, folder)).rejects.toMatchObject({ code: 'invalid-request' });
  } finally {
    await model.close();
    gpu.destroy();
  }
});

describe('a packed model from outside', () => {
  const broken = async (change: (manifest: PackedManifest) => unknown): Promise<unknown> => {
    const copy = mkdtempSync(join(folder, 'broken-'));
    cpSync(join(folder, 'mixed'), copy, { recursive: true });
    rmSync(join(copy, 'kontext.lock.json'));
    const manifest = manifestOf('mixed');
    change(manifest);
    writeFileSync(join(copy, PACKED_FILE), JSON.stringify(manifest));
    return openModel(copy).then(
      (model) => model.close(),
      (error: unknown) => error,
    );
  };
  const tensor = (m: PackedManifest) => m.parts.transformer.tensors['single_blocks.0.linear1.weight']!;
  for (const [what, change] of [
    ['another version', (m) => Object.assign(m, { version: 2 })],
    ['no part', (m) => Reflect.deleteProperty(m.parts, 'vae')],
    ['no shards', (m) => Object.assign(m.parts.vae, { shards: 'x' })],
    ['a shard outside', (m) => Object.assign(m.parts.vae.shards[0]!, { file: '../../etc/passwd' })],
    ['a shard by URL', (m) => Object.assign(m.parts.vae.shards[0]!, { file: 'https://host/x' })],
    ['a shard without size', (m) => Object.assign(m.parts.vae.shards[0]!, { bytes: -4 })],
    ['an unknown format', (m) => Object.assign(tensor(m).stored!, { format: 'toString' })],
    ['a layout', (m) => Object.assign(tensor(m).stored!, { layout: 'x' })],
    ['rows beyond the shape', (m) => Object.assign(tensor(m).stored!, { rows: 1e6 })],
    ['columns of no whole block', (m) => Object.assign(tensor(m).stored!, { cols: 33 })],
    ['an offset beyond the end', (m) => Object.assign(tensor(m), { offset: 2 ** 40 })],
    ['an offset inside a word', (m) => Object.assign(tensor(m), { offset: 2 })],
    ['a negative shape', (m) => Object.assign(tensor(m), { shape: [-1, -1] })],
    ['an unknown type', (m) => Object.assign(tensor(m), { stored: undefined, dtype: 'constructor' })],
    ['a null tensor', (m) => Object.assign(m.parts.vae.tensors, { x: null })],
    ['a table outside', (m) => Object.assign(m.tokenizers, { clip: '/etc/passwd' })],
    ['no schedule', (m) => Reflect.deleteProperty(m, 'schedule')],
    ['an endless schedule', (m) => Object.assign(m.schedule, { baseShift: 'Infinity' })],
    ['a schedule beyond numbers', (m) => Object.assign(m.schedule, { maxShift: 1e308 })],
    ['a shift by another name', (m) => Object.assign(m.schedule, { shift: { constructor: 1 } })],
    ['wrong defaults', (m) => Object.assign(m.defaults, { steps: 1e9 })],
  ] as [string, (m: PackedManifest) => unknown][]) {
    it(`is refused with ${what}`, async () => {
      expect(await broken(change)).toMatchObject({ code: 'weights-invalid' });
    });
  }
});

it('rules are checked, and the last that fits wins', () => {
  expect(() => packFormats({ t5: 'q5' as never })).toThrow(/q4, q8, f16/);
  const request = (name: string, shape: [number, number]) =>
    ({ name, shape, format: 'f16', layout: 'matrix', bytes: 0 }) as const;
  const choose = packFormats({ transformer: 'q4', 'double_blocks.1?.*': 'q8', 'final*': 'q8' });
  const large: [number, number] = [2048, 2048];
  expect(choose('transformer', request('double_blocks.0.img_mod.lin.weight', large))).toBe('q8');
  expect(choose('transformer', request('double_blocks.0.img_mlp.0.weight', large))).toBe('q4');
  expect(choose('transformer', request('double_blocks.1?.img_mlp.0.weight', large))).toBe('q8');
  expect(choose('transformer', request('final_layer.linear.weight', [64, 3072]))).toBe('q8');
  expect(choose('transformer', request('img_in.weight', [3072, 64]))).toBe('f16');
  expect(choose('t5', request('x', large))).toBe('f16');
  expect(choose('vae', { ...request('x', [1, 5]), format: 'f32' })).toBe('f32');
});
