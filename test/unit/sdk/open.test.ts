// Opening models: the layouts, the tokenizers beside them, their schedules and defaults; no weight is read.
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { cp, mkdir, readFile, rename, rm } from 'node:fs/promises';
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { justInTime } from '../../../sdk/src/kontext/programs.ts';
import { checkDefaults, scheduleOf } from '../../../sdk/src/model/configs.ts';
import { demoModel } from '../../../sdk/src/model/demo.ts';
import { openModel } from '../../../sdk/src/model/open.ts';
import { pipelineModel, writePipelineModel } from '../../support/pipeline-model.ts';

let folder: string;
let model: string;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'kontext-open-'));
  model = join(folder, 'model');
  writePipelineModel(model);
});
afterAll(() => rmSync(folder, { recursive: true }));

describe('openModel', () => {
  it('opens a diffusers folder by path, file URL and own place alike', async () => {
    for (const source of [model, `${model}/`, pathToFileURL(model), pathToFileURL(model).href, pipelineModel()]) {
      const opened = await openModel(source);
      expect(opened.parts.transformer.weights.tensors.has('double_blocks.0.img_attn.qkv.weight')).toBe(true);
      expect(opened.schedule).toMatchObject({ shift: 'dynamic', baseShift: 0.5, maxShift: 1.15 });
      expect(opened.defaults).toEqual({});
      expect((await justInTime().specs(opened)).transformer).toMatchObject({ hidden: 64, guidance: true });
      await opened.close();
    }
  });

  it('reads the demo model’s own defaults', async () => {
    const opened = await openModel(demoModel());
    expect(opened.defaults).toEqual({
      preferredSizes: [[64, 64]],
      maxSequenceLength: expect.any(Number),
      steps: expect.any(Number),
    });
    await opened.close();
  });

  it('opens sharded weights', async () => {
    const sharded = join(folder, 'sharded');
    await cp(model, sharded, { recursive: true });
    const [whole, shard] = ['model.safetensors', 'model-00001-of-00001.safetensors'].map((n) =>
      join(sharded, 'text_encoder', n),
    );
    const original = await openModel(model);
    const { tensors } = original.parts.clip.weights;
    await original.close();
    await rename(whole!, shard!);
    const weight_map = Object.fromEntries(
      [...tensors.keys()].map((name) => [name, 'model-00001-of-00001.safetensors']),
    );
    writeFileSync(join(sharded, 'text_encoder/model.safetensors.index.json'), JSON.stringify({ weight_map }));
    const opened = await openModel(sharded);
    expect([...opened.parts.clip.weights.tensors.keys()].sort()).toEqual([...tensors.keys()].sort());
    await opened.close();
    await rm(shard!);
    await expect(openModel(sharded)).rejects.toThrow(/has no text_encoder\/model-00001/);
  });

  it('opens BFL’s layout, and BFL’s files one by one', async () => {
    // Any safetensors do: the names inside are read, and these are BFL's already.
    const bfl = join(folder, 'bfl');
    await mkdir(bfl);
    const fixtures = new URL('../../fixtures/', import.meta.url).pathname;
    for (const name of ['text_encoder', 'text_encoder_2', 'tokenizer', 'tokenizer_2']) {
      await cp(join(model, name), join(bfl, name), { recursive: true });
    }
    const transformer = join(bfl, 'flux1-tiny.safetensors');
    const vae = join(bfl, 'ae.safetensors');
    await cp(join(fixtures, 'transformer-bfl-noguidance/weights.safetensors'), transformer);
    await cp(join(fixtures, 'vae-bfl/weights.safetensors'), vae);
    const opened = await openModel(bfl);
    expect(opened.parts.vae.weights.tensors.has('decoder.conv_in.weight')).toBe(true);
    // No guidance embedding: sampled as FLUX.1 [schnell], unshifted.
    expect(opened.schedule).toEqual({ shift: 'none' });
    await opened.close();
    const single = await openModel({
      transformer,
      vae: pathToFileURL(vae),
      clip: new Blob([new Uint8Array(await readFile(join(bfl, 'text_encoder/model.safetensors')))]),
      t5: new Uint8Array(await readFile(join(bfl, 'text_encoder_2/model.safetensors'))),
      clipTokenizer: { vocab: join(bfl, 'tokenizer/vocab.json'), merges: join(bfl, 'tokenizer/merges.txt') },
      t5Tokenizer: { tokenizerJson: join(bfl, 'tokenizer_2/tokenizer.json') },
      defaults: { steps: 4 },
    });
    expect(single.defaults).toEqual({ steps: 4 });
    expect(single.parts.t5.weights.tensors.size).toBe(opened.parts.t5.weights.tensors.size);
    await single.close();
  });

  it('opens a model on a server, reading ranges only', async () => {
    let bytesSent = 0;
    const server: Server = createServer(async (request, response) => {
      const data = await readFile(join(model, decodeURIComponent(request.url!))).catch(() => undefined);
      const [, start, end] = /bytes=(\d+)-(\d+)/.exec(request.headers.range ?? '') ?? [];
      if (!data || start === undefined) return response.writeHead(404).end();
      const part = data.subarray(Number(start), Number(end) + 1);
      bytesSent += part.length;
      response.writeHead(206, { 'content-range': `bytes ${start}-${end}/${data.length}` }).end(part);
    });
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    try {
      const opened = await openModel(`http://127.0.0.1:${(server.address() as AddressInfo).port}`);
      expect(opened.parts.transformer.weights.tensors.size).toBeGreaterThan(10);
      // Vocabularies are read whole (4 MB), weights (4 MB) are not.
      expect(bytesSent).toBeLessThan(4.3e6);
      await opened.close();
    } finally {
      server.close();
    }
  });
});

describe('scheduleOf', () => {
  it('reads dynamic, static and no shifting', () => {
    expect(scheduleOf({ use_dynamic_shifting: true, base_shift: 0.4 })).toMatchObject({
      shift: 'dynamic',
      baseShift: 0.4,
    });
    expect(scheduleOf({ use_dynamic_shifting: false, shift: 3 })).toEqual({ shift: { static: 3 } });
    expect(scheduleOf({ shift: 1 })).toEqual({ shift: 'none' });
  });

  it('refuses what it would sample wrongly', () => {
    expect(() => scheduleOf({ use_karras_sigmas: true })).toThrow(/use_karras_sigmas is not supported/);
    expect(() => scheduleOf({ use_dynamic_shifting: true, time_shift_type: 'linear' })).toThrow(/time_shift_type/);
    expect(() => scheduleOf({ use_dynamic_shifting: true, max_shift: 'x' })).toThrow(/max_shift must be a number/);
  });
});

describe('checkDefaults', () => {
  it.each([
    [{ preferredSizes: [[64, 65]] }, /multiples of 16/],
    [{ preferredSizes: [] }, /preferredSizes/],
    [{ maxSequenceLength: 0 }, /maxSequenceLength must be/],
    [{ guidance: -3 }, /guidance must be a number from 0 to 100/],
    [{ schedule: 'none' }, /schedule must be one of/],
    [{ cfg: 3 }, /"cfg" is not known/],
  ])('refuses %j', (json, message) => {
    expect(() => checkDefaults(json, 'kontext.json')).toThrow(message);
  });
});
