// Which files of a folder may hold weights, by their names alone: diffusers' folders, ComfyUI's tree, or one heap.
import { KontextError } from '../../../runtime/src/errors.ts';
import type { NetworkName as PartName } from '../../../runtime/src/weights/naming/parts.ts';
import type { ModelFiles } from './files.ts';

/** Where networks lie below a model's folder: diffusers', then ComfyUI's, whose `models` folder may be given or lie inside. */
const FOLDERS = [
  'transformer',
  'vae',
  'text_encoder',
  'text_encoder_2',
  'diffusion_models',
  'unet',
  'checkpoints',
  'clip',
  'text_encoders',
] as const;
/** Containers that open. */
export const WEIGHTS = /\.(safetensors|sft|gguf)$/i;
/** Named in messages only. */
const UNREADABLE = /\.(ckpt|pt|pth|bin|onnx|msgpack|h5)$/i;
/** Lists shards; diffusers puts a variant (`fp16`) into the name. */
export const INDEX = /\.safetensors\.index(\.[\w-]+)?\.json$/i;
/** One of several files of one network. */
export const SHARD = /^(.*)-(\d{5})-of-(\d{5})\.(safetensors|sft|gguf)$/i;
/** A folder of all models of a program is large, and each costs a read. */
const MAX_FILES = 300;

/** Files that a place without a list is asked for, most usual first; the first that is there is taken. */
const USUAL: Record<PartName, readonly string[]> = {
  transformer: ['flux1-kontext-dev.safetensors', 'transformer/diffusion_pytorch_model.safetensors'],
  vae: ['ae.safetensors', 'vae/diffusion_pytorch_model.safetensors', 'vae/ae.safetensors'],
  clip: ['text_encoder/model.safetensors', 'clip_l.safetensors', 'text_encoders/clip_l.safetensors'],
  t5: [
    'text_encoder_2/model.safetensors',
    't5xxl_fp16.safetensors',
    't5xxl_fp8_e4m3fn_scaled.safetensors',
    't5xxl_fp8_e4m3fn.safetensors',
    'text_encoders/t5xxl_fp16.safetensors',
    'text_encoders/t5xxl_fp8_e4m3fn_scaled.safetensors',
  ],
};

/**
 * Names of all files that may hold weights; an index stands for its shards, the first part of a split file for all.
 *
 * @param parts those that are looked for, where a place has no list
 * @throws KontextError `weights-invalid` when there is none, or no such folder
 */
export async function weightNames(
  files: ModelFiles,
  parts: readonly PartName[],
  signal: AbortSignal | undefined,
): Promise<string[]> {
  if (!files.list) return usualNames(files, parts, signal);
  const list = async (folder: string): Promise<string[]> => {
    const names = await files.list!(folder).catch((cause: unknown) => {
      // Half a listing could hide the file that is meant.
      if (cause instanceof KontextError && cause.details.unreadable) throw cause;
      if (folder !== '') return [];
      const problem = `There is no model at ${files.label}: ${(cause as Error).message}.`;
      throw new KontextError('weights-invalid', problem, { folder: files.label }, { cause });
    });
    return names.map((name) => (folder === '' ? name : `${folder}/${name}`));
  };
  const top = await list('');
  const roots = top.includes('models') && !top.some((name) => WEIGHTS.test(name)) ? ['', 'models/'] : [''];
  const names = [...top];
  for (const root of roots) {
    for (const folder of FOLDERS) {
      const inside = await list(root + folder);
      names.push(...inside);
      // ComfyUI's users sort their files into folders.
      for (const name of inside) if (!/\.[a-z0-9]+$/i.test(name)) names.push(...(await list(name)));
    }
  }
  const folderOf = (name: string) => name.replace(/[^/]*$/, '');
  const indexed = new Set(names.filter((name) => INDEX.test(name)).map(folderOf));
  const kept = names.filter((name) => {
    if (INDEX.test(name)) return true;
    if (!WEIGHTS.test(name) || isHidden(name)) return false;
    const [, , number, , kind] = SHARD.exec(name) ?? [];
    return number === undefined || (Number(number) === 1 && !(kind !== 'gguf' && indexed.has(folderOf(name))));
  });
  if (kept.length === 0) {
    const others = names.filter((name) => UNREADABLE.test(name)).slice(0, 4);
    throw new KontextError(
      'weights-invalid',
      `${files.label} is no model: it has no .safetensors and no .gguf file${
        others.length > 0 ? ` (${others.join(', ')} are of kinds that are never opened here)` : ''
      }. Give a folder in diffusers’ layout, BFL’s files, or ComfyUI’s models folder.`,
      { folder: files.label },
    );
  }
  return kept.slice(0, MAX_FILES);
}

/** macOS leaves `._NAME` beside files on foreign disks. */
const isHidden = (name: string): boolean => /(^|\/)\.[^/]*$/.test(name);

async function usualNames(
  files: ModelFiles,
  parts: readonly PartName[],
  signal: AbortSignal | undefined,
): Promise<string[]> {
  const exists = async (name: string): Promise<boolean> => {
    const bytes = await files.open(name, signal, 'follow');
    await bytes?.close();
    return bytes !== undefined;
  };
  const names: string[] = [];
  for (const part of parts) {
    search: for (const name of USUAL[part]) {
      for (const each of [name, `${name}.index.json`]) {
        if (!(await exists(each))) continue;
        names.push(each);
        break search;
      }
    }
  }
  return names;
}
