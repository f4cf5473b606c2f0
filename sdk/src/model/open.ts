// Opens a model: finds its parts by what files hold, and shows all weights under their original names.
// Headers and configs are read here, weights are not: those come when a program asks for them.
import { KontextError } from '../../../runtime/src/errors.ts';
import { tinyDecoderNaming } from '../../../runtime/src/weights/naming/index.ts';
import type { WeightSource } from '../../../runtime/src/weights/source.ts';
import type { ModelDefaults } from '../kontext/options.ts';
import { checkDefaults, scheduleOf } from './configs.ts';
import {
  type FileInput,
  folderFiles,
  guardFiles,
  isFolder,
  localPath,
  type ModelFiles,
  openFile,
  readJson,
  urlFiles,
} from './files.ts';
import { lockedFiles } from './locked.ts';
import type { Model, ModelPart, PartName } from './model.ts';
import { findParts } from './search.ts';
import { type TokenizerInputs, type TokenizerTable, tokenizersIn, tokenizersOf } from './tokenizers-in.ts';
import { openWeightsFile, PARTS, partOfFile, type WeightsFile } from './weights-file.ts';

export type { Model, ModelPart, PartName } from './model.ts';

/**
 * A model's files one by one, each a path, URL, Blob or bytes, each safetensors or GGUF under any of the usual namings.
 * What the transformer's file holds itself (all-in-one checkpoints) need not be given again.
 */
export interface BflFiles extends TokenizerInputs {
  /** `flux1-kontext-dev.safetensors`, a GGUF of it, or an all-in-one checkpoint */
  transformer: FileInput;
  /** `ae.safetensors`, or diffusers' autoencoder */
  vae?: FileInput;
  /** CLIP ViT-L/14's text encoder: `clip_l.safetensors` */
  clip?: FileInput;
  /** T5 v1.1 XXL's encoder: `t5xxl_fp16.safetensors`, or a GGUF of it */
  t5?: FileInput;
  /** Contents of a network's `config.json`, for models of another size than FLUX.1's. */
  configs?: Partial<Record<PartName, Record<string, unknown>>>;
  /** What a folder's `kontext.json` would say. */
  defaults?: ModelDefaults;
}

export type { TokenizerTable };

/** Folder, file or URL of a model, its files one by one, or an own place for the files of a folder. */
export type ModelSource = string | URL | BflFiles | ModelFiles;

/**
 * A path or URL may be a folder (diffusers' layout, BFL's files, ComfyUI's `models`, or all files in one heap) or one file: an
 * all-in-one checkpoint, or a transformer with the other parts in its folder. Files are known by what they hold.
 *
 * @throws KontextError `weights-invalid` or `tokenizer-invalid` naming the missing, broken or wrong file; `download-failed`
 */
export async function openModel(source: ModelSource, signal?: AbortSignal): Promise<Model> {
  if (typeof source === 'object' && source !== null && 'transformer' in source) return openFiles(source, signal);
  if (typeof source !== 'string' && !(source instanceof URL))
    return openFolder(await lockedFiles(guardFiles(source), signal), signal);
  const { files, file } = await placeAndFile(source);
  return openFolder(await lockedFiles(files, signal), signal, file);
}

/**
 * Adds a small decoder for previews to an open model; it closes with it.
 *
 * @param input a safetensors file of TAESD's kind for FLUX's latents (taef1), under diffusers' names or its author's
 * @throws KontextError `weights-invalid` when it is none; `download-failed`
 */
export async function withPreviewDecoder(model: Model, input: FileInput, signal?: AbortSignal): Promise<Model> {
  const { source } = await openWeightsFile(await openFile(input, signal), signal);
  const close = async () => {
    await Promise.all([model.close(), source.close()]);
  };
  return { ...model, previewDecoder: tinyDecoderNaming(source), close };
}

/** The files of a folder or URL. */
export function placeOf(source: string | URL): ModelFiles {
  const path = localPath(source);
  return path === undefined ? urlFiles(source) : folderFiles(withoutSlash(path));
}

const withoutSlash = (path: string): string => (path.length > 1 ? path.replace(/[\\/]$/, '') : path);

const WEIGHTS_NAME = /\.(safetensors|sft|gguf)$/i;

/** The folder of a path or URL, and the file in it when it names one. */
async function placeAndFile(source: string | URL): Promise<{ files: ModelFiles; file?: string }> {
  const path = localPath(source);
  if (path === undefined) {
    const url = new URL(source);
    if (!WEIGHTS_NAME.test(url.pathname)) return { files: urlFiles(url) };
    const file = decodeURIComponent(url.pathname.split('/').at(-1)!);
    url.pathname = url.pathname.replace(/[^/]*$/, '');
    return { files: urlFiles(url), file };
  }
  if (await isFolder(path)) return { files: folderFiles(withoutSlash(path)) };
  const [, folder = '.', file = path] = /^(.*)[\\/]([^\\/]+)$/.exec(path) ?? [];
  return { files: folderFiles(folder === '' ? '/' : folder), file };
}

