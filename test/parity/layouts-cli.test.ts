// Layouts of models on the command line: the same picture from the same weights wherever and in whatever files they lie, and refusals
// with their sentence. What opens at all is tested without a GPU in unit/sdk/layouts.test.ts.
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest';
import { runCommand } from '../../sdk/src/cli/command.ts';
import {
  gguf,
  llamaName,
  renamedTensors,
  safetensors,
  split,
  tiny,
  tinyBytes,
  tinyConfigFiles,
  writeFiles,
} from '../support/model-files.ts';
import { pipelineFile } from '../support/pipeline-model.ts';

let folder: string;
const at = (name: string) => join(folder, name);

async function kontext(...args: string[]): Promise<{ code: number; err: string }> {
  const err: string[] = [];
  const log = vi.spyOn(console, 'log').mockImplementation(() => {});
  const error = vi.spyOn(console, 'error').mockImplementation((line: string) => void err.push(line));
  try {
    return { code: await runCommand(args, new AbortController().signal), err: err.join('\n') };
  } finally {
    log.mockRestore();
    error.mockRestore();
  }
}

const SMALL = [
  '--no-auto-resize',
  '--width',
  '32',
  '--height',
  '32',
  '--precision',
  'f32',
  '--steps',
  '1',
  '--seed',
  '3',
];

/** The latents that an edit with these flags saves. */
async function latents(...model: string[]): Promise<Buffer> {
  const files = ['-o', at('out.png'), '--save-latents', at('out.safetensors')];
  const request = [pipelineFile('input_1.png'), 'a door', ...SMALL, '--max-sequence-length', '16', '--quiet'];
  expect(await kontext('edit', ...request, ...model, ...files)).toEqual({ code: 0, err: '' });
  return readFileSync(at('out.safetensors'));
}

beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'kontext-layouts-cli-'));
  const prefixed = renamedTensors(tiny('transformer'), (name) => `model.diffusion_model.${name}`);
  const shards = split(tiny('transformer'), 2);
  writeFiles(folder, {
    ...tinyConfigFiles(),
    // ComfyUI's tree.
    'diffusion_models/kontext/flux1-kontext-dev.sft': safetensors(prefixed),
    'vae/ae.safetensors': tinyBytes('vae'),
    'text_encoders/clip_l.safetensors': safetensors(
      renamedTensors(tiny('clip'), (name) => name.replace('text_model.', '')),
    ),
    'text_encoders/t5xxl_fp16.safetensors': tinyBytes('t5'),
    // In other forms, with configs beside them.
    'parts/kontext-00001-of-00002.gguf': gguf(shards[0]!, { 'split.no': 0, 'split.count': 2 }),
    'parts/kontext-00002-of-00002.gguf': gguf(shards[1]!, { 'split.no': 1, 'split.count': 2 }),
    'parts/clip/clip_l.safetensors': tinyBytes('clip'),
    'parts/clip/config.json': tinyConfigFiles()['text_encoder/config.json']!,
    'parts/t5/t5.gguf': gguf(renamedTensors(tiny('t5'), llamaName)),
    'parts/t5/config.json': tinyConfigFiles()['text_encoder_2/config.json']!,
    'lora.safetensors': safetensors(new Map([['lora_unet_x.lora_down.weight', tiny('t5').get('shared.weight')!]])),
  });
});
afterAll(() => rmSync(folder, { recursive: true }));

describe('kontext edit', { timeout: 600_000 }, () => {
  it('gives the same latents from a tree, a file’s path, and files one by one in other forms', async () => {
    const wanted = await latents('--model', folder);
    expect(wanted.equals(await latents('--model', at('diffusion_models/kontext/flux1-kontext-dev.sft')))).toBe(true);
    const home = process.env.HOME;
    process.env.HOME = folder;
    try {
      const parts = ['--transformer', '~/parts/kontext-00002-of-00002.gguf', '--vae', '~/vae/ae.safetensors'];
      const encoders = ['--clip', '~/parts/clip/clip_l.safetensors', '--t5', '~/parts/t5/t5.gguf'];
      expect(wanted.equals(await latents(...parts, ...encoders))).toBe(true);
    } finally {
      process.env.HOME = home;
    }
  });

  it.each<[flags: () => string[], message: RegExp]>([
    [() => ['--model', at('lora.safetensors')], /lora\.safetensors is a LoRA.*What is needed as the transformer is/],
    [() => ['--model', at('nothing')], /There is no model at .*nothing/],
    [
      () => [
        ...['--transformer', at('vae/ae.safetensors'), '--vae', at('vae/ae.safetensors')],
        ...['--clip', at('text_encoders/clip_l.safetensors'), '--t5', at('text_encoders/t5xxl_fp16.safetensors')],
      ],
      /ae\.safetensors is an autoencoder\. What is needed as the transformer/,
    ],
  ])('refuses with a sentence: %s', async (flags, message) => {
    const { code, err } = await kontext('edit', pipelineFile('input_1.png'), 'x', ...flags(), '-o', at('no.png'));
    expect(code).toBeGreaterThan(0);
    expect(err).toMatch(message);
  });
});
