// The layouts in which people keep models, each as tiny files: all of them open, and fit the programs that would run them.
import { mkdirSync, mkdtempSync, rmSync, symlinkSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { justInTime } from '../../../sdk/src/kontext/programs.ts';
import { type ModelSource, openModel } from '../../../sdk/src/model/open.ts';
import {
  gguf,
  llamaName,
  type RawTensors,
  renamedTensors,
  safetensors,
  split,
  tiny,
  tinyBytes,
  tinyConfig,
  tinyConfigFiles,
  tinyFile,
  writeFiles,
} from '../../support/model-files.ts';

let folder: string;
const at = (name: string) => join(folder, name);
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'kontext-layouts-'));
});
afterEach(() => rmSync(folder, { recursive: true }));

/** Opens a model and holds it to its programs. @returns the file of each part, below the folder */
async function opened(source: ModelSource): Promise<Record<string, string>> {
  const model = await openModel(source);
  try {
    await justInTime().specs(model);
    return Object.fromEntries(
      Object.entries(model.parts).map(([part, { weights }]) => [part, weights.label.replace(`${folder}/`, '')]),
    );
  } finally {
    await model.close();
  }
}

const HEAP = {
  transformer: 'flux1-kontext-dev.safetensors',
  vae: 'ae.safetensors',
  clip: 'clip_l.safetensors',
  t5: 't5xxl_fp16.safetensors',
} as const;
type Names = Record<keyof typeof HEAP, string>;

/** The four parts under these names, below `folder`, and configs. */
function write(names: Names, data: Partial<Record<keyof typeof HEAP, Uint8Array>> = {}): void {
  writeFiles(folder, tinyConfigFiles());
  // A path below `models` leads to that folder, whose parts are of tiny widths too.
  if (names.clip.startsWith('models/')) writeFiles(at('models'), tinyConfigFiles());
  for (const part of Object.keys(HEAP) as (keyof typeof HEAP)[]) {
    writeFiles(folder, { [names[part]]: data[part] ?? tinyBytes(part) });
  }
}

const index = (shards: RawTensors[], name: (i: number) => string): string =>
  JSON.stringify({
    metadata: { total_size: 1 },
    weight_map: Object.fromEntries(shards.flatMap((shard, i) => [...shard.keys()].map((key) => [key, name(i)]))),
  });
const shardNames = (stem: string, count: number) => (i: number) =>
  `${stem}-${String(i + 1).padStart(5, '0')}-of-${String(count).padStart(5, '0')}.safetensors`;