/** @param file the name of one file in the folder, which was given in the folder's place */
async function openFolder(files: ModelFiles, signal?: AbortSignal, file?: string): Promise<Model> {
  // Loaded for packed models only: their reader knows every element type there is.
  const manifest = file === undefined ? await files.open('kontext-model.json', signal) : undefined;
  if (manifest) return (await import('./packed.ts')).openPacked(files, manifest, signal);
  let first: WeightsFile | undefined;
  let place = files;
  if (file !== undefined) {
    const bytes = await files.open(file, signal);
    if (!bytes) {
      const problem = `There is no model at ${files.label}/${file}. Give a folder or a file of weights that exists.`;
      throw new KontextError('weights-invalid', problem, { file });
    }
    first = await openWeightsFile(bytes, signal, (other) => files.open(other, signal));
    if (first.identity.unusable) {
      await first.source.close();
      partOfFile(first, 'transformer');
    }
    place = await widened(files);
  }
  const { parts: weights, close } = await findParts(place, first, signal);
  try {
    const parts = await withConfigs(weights, async (part) => {
      const config = await files.open(`${FOLDERS[part]}/config.json`, signal);
      return config && readJson(config, 'weights-invalid', signal);
    });
    const own = await files.open('kontext.json', signal);
    const scheduler = await files.open('scheduler/scheduler_config.json', signal);
    return {
      label: files.label,
      parts,
      ...(await tokenizersIn(files, signal)),
      schedule: scheduler ? scheduleOf(await readJson(scheduler, 'weights-invalid', signal)) : bflSchedule(parts),
      defaults: own ? checkDefaults(await readJson(own, 'weights-invalid', signal), own.name) : {},
      close,
    };
  } catch (error) {
    await close();
    throw error;
  }
}

/** A transformer in ComfyUI's tree has the other parts in folders beside its own. */
async function widened(files: ModelFiles): Promise<ModelFiles> {
  const [, root] = /^(.*)[\\/](diffusion_models|unet|checkpoints)([\\/][^\\/]+)?$/.exec(files.label) ?? [];
  return root !== undefined && files.list ? folderFiles(root) : files;
}

async function openFiles(files: BflFiles, signal?: AbortSignal): Promise<Model> {
  const opened: WeightSource[] = [];
  const open = async (input: FileInput): Promise<WeightsFile> => {
    const file = await openWeightsFile(await openFile(input, signal), signal, siblingOf(input));
    opened.push(file.source);
    return file;
  };
  const close = async () => {
    await Promise.all(opened.map((source) => source.close()));
  };
  try {
    const main = await open(files.transformer);
    const part = async (name: PartName): Promise<WeightSource> => {
      const input = files[name];
      if (input !== undefined) return partOfFile(await open(input), name);
      if (!main.identity.unusable && main.identity.networks.includes(name)) return partOfFile(main, name);
      const { role, example } = PARTS[name];
      throw new KontextError('invalid-request', `The model needs its ${role}: give ${name}, for example ${example}.`, {
        part: name,
      });
    };
    const transformer = partOfFile(main, 'transformer');
    const weights = { clip: await part('clip'), t5: await part('t5'), transformer, vae: await part('vae') };
    const parts = await withConfigs(weights, async (name) => files.configs?.[name]);
    return {
      label: transformer.label,
      parts,
      ...(await tokenizersOf(files, signal)),
      schedule: bflSchedule(parts),
      defaults: checkDefaults({ ...files.defaults }, 'defaults'),
      close,
    };
  } catch (error) {
    await close();
    throw error;
  }
}

async function withConfigs(
  weights: Record<PartName, WeightSource>,
  configOf: (part: PartName) => Promise<Record<string, unknown> | undefined>,
): Promise<Record<PartName, ModelPart>> {
  const part = async (name: PartName): Promise<ModelPart> => {
    const config = await configOf(name);
    return { weights: weights[name], ...(config && { config }) };
  };
  return {
    clip: await part('clip'),
    t5: await part('t5'),
    transformer: await part('transformer'),
    vae: await part('vae'),
  };
}

/** Other files of a local file's folder. */
function siblingOf(input: FileInput) {
  const path = typeof input === 'string' || input instanceof URL ? localPath(input) : undefined;
  const folder = path === undefined ? undefined : (/^(.*)[\\/]/.exec(path)?.[1] ?? '.');
  return folder === undefined ? undefined : (name: string) => folderFiles(folder).open(name);
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
