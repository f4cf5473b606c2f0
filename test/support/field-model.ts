// Model folders around a published file's form (test/fixtures/field), the edit that the reference made with each, and how far a result is.
import { cpSync, mkdtempSync, readdirSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { EditResult } from '../../sdk/src/node.ts';
import { fixturePath } from './cases.ts';
import { pipelineFile } from './pipeline-model.ts';
import { psnr } from './psnr.ts';
import { floatTensor, readSafetensors } from './safetensors.ts';

/** What the reference was asked. */
export const FIELD_REQUEST = {
  image: pipelineFile('input_1.png'),
  prompt: 'Replace the red car with a blue bicycle.',
  steps: 4,
  guidance: 2.5,
  seed: 42,
  size: { width: 96, height: 64 },
  autoResize: false,
} as const;

/**
 * A flat folder without tokenizers: the fixture's encoders, an autoencoder, and the files of a case.
 *
 * @param weights a folder of fixtures
 * @param extra further files: name in the folder to a fixture
 */
export function fieldFolder(weights: string, extra: Readonly<Record<string, string>> = {}): string {
  const path = (name: string) => fixturePath(name).pathname;
  const folder = mkdtempSync(join(tmpdir(), 'files-'));
  for (const part of ['text_encoder', 'text_encoder_2']) {
    cpSync(pipelineFile(`model/${part}`), join(folder, part), { recursive: true });
  }
  cpSync(pipelineFile('model/vae/diffusion_pytorch_model.safetensors'), join(folder, 'ae.safetensors'));
  for (const name of readdirSync(path(weights))) {
    if (/\.(safetensors|gguf)$/.test(name) && !name.startsWith('expected')) {
      cpSync(path(`${weights}/${name}`), join(folder, name));
    }
  }
  for (const [name, from] of Object.entries(extra)) cpSync(path(from), join(folder, name));
  return folder;
}

/** The largest difference of the latents, and the picture's PSNR in dB, to a case's expectation. */
export function fieldDistance({ image, latents }: EditResult, from: string): { latents: number; decibels: number } {
  const expected = readSafetensors(fixturePath(`${from}/expected.safetensors`).pathname);
  const wanted = floatTensor(expected, 'latents');
  const worst = latents[0]!.reduce((most, value, i) => Math.max(most, Math.abs(value - wanted[i]!)), 0);
  const rgb = expected.get('image')!.data;
  const { width, height } = image;
  const data = Uint8ClampedArray.from({ length: width * height * 4 }, (_, i) =>
    i % 4 === 3 ? 255 : rgb[(i >> 2) * 3 + (i % 4)]!,
  );
  return { latents: worst, decibels: psnr(image, { width, height, data }) };
}
