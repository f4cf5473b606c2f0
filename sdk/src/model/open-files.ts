// Opens a model whose files are weights as they were published: finds its parts by what files hold, under their original names.
// A chunk of its own: packed models, which pages mostly load, need none of it.
import { KontextError } from '../../../runtime/src/errors.ts';
import { tinyDecoderNaming } from '../../../runtime/src/weights/naming/index.ts';
import type { WeightSource } from '../../../runtime/src/weights/source.ts';
import { checkDefaults, scheduleOf } from './configs.ts';
import {
  type FileInput,
  folderFiles,
  localPath,
  type ModelFiles,
  openFile,
  type PlacedFile,
  readJson,
  urlFiles,
} from './files.ts';
import type { BflFiles, Model, ModelPart, PartName } from './open.ts';
import { PARTS } from './part-words.ts';
import { findParts } from './search.ts';
import { tokenizersIn, tokenizersOf } from './tokenizers-in.ts';
import { openWeightsFile, partOfFile, type Sibling, type WeightsFile } from './weights-file.ts';

/** A small decoder's weights. */
export async function openPreviewDecoder(input: FileInput, signal?: AbortSignal): Promise<WeightSource> {
  const { source } = await openWeightsFile(await openFile(input, signal), signal);
  return tinyDecoderNaming(source);
}

/** The networks of a folder; those of the file that was named go first. */
export async function openFolder(files: ModelFiles, signal?: AbortSignal): Promise<Model> {
  const { file } = files;
  let first: WeightsFile | undefined;
  if (file !== undefined) {
    const bytes = await files.open(file, signal, 'follow');
    if (!bytes) {
      const problem = `There is no model at ${files.label}/${file}. Give a folder or a file of weights that exists.`;
      throw new KontextError('weights-invalid', problem, { file });
    }
    const folder = file.replace(/[^/]*$/, '');
    first = await openWeightsFile(bytes, signal, (other, links) => files.open(folder + other, signal, links));
    if (first.identity.unusable) {
      await first.source.close();
      partOfFile(first, 'transformer');
    }
  }
  const { parts: weights, close } = await findParts(files, first, signal);
  try {
    const parts = await withConfigs(weights, async (part) => {
      const config = await files.open(`${FOLDERS[part]}/config.json`, signal, 'follow');
      return config && readJson(config, 'weights-invalid', signal);
    });
    const own = await files.open('kontext.json', signal, 'follow');
    const scheduler = await files.open('scheduler/scheduler_config.json', signal, 'follow');
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

/** A model's files, given one by one. */
export async function openFiles(files: BflFiles, signal?: AbortSignal): Promise<Model> {
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
    const parts = await withConfigs(
      weights,
      async (name) => files.configs?.[name] ?? (await configBeside(files[name], name, signal)),
    );
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

/** The config in a file's folder, on disk or on the hub, when it is that network's: file by file out of diffusers' folders. */
async function configBeside(
  input: FileInput | undefined,
  part: PartName,
  signal: AbortSignal | undefined,
): Promise<Record<string, unknown> | undefined> {
  const isPath = (typeof input === 'string' || input instanceof URL) && localPath(input) !== undefined;
  if (input === undefined || !(isPath || (isPlaced(input) && input.listed))) return undefined;
  const bytes = await siblingOf(input)!('config.json', 'follow');
  if (!bytes) return undefined;
  const config = await readJson(bytes, 'weights-invalid', signal);
  return CONFIG_OF[part].test(String(config._class_name ?? config.model_type)) ? config : undefined;
}

const CONFIG_OF: Record<PartName, RegExp> = {
  transformer: /^FluxTransformer2DModel$/,
  vae: /^AutoencoderKL$/,
  clip: /^clip/,
  t5: /^t5$/,
};

/** Other files of the folder that a file is in, on disk or on a server. */
function siblingOf(input: FileInput): Sibling | undefined {
  if (isPlaced(input)) return (name, links) => input.beside(name, links);
  if (typeof input !== 'string' && !(input instanceof URL)) return undefined;
  const path = localPath(input);
  // Blobs and data have addresses, and no folder.
  if (path === undefined && !/^https?:/i.test(String(input))) return undefined;
  const files = path === undefined ? urlFiles(new URL('.', input)) : folderFiles(/^(.*)[\\/]/.exec(path)?.[1] ?? '.');
  return (name, links) => files.open(name, undefined, links);
}

const isPlaced = (input: FileInput): input is PlacedFile =>
  typeof input === 'object' && input !== null && typeof (input as Partial<PlacedFile>).beside === 'function';

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