describe('where files lie', () => {
  it.each<[string, Partial<Names>]>([
    ['one heap', {}],
    ['.sft', { transformer: 'flux1-kontext-dev.sft', vae: 'ae.sft' }],
    [
      'upper-case endings',
      { transformer: 'FLUX1-KONTEXT.SAFETENSORS', vae: 'AE.SAFETENSORS', t5: 'T5XXL.SafeTensors' },
    ],
    ['names with signs', { transformer: 'flux 100% #1 [kontext]?.safetensors', vae: 'ae (1).safetensors' }],
    [
      'ComfyUI’s tree',
      {
        transformer: 'diffusion_models/flux/any.safetensors',
        vae: 'vae/ae.safetensors',
        clip: 'text_encoders/clip_l.safetensors',
        t5: 'text_encoders/t5/t5xxl_fp8_e4m3fn.safetensors',
      },
    ],
    [
      'ComfyUI’s tree as it once was, in models',
      {
        transformer: 'models/unet/any.safetensors',
        vae: 'models/vae/FLUX1/ae.safetensors',
        clip: 'models/clip/clip_l.safetensors',
        t5: 'models/clip/t5xxl_fp16.safetensors',
      },
    ],
    [
      'diffusers’ folders with a variant',
      {
        transformer: 'transformer/diffusion_pytorch_model.fp16.safetensors',
        vae: 'vae/diffusion_pytorch_model.fp16.safetensors',
        clip: 'text_encoder/model.fp16.safetensors',
        t5: 'text_encoder_2/model.fp16.safetensors',
      },
    ],
  ])('%s', async (_, own) => {
    const names = { ...HEAP, ...own };
    write(names);
    expect(await opened(folder)).toEqual(names);
    expect(await opened(`${folder}/`)).toEqual(names);
    // The transformer's own path, wherever the others are.
    expect(await opened(at(names.transformer))).toEqual(names);
    expect(await opened(pathToFileURL(at(names.transformer)))).toEqual(names);
  });

  it('~ in paths', async () => {
    write(HEAP);
    const home = process.env.HOME;
    process.env.HOME = folder;
    try {
      expect(await opened('~')).toEqual(HEAP);
      expect(await opened(`~/${HEAP.transformer}`)).toEqual(HEAP);
      const parts = Object.fromEntries(Object.entries(HEAP).map(([part, name]) => [part, `~/${name}`]));
      const configs = { clip: tinyConfig('clip'), t5: tinyConfig('t5') };
      expect(await opened({ ...(parts as Names), configs })).toEqual(HEAP);
    } finally {
      process.env.HOME = home;
    }
  });

  it('files one by one out of diffusers’ folders, with the configs beside them', async () => {
    const names = {
      transformer: 'transformer/diffusion_pytorch_model.safetensors',
      vae: 'vae/diffusion_pytorch_model.safetensors',
      clip: 'text_encoder/model.safetensors',
      t5: 'text_encoder_2/model.safetensors',
    };
    write(names);
    const parts = Object.fromEntries(Object.entries(names).map(([part, name]) => [part, at(name)])) as Names;
    expect(await opened(parts)).toEqual(names);
    // Of another network, as in one heap, it is none.
    writeFiles(folder, { 'text_encoder/config.json': '{"model_type":"qwen2"}' });
    await expect(opened(parts)).rejects.toThrow(/CLIP text encoder of width 12 .*configs\.clip/);
  });

  it('several FLUX files: the one for Kontext, and of a variant and the plain file the plain one', async () => {
    write(HEAP);
    writeFiles(folder, {
      'flux1-dev.safetensors': tinyBytes('transformer'),
      'flux1-schnell.sft': tinyBytes('transformer'),
    });
    expect(await opened(folder)).toEqual(HEAP);
    // What is named goes before what is there besides.
    expect(await opened(at('flux1-dev.safetensors'))).toMatchObject({ transformer: 'flux1-dev.safetensors' });
    writeFiles(folder, { 'kontext-Q8_0.gguf': gguf(tiny('transformer')) });
    await expect(opened(folder)).rejects.toThrow(
      /4 files that could be the transformer: flux1-dev\.safetensors, flux1-kontext-dev\.safetensors, flux1-schnell\.sft, kontext-Q8_0\.gguf\. Give the one/,
    );
  });

  it('a plain file beside its variant', async () => {
    const names = {
      transformer: 'transformer/diffusion_pytorch_model.safetensors',
      vae: 'vae/diffusion_pytorch_model.safetensors',
      clip: 'text_encoder/model.safetensors',
      t5: 'text_encoder_2/model.safetensors',
    };
    write(names);
    writeFiles(folder, {
      'transformer/diffusion_pytorch_model.fp16.safetensors': tinyBytes('transformer'),
      'vae/diffusion_pytorch_model.fp16.safetensors': tinyBytes('vae'),
      'text_encoder/model.fp16.safetensors': tinyBytes('clip'),
    });
    expect(await opened(folder)).toEqual(names);
  });
});

