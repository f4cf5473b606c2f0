// Opens a model: finds its parts in a diffusers folder or among BFL's files, and shows all weights under BFL's names.
// Headers and configs are read here, weights are not: those come when a program asks for them.
import { KontextError } from '../../../runtime/src/errors.ts';
import type { ByteSource } from '../../../runtime/src/weights/bytes.ts';
import { openSafetensors, openShardedSafetensors } from '../../../runtime/src/weights/files/safetensors.ts';
import { bflNaming, tinyDecoderNaming } from '../../../runtime/src/weights/naming/index.ts';
import type { WeightSource } from '../../../runtime/src/weights/source.ts';
import type { ModelDefaults } from '../kontext/options.ts';
import { checkDefaults, scheduleOf } from './configs.ts';
import {
  type FileInput,
  folderFiles,
  guardFiles,
  localPath,
  type ModelFiles,
  openFile,
  readJson,
  readText,
  urlFiles,
} from './files.ts';
import { lockedFiles } from './locked.ts';
import type { Model, ModelPart, PartName } from './model.ts';

export type { Model, ModelPart, PartName, TokenizerTable } from './model.ts';

/**
 * BFL's release: one file for each network, and the tokenizers, each a path, URL, Blob or bytes.
 * Text encoders are Hugging Face's (`text_encoder`, `text_encoder_2`); those packed for other programs have the same names.
 */
export interface BflFiles {
  /** `flux1-kontext-dev.safetensors` */
  transformer: FileInput;
  /** `ae.safetensors` */
  vae: FileInput;
  /** CLIP ViT-L/14's text encoder */
  clip: FileInput;
  /** T5 v1.1 XXL's encoder */
  t5: FileInput;
  /** Either of the forms in which repositories carry it. */
  clipTokenizer:
    | {
        /** `vocab.json` */
        vocab: FileInput;
        /** `merges.txt` */
        merges: FileInput;
      }
    | {
        /** `tokenizer.json` */
        tokenizerJson: FileInput;
      };
  /** SentencePiece's vocabulary in the form of the `tokenizers` library. */
  t5Tokenizer: {
    /** `tokenizer.json` */
    tokenizerJson: FileInput;
  };
  /** What a folder's `kontext.json` would say. */
  defaults?: ModelDefaults;
}

/** Folder or URL of a model, BFL's files one by one, or an own place for the files of a folder. */
export type ModelSource = string | URL | BflFiles | ModelFiles;

/**
 * A folder is taken as diffusers' when it has a `model_index.json`, else as BFL's: `flux1-*.safetensors`, `ae.safetensors`,
 * with `text_encoder`, `text_encoder_2`, `tokenizer`, `tokenizer_2` beside them as diffusers lays them out.
 *
 * @throws KontextError `weights-invalid` or `tokenizer-invalid` naming the missing or broken file; `download-failed`
 */
export async function openModel(source: ModelSource, signal?: AbortSignal): Promise<Model> {
  if (typeof source === 'object' && source !== null && 'transformer' in source) return openFiles(source, signal);
  const place = typeof source === 'string' || source instanceof URL ? placeOf(source) : guardFiles(source);
  const files = await lockedFiles(place, signal);
  const index = await files.open('model_index.json', signal);
  await index?.close();
  // Loaded for packed models only: their reader knows every element type there is.
  const manifest = index ? undefined : await files.open('kontext-model.json', signal);
  if (manifest) return (await import('./packed.ts')).openPacked(files, manifest, signal);
  return openFolder(files, index === undefined, signal);
}

/**
 * Adds a small decoder for previews to an open model; it closes with it.
 *
 * @param input a safetensors file of TAESD's kind for FLUX's latents (taef1), under diffusers' names or its author's
 * @throws KontextError `weights-invalid` when it is none; `download-failed`
 */
export async function withPreviewDecoder(model: Model, input: FileInput, signal?: AbortSignal): Promise<Model> {
  const source = await openWeights(await openFile(input, signal), signal);
  const close = async () => {
    await Promise.all([model.close(), source.close()]);
  };
  return { ...model, previewDecoder: tinyDecoderNaming(source), close };
}

/** The files of a folder or URL. */
export function placeOf(source: string | URL): ModelFiles {
  const path = localPath(source);
  if (path === undefined) return urlFiles(source);
  return folderFiles(path.length > 1 ? path.replace(/[\\/]$/, '') : path);
}

async function openFolder(files: ModelFiles, bfl: boolean, signal?: AbortSignal): Promise<Model> {
  const opened: WeightSource[] = [];
  const open = async (part: PartName, weights: Promise<WeightSource>): Promise<ModelPart> => {
    const source = await weights;
    opened.push(source);
    const config = await files.open(`${FOLDERS[part]}/config.json`, signal);
    return { weights: bflNaming(source), ...(config && { config: await readJson(config, 'weights-invalid', signal) }) };
  };
  const close = async () => {
    await Promise.all(opened.map((source) => source.close()));
  };
  try {
    const names = bfl ? await bflNames(files) : undefined;
    const parts = {
      clip: await open('clip', weightsIn(files, FOLDERS.clip, 'model', signal)),
      t5: await open('t5', weightsIn(files, FOLDERS.t5, 'model', signal)),
      transformer: await open(
        'transformer',
        names
          ? singleFile(files, names.transformer, signal)
          : weightsIn(files, FOLDERS.transformer, 'diffusion_pytorch_model', signal),
      ),
      vae: await open(
        'vae',
        names ? singleFile(files, names.vae, signal) : weightsIn(files, FOLDERS.vae, 'diffusion_pytorch_model', signal),
      ),
    };
    const own = await files.open('kontext.json', signal);
    const scheduler = await files.open('scheduler/scheduler_config.json', signal);
    return {
      label: files.label,
      parts,
      clipTokenizer: await clipTokenizerIn(files, signal),
      t5Tokenizer: { tokenizerJson: await textOf(files, 'tokenizer_2/tokenizer.json', signal) },
      schedule: scheduler ? scheduleOf(await readJson(scheduler, 'weights-invalid', signal)) : bflSchedule(parts),
      defaults: own ? checkDefaults(await readJson(own, 'weights-invalid', signal), own.name) : {},
      close,
    };
  } catch (error) {
    await close();
    throw error;
  }
}

