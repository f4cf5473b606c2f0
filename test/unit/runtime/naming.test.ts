// BFL names over diffusers files: complete for the real checkpoints, byte for byte for the small ones.

import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';
import { fileBytes, memoryBytes } from '../../../runtime/src/weights/bytes.ts';
import { openSafetensors } from '../../../runtime/src/weights/files/safetensors.ts';
import { bflNaming } from '../../../runtime/src/weights/naming/index.ts';
import { elementCount, type SourceTensor, type WeightSource } from '../../../runtime/src/weights/source.ts';
import { diffusersVaeFile } from '../../support/cases-autoencoder.ts';
import { readSafetensors } from '../../support/safetensors.ts';

const fixture = (path: string) => fileURLToPath(new URL(`../../fixtures/${path}`, import.meta.url));
const json = (path: string) => JSON.parse(readFileSync(fixture(path), 'utf8')) as Record<string, unknown>;

type Shapes = Record<string, number[]>;

/** A source that has names and shapes but no data. */
function shapesOnly(shapes: Shapes): WeightSource {
  const tensors = new Map<string, SourceTensor>();
  for (const [name, shape] of Object.entries(shapes)) {
    tensors.set(name, { dtype: 'BF16', shape, bytes: elementCount(shape) * 2 });
  }
  return { label: 'names', tensors, read: () => Promise.reject(new Error('no data')), close: async () => {} };
}

/** Shapes of the real diffusers transformer, from its published list of names and the BFL file's shapes. */
function diffusersTransformer(): Shapes {
  const hidden = 3072;
  const names = Object.keys(json('checkpoints/flux1-dev.transformer.index.json').weight_map as object);
  const rows = (module: string): [number, number] => {
    if (module === 'x_embedder') return [hidden, 64];
    if (module === 'context_embedder') return [hidden, 4096];
    if (module === 'norm_out.linear') return [2 * hidden, hidden];
    if (module === 'proj_out') return [64, hidden];
    if (/(timestep|guidance)_embedder.linear_1/.test(module)) return [hidden, 256];
    if (/text_embedder.linear_1/.test(module)) return [hidden, 768];
    if (/norm1(_context)?\.linear/.test(module)) return [6 * hidden, hidden];
    if (/norm\.linear/.test(module)) return [3 * hidden, hidden];
    if (/net\.0\.proj|proj_mlp/.test(module)) return [4 * hidden, hidden];
    if (/net\.2/.test(module)) return [hidden, 4 * hidden];
    if (/single.*proj_out/.test(module)) return [hidden, 5 * hidden];
    if (/norm_(added_)?[qk]/.test(module)) return [128, 0];
    return [hidden, hidden];
  };
  return Object.fromEntries(
    names.map((name) => {
      const [, module, leaf] = /^(.*)\.(weight|bias)$/.exec(name)!;
      const [out, input] = rows(module!);
      return [name, leaf === 'bias' || input === 0 ? [out] : [out, input]];
    }),
  );
}

const shapesOf = (source: WeightSource): Shapes =>
  Object.fromEntries([...source.tensors].map(([name, { shape }]) => [name, shape]));

/** Reads a little of every part of every tensor: a seventh is the smallest part (q in `linear1`). */
async function touchEverywhere(view: WeightSource): Promise<void> {
  for (const [name, { bytes }] of view.tensors) {
    for (let i = 0; i < 14; i++) {
      const start = Math.floor((bytes * i) / 28) * 2;
      await view.read(name, start, Math.min(bytes, start + 2));
    }
  }
}