describe('networks in several files', () => {
  const stem = 'transformer/diffusion_pytorch_model';
  const shards = split(tiny('transformer'), 3);
  const writeShards = (name: (i: number) => string) =>
    writeFiles(folder, Object.fromEntries(shards.map((shard, i) => [`transformer/${name(i)}`, safetensors(shard)])));
  beforeEach(() => {
    write(HEAP);
    rmSync(at(HEAP.transformer));
  });

  it.each([
    ['shards with their index', 'diffusion_pytorch_model', `${stem}.safetensors.index.json`],
    ['shards of a variant', 'diffusion_pytorch_model.fp16', `${stem}.safetensors.index.fp16.json`],
  ])('%s', async (_, prefix, indexName) => {
    const name = shardNames(prefix, 3);
    writeShards(name);
    writeFiles(folder, { [indexName]: index(shards, name) });
    const names = { ...HEAP, transformer: indexName };
    expect(await opened(folder)).toEqual(names);
    expect(await opened(at(indexName))).toEqual(names);
    const { clip, t5, vae } = Object.fromEntries(Object.entries(HEAP).map(([part, file]) => [part, at(file)])) as Names;
    const configs = { clip: tinyConfig('clip'), t5: tinyConfig('t5') };
    expect(await opened({ transformer: at(indexName), clip, t5, vae, configs })).toEqual(names);
    rmSync(at(`transformer/${name(1)}`));
    await expect(opened(folder)).rejects.toThrow(/has no transformer\/diffusion_pytorch_model.*-00002-of-00003/);
  });

  it('shards without one, by any of them', async () => {
    const name = shardNames('flux1-kontext-dev', 3);
    writeShards(name);
    const first = `transformer/${name(0)}`;
    expect(await opened(folder)).toEqual({ ...HEAP, transformer: first });
    expect(await opened(at(`transformer/${name(2)}`))).toEqual({ ...HEAP, transformer: `transformer/${name(2)}` });
    rmSync(at(`transformer/${name(1)}`));
    await expect(opened(folder)).rejects.toThrow(
      /-00001-of-00003.* no flux1-kontext-dev-00002-of-00003\.safetensors beside it/,
    );
  });

  it('a GGUF in parts, by any of them', async () => {
    const names = [1, 2, 3].map((i) => `flux1-kontext-dev-0000${i}-of-00003.gguf`);
    const parts = shards.map((shard, i) => gguf(shard, { 'split.no': i, 'split.count': 3 }));
    writeFiles(folder, Object.fromEntries(names.map((name, i) => [name, parts[i]!])));
    expect(await opened(folder)).toEqual({ ...HEAP, transformer: names[0] });
    expect(await opened(at(names[1]!))).toEqual({ ...HEAP, transformer: names[1] });
    rmSync(at(names[2]!));
    await expect(opened(folder)).rejects.toThrow(
      /is part 1 of 3, and flux1-kontext-dev-00003-of-00003\.gguf is not beside it/,
    );
  });

  it('an index without its shards, beside a file that serves', async () => {
    writeFiles(folder, {
      [`${stem}.safetensors.index.json`]: index(shards, shardNames('diffusion_pytorch_model', 3)),
      'flux1-kontext-dev.gguf': gguf(tiny('transformer')),
    });
    expect(await opened(folder)).toEqual({ ...HEAP, transformer: 'flux1-kontext-dev.gguf' });
  });
});

describe('names inside', () => {
  const prefixed = (prefix: string, part: keyof typeof HEAP) => renamedTensors(tiny(part), (name) => prefix + name);
  const embedding = tiny('t5').get('shared.weight')!;

  it.each<[string, Partial<Record<keyof typeof HEAP, Uint8Array>>]>([
    [
      'CLIP without text_model',
      { clip: safetensors(renamedTensors(tiny('clip'), (name) => name.replace('text_model.', ''))) },
    ],
    [
      'T5 with encoder.embed_tokens alone',
      {
        t5: safetensors(
          renamedTensors(tiny('t5'), (name) => (name === 'shared.weight' ? 'encoder.embed_tokens.weight' : name)),
        ),
      },
    ],
    [
      'T5 with both names of its table',
      { t5: safetensors(new Map([...tiny('t5'), ['encoder.embed_tokens.weight', embedding]])) },
    ],
    [
      'tensors and types that nothing needs',
      {
        transformer: safetensors(
          new Map([
            ...tiny('transformer'),
            ['steps', { dtype: 'I64', shape: [], data: new Uint8Array(8) }],
            ['ema.decay', { dtype: 'F64', shape: [1], data: new Uint8Array(8) }],
            ['flag', { dtype: 'BOOL', shape: [3], data: new Uint8Array(3) }],
            ['exponents', { dtype: 'F8_E8M0', shape: [5], data: new Uint8Array(5) }],
            ['new.kind', { dtype: 'F4', shape: [7], data: new Uint8Array(4) }],
            ['nothing', { dtype: 'F32', shape: [0], data: new Uint8Array(0) }],
          ]),
          { format: 'pt', 'modelspec.title': 'x'.repeat(100_000) },
        ),
        clip: safetensors(
          new Map([
            ...tiny('clip'),
            ['text_model.embeddings.position_ids', { dtype: 'I64', shape: [1, 77], data: new Uint8Array(616) }],
          ]),
        ),
      },
    ],
    [
      'a prefix',
      {
        transformer: safetensors(prefixed('model.diffusion_model.', 'transformer')),
        vae: safetensors(prefixed('first_stage_model.', 'vae')),
      },
    ],
    ['GGUF in a .safetensors', { transformer: gguf(tiny('transformer'), { 'general.architecture': 'flux' }) }],
    ['GGUF without an architecture', { transformer: gguf(tiny('transformer')) }],
    [
      'GGUF with stable-diffusion.cpp’s prefix',
      { transformer: gguf(prefixed('model.diffusion_model.', 'transformer')) },
    ],
    [
      'GGUF of T5 with llama.cpp’s names',
      { t5: gguf(renamedTensors(tiny('t5'), llamaName), { 'general.architecture': 't5encoder' }) },
    ],
  ])('%s', async (_, data) => {
    write(HEAP, data);
    expect(await opened(folder)).toEqual(HEAP);
  });

  it('all four networks in one file, by its path and as the only part', async () => {
    const all = new Map([
      ...prefixed('model.diffusion_model.', 'transformer'),
      ...prefixed('vae.', 'vae'),
      ...prefixed('text_encoders.clip_l.transformer.', 'clip'),
      ...prefixed('text_encoders.t5xxl.transformer.', 't5'),
    ]);
    const file = 'checkpoints/flux1-kontext.safetensors';
    writeFiles(folder, { ...tinyConfigFiles(), [file]: safetensors(all) });
    const names = { transformer: file, vae: file, clip: file, t5: file };
    expect(await opened(folder)).toEqual(names);
    expect(await opened(at(file))).toEqual(names);
    const configs = { clip: tinyConfig('clip'), t5: tinyConfig('t5') };
    expect(await opened({ transformer: at(file), configs })).toEqual(names);
  });
});

