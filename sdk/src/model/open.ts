// Opens a model: what it may be given as, and what comes out. Headers and configs are read, weights are not: those come when a
// program asks for them.
import type { WeightFormat } from '../../../runtime/src/program/types.ts';
import type { WeightSource } from '../../../runtime/src/weights/source.ts';
import type { ScheduleOptions } from '../host/schedule.ts';
import type { ModelDefaults } from '../kontext/options.ts';
import { type FileInput, folderFiles, guardFiles, isFolder, localPath, type ModelFiles, urlFiles } from './files.ts';
import { modelAndFile, modelAndFileAt } from './given-file.ts';
import { lockedFiles } from './locked.ts';
import type { TokenizerInputs, TokenizerTable, TokenizerTexts } from './tokenizers-in.ts';

/** The four networks. */
export type PartName = 'clip' | 't5' | 'transformer' | 'vae';

export interface ModelPart {
  weights: WeightSource;
  /** Its `config.json`; absent with BFL files, whose shapes say it all. */
  config?: Record<string, unknown>;
  /** Formats in which a packed model holds its matrices; programs are compiled for these. */
  stored?: Readonly<Record<string, WeightFormat>>;
}

export interface Model extends TokenizerTexts {
  /** For messages: where it came from. */
  label: string;
  parts: Record<PartName, ModelPart>;
  schedule: Pick<ScheduleOptions, 'shift' | 'baseShift' | 'maxShift' | 'baseSeqLen' | 'maxSeqLen'>;
  defaults: ModelDefaults;
  /** A small decoder for previews, when the app gave one. */
  previewDecoder?: WeightSource;
  close(): Promise<void>;
}

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
  /** Contents of a network's `config.json`, for models of another size than FLUX.1's; else one that lies beside a local file serves. */
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
  if (typeof source === 'object' && source !== null && 'transformer' in source) {
    return (await import('./open-files.ts')).openFiles(source, signal);
  }
  const isPlace = typeof source === 'string' || source instanceof URL;
  const files = await lockedFiles(isPlace ? await givenPlace(source) : guardFiles(source), signal);
  // Loaded for packed models only: their reader knows every element type there is.
  const manifest = files.file === undefined ? await files.open('kontext-model.json', signal, 'follow') : undefined;
  if (manifest) return (await import('./packed.ts')).openPacked(files, manifest, signal);
  return (await import('./open-files.ts')).openFolder(files, signal);
}

/**
 * Adds a small decoder for previews to an open model; it closes with it.
 *
 * @param input a safetensors file of TAESD's kind for FLUX's latents (taef1), under diffusers' names or its author's
 * @throws KontextError `weights-invalid` when it is none; `download-failed`
 */
export async function withPreviewDecoder(model: Model, input: FileInput, signal?: AbortSignal): Promise<Model> {
  const { openPreviewDecoder } = await import('./open-files.ts');
  const previewDecoder = await openPreviewDecoder(input, signal);
  const close = async () => {
    await Promise.all([model.close(), previewDecoder.close()]);
  };
  return { ...model, previewDecoder, close };
}

/** The files of a folder or URL. */
export function placeOf(source: string | URL): ModelFiles {
  const path = localPath(source);
  return path === undefined ? urlFiles(source) : folderFiles(withoutSlash(path));
}

const withoutSlash = (path: string): string => (path.length > 1 ? path.replace(/[\\/]$/, '') : path);

/** The files of the folder that a path or URL names, or that the file is in which it names. */
async function givenPlace(source: string | URL): Promise<ModelFiles> {
  const path = localPath(source);
  if (path === undefined) return urlPlace(source);
  if (await isFolder(path)) return folderFiles(withoutSlash(path));
  const [root, file] = modelAndFile(path);
  return { ...folderFiles(root), file };
}

/** The same on a server. */
export function urlPlace(source: string | URL, options: Parameters<typeof urlFiles>[1] = {}): ModelFiles {
  const { base, file } = modelAndFileAt(source);
  return { ...urlFiles(base, options), ...(file !== undefined && { file }) };
}
