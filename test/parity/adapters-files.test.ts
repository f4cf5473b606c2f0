// Adapter files that want something of a request, and files that are damaged or hostile: through the engine and `kontext lora`.
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest';
import { runCommand } from '../../sdk/src/cli/command.ts';
import type { AdapterOptions, RequestOptions } from '../../sdk/src/kontext/types.ts';
import { Kontext } from '../../sdk/src/node.ts';
import { adapterFile } from '../support/adapters.ts';
import { type RawTensors, rawTensors, safetensors } from '../support/model-files.ts';
import { pipelineFile, pipelineModel, writePipelineModel } from '../support/pipeline-model.ts';

const TIMEOUT = 600_000;
/** A busy machine compiles kernels for minutes. */
const device = { hangMs: 1_500_000 };
const whole = readFileSync(adapterFile('formats/pipeline_kohya.safetensors'));
const tensors = rawTensors(whole);
const QKV = 'lora_unet_double_blocks_0_img_attn_qkv';
const request = {
  image: pipelineFile('input_1.png'),
  prompt: 'a glass fish on a windowsill',
  seed: 5,
  size: { width: 64, height: 48 },
  maxArea: 3072,
  autoResize: false,
  maxSequenceLength: 32,
  output: 'latents',
} as const;

let kontext: Kontext;
let folder: string;
beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), 'kontext-adapters-'));
  kontext = await Kontext.load(pipelineModel(), { precision: 'f32', memory: 'resident', device });
}, TIMEOUT);
afterAll(async () => {
  await kontext.close();
  rmSync(folder, { recursive: true });
});

/** The adapter with a header entry. */
const wanting = (settings: unknown): Uint8Array<ArrayBuffer> =>
  safetensors(tensors, { kontext: typeof settings === 'string' ? settings : JSON.stringify(settings) });

describe('settings that an adapter wants', { timeout: TIMEOUT }, () => {
  const wants = { steps: 2, guidance: 3.5, sampler: 'dpmpp_2m', schedule: 'simple' };
  const used = async (adapters: AdapterOptions[] | undefined, options: Partial<RequestOptions> = {}) => {
    const { options: resolved, evaluations } = await kontext.edit({
      ...request,
      ...options,
      ...(adapters && { adapters }),
    });
    const { steps, guidance, sampler, schedule } = resolved;
    expect(evaluations).toBe(steps);
    return { steps, guidance, sampler, schedule };
  };

  it('are used, unless the request says otherwise; of two adapters the later wins', async () => {
    const few = { source: wanting(wants), scale: 0.5 };
    expect(await used([few])).toEqual(wants);
    expect(await used([few], { steps: 1 })).toEqual({ ...wants, steps: 1 });
    const own = { guidance: 1, sampler: 'euler', schedule: 'sgm_uniform' } as const;
    expect(await used([few], own)).toEqual({ ...own, steps: 2 });
    expect(await used([few, { source: wanting({ steps: 3 }) }])).toEqual({ ...wants, steps: 3 });
    expect(await used([few], { sigmas: [1, 0.75, 0.5] })).toMatchObject({ steps: 3, guidance: 3.5 });
    // Without adapters what is as published is not told.
    expect(await used([], { steps: 1 })).toEqual({ steps: 1, guidance: 2.5, sampler: undefined, schedule: undefined });
  });

  it('count where other options depend on them', async () => {
    const { options, evaluations } = await kontext.edit({
      ...request,
      // More than the 28 of the model.
      adapters: [{ source: wanting({ steps: 30 }) }],
      variants: 2,
      variantSteps: 28,
      choose: () => 1,
    });
    expect([options.steps, evaluations]).toEqual([30, 30]);
    const tooMany = { ...request, adapters: [{ source: wanting({ steps: 2 }) }], variants: 2, variantSteps: 3 };
    await expect(kontext.edit(tooMany)).rejects.toMatchObject({ code: 'invalid-request' });
  });

  it('are shown by kontext lora, with the styles, kinds and ranks of the file', async () => {
    const model = join(folder, 'model');
    writePipelineModel(model);
    const file = join(folder, 'eight.safetensors');
    writeFileSync(file, wanting(wants));
    const print = vi.spyOn(console, 'log').mockImplementation(() => {});
    const printed = async (...more: string[]) => {
      print.mockClear();
      expect(await runCommand(['lora', file, '--model', model, ...more], new AbortController().signal)).toBe(0);
      return print.mock.calls.flat().join('\n');
    };
    try {
      expect(await printed()).toMatch(/wants +steps 2, guidance 3.5, sampler dpmpp_2m, schedule simple/);
      const json = JSON.parse(await printed('--json'));
      expect(json).toMatchObject({ settings: wants, styles: ['kohya'], kinds: { 'low-rank': expect.any(Number) } });
      expect(Object.keys(json.ranks)).toEqual(['3', '4']);
    } finally {
      print.mockRestore();
    }
  });
});