async function openFiles(files: BflFiles, signal?: AbortSignal): Promise<Model> {
  const opened: WeightSource[] = [];
  const open = async (input: FileInput): Promise<ModelPart> => {
    const source = await openWeights(await openFile(input, signal), signal);
    opened.push(source);
    return { weights: bflNaming(source) };
  };
  const text = async (input: FileInput) => readText(await openFile(input, signal), signal);
  const close = async () => {
    await Promise.all(opened.map((source) => source.close()));
  };
  try {
    const parts = {
      clip: await open(files.clip),
      t5: await open(files.t5),
      transformer: await open(files.transformer),
      vae: await open(files.vae),
    };
    const clip = files.clipTokenizer;
    return {
      label: parts.transformer.weights.label,
      parts,
      clipTokenizer:
        'vocab' in clip
          ? { vocab: await text(clip.vocab), merges: await text(clip.merges) }
          : { tokenizerJson: await text(clip.tokenizerJson) },
      t5Tokenizer: { tokenizerJson: await text(files.t5Tokenizer.tokenizerJson) },
      schedule: bflSchedule(parts),
      defaults: checkDefaults({ ...files.defaults }, 'defaults'),
      close,
    };
  } catch (error) {
    await close();
    throw error;
  }
}

const FOLDERS: Record<PartName, string> = {
  clip: 'text_encoder',
  t5: 'text_encoder_2',
  transformer: 'transformer',
  vae: 'vae',
};

/** FLUX.1 [schnell], the one release without a guidance embedding, samples an unshifted schedule. */
function bflSchedule(parts: Record<PartName, ModelPart>): Model['schedule'] {
  const guided = parts.transformer.weights.tensors.has('guidance_in.in_layer.weight');
  return { shift: guided ? 'dynamic' : 'none' };
}

async function bflNames(files: ModelFiles): Promise<{ transformer: string; vae: string }> {
  const names = files.list
    ? await files.list().catch((cause: unknown) => {
        const problem = `There is no model at ${files.label}: ${(cause as Error).message}.`;
        throw new KontextError('weights-invalid', problem, { folder: files.label }, { cause });
      })
    : ['flux1-kontext-dev.safetensors'];
  const transformer = names.find((name) => /^flux1-.*\.safetensors$/.test(name));
  if (transformer) return { transformer, vae: 'ae.safetensors' };
  throw new KontextError(
    'weights-invalid',
    `${files.label} is no model: it has neither a model_index.json (diffusers) nor a flux1-*.safetensors (BFL).`,
    { folder: files.label },
  );
}

async function singleFile(files: ModelFiles, name: string, signal?: AbortSignal): Promise<WeightSource> {
  const bytes = await files.open(name, signal);
  if (!bytes) throw missing(files, name);
  return openWeights(bytes, signal);
}

async function openWeights(bytes: ByteSource, signal?: AbortSignal): Promise<WeightSource> {
  try {
    return await openSafetensors(bytes, signal);
  } catch (error) {
    await bytes.close();
    throw error;
  }
}

/** One file, or the shards its index lists. */
async function weightsIn(files: ModelFiles, folder: string, stem: string, signal?: AbortSignal): Promise<WeightSource> {
  const name = `${folder}/${stem}.safetensors`;
  const single = await files.open(name, signal);
  if (single) return openWeights(single, signal);
  const index = await files.open(`${name}.index.json`, signal);
  if (!index) throw missing(files, name);
  return openShardedSafetensors(
    await readJson(index, 'weights-invalid', signal),
    async (shard) => {
      const bytes = await files.open(`${folder}/${shard}`, signal);
      if (!bytes) throw missing(files, `${folder}/${shard}`);
      return bytes;
    },
    index.name,
    signal,
  );
}

async function clipTokenizerIn(files: ModelFiles, signal?: AbortSignal): Promise<Model['clipTokenizer']> {
  const json = await files.open('tokenizer/tokenizer.json', signal);
  if (json) return { tokenizerJson: await readText(json, signal) };
  return {
    vocab: await textOf(files, 'tokenizer/vocab.json', signal),
    merges: await textOf(files, 'tokenizer/merges.txt', signal),
  };
}

async function textOf(files: ModelFiles, name: string, signal?: AbortSignal): Promise<string> {
  const bytes = await files.open(name, signal);
  if (!bytes) throw missing(files, name, 'tokenizer-invalid');
  return readText(bytes, signal);
}

function missing(
  files: ModelFiles,
  name: string,
  code: 'weights-invalid' | 'tokenizer-invalid' = 'weights-invalid',
): KontextError {
  return new KontextError(code, `The model at ${files.label} has no ${name}. Was it downloaded completely?`, {
    file: name,
    folder: files.label,
  });
}