describe('links', () => {
  it('of files, folders and the model’s folder itself lead to another disk', async () => {
    const elsewhere = mkdtempSync(join(tmpdir(), 'kontext-disk-'));
    try {
      const names = { ...HEAP, transformer: 'diffusion_models/any.safetensors', vae: 'vae/ae.safetensors' };
      write(HEAP);
      for (const part of ['clip', 't5'] as const) rmSync(at(HEAP[part]));
      for (const part of ['transformer', 'vae'] as const) rmSync(at(HEAP[part]));
      writeFiles(elsewhere, { 'big.safetensors': tinyBytes('transformer'), 'vae/ae.safetensors': tinyBytes('vae') });
      mkdirSync(at('diffusion_models'));
      symlinkSync(join(elsewhere, 'big.safetensors'), at(names.transformer));
      symlinkSync(join(elsewhere, 'vae'), at('vae'));
      symlinkSync(tinyFile('clip'), at(HEAP.clip));
      symlinkSync(tinyFile('t5'), at(HEAP.t5));
      expect(await opened(folder)).toEqual(names);
      symlinkSync(folder, join(elsewhere, 'model'));
      expect(await opened(join(elsewhere, 'model/diffusion_models/any.safetensors'))).toMatchObject({
        vae: join(elsewhere, 'model/vae/ae.safetensors'),
      });
      rmSync(join(elsewhere, 'big.safetensors'));
      await expect(opened(folder)).rejects.toThrow(
        /diffusion_models\/any\.safetensors in .* is no file: .* a link to what is not there/,
      );
    } finally {
      rmSync(elsewhere, { recursive: true });
    }
  });

  it('that an index names stay in the folder', async () => {
    write(HEAP);
    rmSync(at(HEAP.transformer));
    const weight_map = Object.fromEntries([...tiny('transformer').keys()].map((name) => [name, 'away.safetensors']));
    writeFiles(folder, {
      'transformer/diffusion_pytorch_model.safetensors.index.json': JSON.stringify({ weight_map }),
    });
    symlinkSync(tinyFile('transformer'), at('transformer/away.safetensors'));
    symlinkSync('../../nothing.json', at('transformer/config.json'));
    rmSync(at('transformer/config.json'));
    await expect(openModel(at('transformer/diffusion_pytorch_model.safetensors.index.json'))).rejects.toThrow(
      /away\.safetensors" is a link that leaves/,
    );
  });
});