describe('the real checkpoints', () => {
  it('every tensor of the transformer appears under its BFL name and shape, and none is left over', async () => {
    const theirs = diffusersTransformer();
    const source = shapesOnly(theirs);
    const read = new Set<string>();
    source.read = async (name, start, end) => {
      read.add(name);
      return new Uint8Array(end - start);
    };
    const view = bflNaming(source);
    expect(shapesOf(view)).toEqual(json('checkpoints/flux1-kontext-dev.bfl.json'));
    await touchEverywhere(view);
    expect(Object.keys(theirs).filter((name) => !read.has(name))).toEqual([]);
  });

  it('leaves BFL, T5 and CLIP names alone', () => {
    for (const file of ['flux1-kontext-dev.bfl', 'ae.bfl', 't5-v1_1-xxl-encoder', 'clip-vit-large-patch14-text']) {
      const source = shapesOnly(json(`checkpoints/${file}.json`) as Shapes);
      expect(bflNaming(source)).toBe(source);
    }
  });
});

describe('the small checkpoints', () => {
  it('transformer: same names and bytes as the BFL file', async () => {
    const view = bflNaming(
      await openSafetensors(await fileBytes(fixture('transformer-diffusers-small/weights.safetensors'))),
    );
    const bfl = await openSafetensors(await fileBytes(fixture('transformer-bfl-small/weights.safetensors')));
    expect([...view.tensors.keys()].sort()).toEqual(
      Object.keys(json('transformer-diffusers-small/name_map.json')).sort(),
    );
    await expectSameBytes(view, bfl);
    await view.close();
    await bfl.close();
  });

  it('autoencoder: same names, shapes and bytes as the BFL file', async () => {
    const view = bflNaming(await openSafetensors(memoryBytes(diffusersVaeFile())));
    const bfl = await openSafetensors(await fileBytes(fixture('vae-bfl/weights.safetensors')));
    expect([...view.tensors.keys()].sort()).toEqual(Object.keys(json('vae-diffusers/name_map.json')).sort());
    await expectSameBytes(view, bfl);
    await bfl.close();
  });

  it('reads ranges across joined tensors and swapped halves', async () => {
    const view = bflNaming(
      await openSafetensors(await fileBytes(fixture('transformer-diffusers-small/weights.safetensors'))),
    );
    const reference = readSafetensors(fixture('transformer-bfl-small/weights.safetensors'));
    for (const name of ['single_blocks.0.linear1.weight', 'final_layer.adaLN_modulation.1.bias']) {
      const { bytes, dtype } = view.tensors.get(name)!;
      const whole = await view.read(name, 0, bytes);
      const size = dtype === 'F32' ? 4 : 2;
      expect(whole.length).toBe(reference.get(name)!.data.length * size);
      for (const [start, end] of [
        [0, 10],
        [bytes / 2 - 6, bytes / 2 + 6],
        [4, bytes],
        [bytes, bytes],
      ] as const) {
        expect(Buffer.compare(await view.read(name, start, end), whole.subarray(start, end))).toBe(0);
      }
      await expect(view.read(name, 0, bytes + 1)).rejects.toThrow(/bytes/);
    }
    await view.close();
  });

  it('refuses parts that do not join', () => {
    const shapes = diffusersTransformer();
    shapes['transformer_blocks.3.attn.to_k.weight'] = [3072, 3000];
    expect(() => bflNaming(shapesOnly(shapes))).toThrow(/transformer_blocks\.3\.attn\.to_k\.weight.*does not join/);
    delete shapes['transformer_blocks.3.attn.to_k.weight'];
    expect(() => bflNaming(shapesOnly(shapes))).toThrow(/no tensor "transformer_blocks\.3\.attn\.to_k\.weight"/);
  });
});

async function expectSameBytes(view: WeightSource, bfl: WeightSource): Promise<void> {
  for (const [name, tensor] of bfl.tensors) {
    const { dtype, shape, bytes } = view.tensors.get(name)!;
    expect({ name, dtype, shape, bytes }).toEqual({
      name,
      dtype: tensor.dtype,
      shape: tensor.shape,
      bytes: tensor.bytes,
    });
    expect(Buffer.compare(await view.read(name, 0, bytes), await bfl.read(name, 0, bytes)), name).toBe(0);
  }
}