describe('files that are not what they should be', { timeout: TIMEOUT }, () => {
  const changed = (name: string, change: (data: Uint8Array) => Uint8Array, shape?: number[], dtype?: string) => {
    const all: RawTensors = new Map(tensors);
    const { data, ...rest } = all.get(name)!;
    all.set(name, { ...rest, ...(shape && { shape }), ...(dtype && { dtype }), data: change(Uint8Array.from(data)) });
    return safetensors(all);
  };
  const filled = (byte: number) => (data: Uint8Array) => data.fill(byte);
  const text = (header: string) => {
    const bytes = new TextEncoder().encode(header);
    const file = new Uint8Array(8 + bytes.length);
    new DataView(file.buffer).setBigUint64(0, BigInt(bytes.length), true);
    file.set(bytes, 8);
    return file;
  };
  const FILES: [what: string, bytes: () => Uint8Array<ArrayBuffer>, message: RegExp][] = [
    ['nothing', () => new Uint8Array(0), /./],
    ['a zip', () => new Uint8Array([0x50, 0x4b, 3, 4, ...new Uint8Array(60)]), /./],
    ['half of a file', () => whole.slice(0, whole.length / 2), /./],
    ['a header beyond the file', () => Uint8Array.of(255, 255, 255, 255, 255, 255, 255, 127), /./],
    ['offsets beyond the file', () => text('{"a":{"dtype":"F32","shape":[4],"data_offsets":[0,16]}}'), /./],
    ['no tensors', () => text('{}'), /no adapter for this model/],
    ['factors that are no numbers', () => changed(`${QKV}.lora_up.weight`, filled(0xff)), /no finite number/],
    ['an alpha that is no number', () => changed(`${QKV}.alpha`, filled(0xff)), /no finite number/],
    ['a rank of its own in each factor', () => changed(`${QKV}.lora_down.weight`, (d) => d, [8, 32]), /qkv/],
    ['a matrix of another model', () => changed(`${QKV}.lora_up.weight`, (d) => d.slice(0, 256), [32, 4]), /192/],
    ['a type that holds no such numbers', () => changed(`${QKV}.alpha`, (d) => d, undefined, 'U16'), /U16/],
    ['a factor without its other', () => safetensors(new Map([...tensors].slice(1, 2))), /lora_up|lora_down|up|down/],
    ['settings that are no JSON', () => wanting('steps: 8'), /"kontext" is no JSON/],
    ['settings of another kind', () => wanting({ steps: 'eight' }), /steps must be a number/],
    ['settings out of range', () => wanting({ steps: 1e9 }), /steps must be a number/],
    ['settings nobody knows', () => wanting({ prompt: 'x' }), /"prompt" is not known/],
  ];

  it('are refused with what is wrong, and the next edit is right', async () => {
    const plain = { ...request, steps: 1, adapters: [] };
    const good = { ...request, steps: 1, adapters: [{ source: whole, scale: 0.8 }] };
    const expected = [(await kontext.edit(plain)).latents, (await kontext.edit(good)).latents];
    for (const [what, bytes, message] of FILES) {
      const asked = { ...request, steps: 1, adapters: [{ source: bytes() }] };
      const error = await kontext.edit(asked).catch((caught: unknown) => caught);
      expect(error, what).toMatchObject({ name: 'KontextError', code: 'weights-invalid' });
      expect((error as Error).message, what).toMatch(message);
      // Half of the rooms may have been written before a factor failed.
      expect((await kontext.edit(good)).latents, `after ${what}`).toEqual(expected[1]);
    }
    expect((await kontext.edit(plain)).latents).toEqual(expected[0]);
    const both = { ...good, adapters: [...good.adapters, { source: FILES[6]![1]() }] };
    await expect(kontext.edit(both)).rejects.toMatchObject({ code: 'weights-invalid' });
    expect((await kontext.edit(good)).latents).toEqual(expected[1]);
  });
});
