// Every public layout of the model through the command line: the reference's latents, from a folder, a file, or parts one by one.
import { mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { commandLine as kontext } from '../support/command-line.ts';
import { floatTensor, readSafetensors } from '../support/safetensors.ts';
import { distanceOf, FIELD_BOUND, TINY_LAYOUTS, type TinyLayout, worstOf } from '../support/tiny-layouts.ts';

const root = mkdtempSync(join(tmpdir(), 'kontext-layouts-cli-'));
afterAll(() => rmSync(root, { recursive: true }));

function written(layout: TinyLayout): string {
  const folder = mkdtempSync(join(root, 'model-'));
  mkdirSync(folder, { recursive: true });
  layout.write(folder);
  return folder;
}

function modelFlags({ source }: TinyLayout, folder: string): string[] {
  if (typeof source === 'string') return ['--model', source === '' ? folder : join(folder, source)];
  return Object.entries(source).flatMap(([part, name]) => [`--${part}`, join(folder, name)]);
}

async function edited({ edit }: TinyLayout, flags: string[], folder: string) {
  const latents = join(folder, 'latents.safetensors');
  const { width, height } = edit.size;
  const settings = ['--steps', `${edit.steps}`, '--guidance', `${edit.guidance}`, '--seed', `${edit.seed}`];
  const size = ['--width', `${width}`, '--height', `${height}`, '--no-auto-resize'];
  const out = ['-o', join(folder, 'out.png'), '--save-latents', latents, '--quiet', '--force'];
  const result = await kontext('edit', edit.image, edit.prompt, ...flags, ...settings, ...size, ...out);
  expect(result).toEqual({ code: 0, out: '', err: '' });
  return floatTensor(readSafetensors(latents), 'latents');
}

describe('kontext edit with', { timeout: 600_000 }, () => {
  it.each(TINY_LAYOUTS.map((layout) => [layout.name, layout] as const))('%s', async (_, layout) => {
    const folder = written(layout);
    const latents = await edited(layout, [...modelFlags(layout, folder), '--precision', 'f32'], folder);
    expect(worstOf(latents, layout.expected())).toBeLessThan(FIELD_BOUND);
  });

  it('a packed model', async () => {
    const layout = TINY_LAYOUTS[0]!;
    const [folder, packed] = [written(layout), join(root, 'packed')];
    expect(await kontext('pack', folder, '-o', packed, '--quantization', 'f16')).toMatchObject({ code: 0 });
    const latents = await edited(layout, ['--model', packed, '--precision', 'f32'], folder);
    // Weights rounded to 11 bits.
    const distance = distanceOf(latents, layout.expected());
    expect(distance, `${distance}`).toBeLessThan(0.01);
  });
});

describe('parts that cannot be', () => {
  const layout = TINY_LAYOUTS[1]!;
  it.each<[string, (flags: string[], folder: string) => string[], RegExp]>([
    [
      'without T5',
      (flags) => flags.slice(0, 6),
      /needs its T5 text encoder: give t5, for example t5xxl_fp16\.safetensors/,
    ],
    ['without a transformer', (flags) => flags.slice(2), /go with --transformer/],
    [
      'in each other’s place',
      (flags) => [...flags.slice(0, 4), '--clip', flags[7]!, '--t5', flags[5]!],
      /is a T5 encoder\. What is needed as the CLIP text encoder is/,
    ],
    [
      'of unusual widths without a config beside them',
      (flags, folder) => {
        rmSync(join(folder, 'text_encoder/config.json'));
        return flags;
      },
      /CLIP text encoder of width 12.*config\.json/,
    ],
  ])('%s are refused with what to give', async (_, change, message) => {
    const folder = written(layout);
    const flags = change(modelFlags(layout, folder), folder);
    const out = ['-o', join(folder, 'x.png'), '--quiet'];
    const { code, err } = await kontext('edit', layout.edit.image, 'x', ...flags, ...out);
    expect(err).toMatch(message);
    expect(code).toBeGreaterThan(0);
  });
});
