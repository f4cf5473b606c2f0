// Finds the four networks among the files of a folder by what they hold: diffusers' folders, BFL's files, ComfyUI's tree or one heap.
// Headers are read, names decide only between files that hold the same network.
import { KontextError } from '../../../runtime/src/errors.ts';
import { openShardedSafetensors } from '../../../runtime/src/weights/files/safetensors.ts';
import type { NetworkName as PartName } from '../../../runtime/src/weights/naming/parts.ts';
import type { WeightSource } from '../../../runtime/src/weights/source.ts';
import { type ModelFiles, readJson } from './files.ts';
import { describe, notThePart, openWeightsFile, PARTS, partOfFile, type WeightsFile } from './weights-file.ts';

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
const WEIGHTS = /\.(safetensors|sft|gguf)$/i;
/** Named in messages only. */
const UNREADABLE = /\.(ckpt|pt|pth|bin|onnx|msgpack|h5)$/i;
const INDEX = /\.safetensors\.index\.json$/i;
const SHARD = /-\d{5}-of-\d{5}\.(safetensors|gguf)$/i;
/** A folder of all models of a program is large, and each costs a read. */
const MAX_FILES = 300;

/** Files that a place without a list is asked for. */
const USUAL: Record<PartName, readonly string[]> = {
  transformer: ['flux1-kontext-dev.safetensors', 'transformer/diffusion_pytorch_model.safetensors'],
  vae: ['ae.safetensors', 'vae/diffusion_pytorch_model.safetensors'],
  clip: ['text_encoder/model.safetensors', 'clip_l.safetensors'],
  t5: [
    'text_encoder_2/model.safetensors',
    't5xxl_fp16.safetensors',
    't5xxl_fp8_e4m3fn_scaled.safetensors',
    't5xxl_fp8_e4m3fn.safetensors',
  ],
};

/** An open file of the folder. */
interface Candidate {
  name: string;
  bytes: number;
  file: WeightsFile;
}

/** The networks of a folder, each under its original names, and how to close all that was opened for them. */
export interface FoundParts {
  parts: Record<PartName, WeightSource>;
  close(): Promise<void>;
}

/**
 * @param first a file whose networks go before all others: the one that was given, where a path names a file
 * @throws KontextError `weights-invalid` naming what is missing or ambiguous, and what lies there instead
 */
export async function findParts(
  files: ModelFiles,
  first: WeightsFile | undefined,
  signal?: AbortSignal,
): Promise<FoundParts> {
  const candidates: Candidate[] = [];
  const problems: KontextError[] = [];
  const close = async () => {
    await Promise.all([first?.source.close(), ...candidates.map(({ file }) => file.source.close())]);
  };
  try {
    const inFirst = first ? new Set(first.identity.networks) : new Set<PartName>();
    const complete = (Object.keys(PARTS) as PartName[]).every((part) => inFirst.has(part));
    for (const name of complete ? [] : await weightNames(files, signal)) {
      const file = await openNamed(files, name, problems, signal);
      if (file) candidates.push({ name, ...file });
    }
    const choose = (part: PartName) =>
      first && inFirst.has(part) ? partOfFile(first, part) : chosen(files, candidates, problems, part);
    const parts = { clip: choose('clip'), t5: choose('t5'), transformer: choose('transformer'), vae: choose('vae') };
    const used = new Set(Object.values(parts).map(({ label }) => label));
    // Those that serve no part are given back now; views keep the label of their file.
    await Promise.all(
      candidates.filter(({ file }) => !used.has(file.source.label)).map(({ file }) => file.source.close()),
    );
    return { parts, close };
  } catch (error) {
    await close();
    throw error;
  }
}

async function openNamed(
  files: ModelFiles,
  name: string,
  problems: KontextError[],
  signal: AbortSignal | undefined,
): Promise<Omit<Candidate, 'name'> | undefined> {
  const folder = name.replace(/[^/]*$/, '');
  try {
    const bytes = await files.open(name, signal);
    if (!bytes) return undefined;
    const { size } = bytes;
    if (!INDEX.test(name)) {
      return { bytes: size, file: await openWeightsFile(bytes, signal, (other) => files.open(folder + other, signal)) };
    }
    const source = await openShardedSafetensors(
      await readJson(bytes, 'weights-invalid', signal),
      async (shard) => {
        const found = await files.open(folder + shard, signal);
        if (found) return found;
        throw missing(files, folder + shard);
      },
      bytes.name,
      signal,
    );
    return { bytes: Number.MAX_SAFE_INTEGER, file: await describe(source, signal) };
  } catch (error) {
    if (!(error instanceof KontextError) || error.code !== 'weights-invalid') throw error;
    problems.push(error);
    return undefined;
  }
}

/** Names of all files that may hold weights; an index stands for its shards, the first part of a GGUF for all. */
async function weightNames(files: ModelFiles, signal: AbortSignal | undefined): Promise<string[]> {
  if (!files.list) {
    const names: string[] = [];
    for (const name of Object.values(USUAL).flat()) {
      for (const each of [name, `${name}.index.json`]) {
        const bytes = await files.open(each, signal);
        await bytes?.close();
        if (!bytes) continue;
        names.push(each);
        break;
      }
    }
    return names;
  }
  const list = async (folder: string): Promise<string[]> => {
    const names = await files.list!(folder).catch((cause: unknown) => {
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
  const wanted = names.filter(
    (name) => (WEIGHTS.test(name) && !(SHARD.test(name) && !/-00001-of-/.test(name))) || INDEX.test(name),
  );
  const indexed = new Set(wanted.filter((name) => INDEX.test(name)).map((name) => name.replace(/[^/]*$/, '')));
  const kept = wanted.filter(
    (name) => !(SHARD.test(name) && /safetensors$/i.test(name) && indexed.has(name.replace(/[^/]*$/, ''))),
  );
  if (kept.length === 0) {
    const pickles = names.filter((name) => UNREADABLE.test(name)).slice(0, 4);
    throw new KontextError(
      'weights-invalid',
      `${files.label} is no model: it has no .safetensors and no .gguf file${
        pickles.length > 0 ? ` (${pickles.join(', ')} are of kinds that are never opened here)` : ''
      }. Give a folder in diffusers’ layout, BFL’s files, or ComfyUI’s models folder.`,
      { folder: files.label },
    );
  }
  return kept.slice(0, MAX_FILES);
}

function chosen(files: ModelFiles, candidates: Candidate[], problems: KontextError[], part: PartName): WeightSource {
  const fitting = candidates.filter(({ file }) => !file.identity.unusable && file.identity.networks.includes(part));
  const one = fitting.length > 1 ? decide(files, fitting, part) : fitting[0];
  if (one) return partOfFile(one.file, part);
  // What lies in the part's place, or looks like it, says more than that nothing is there.
  const instead = candidates.find(({ name, file }) => file.identity.unusable && PLACES[part].test(name));
  if (instead) throw notThePart(instead.file.source.label, part, instead.file.identity);
  const problem = problems.find(({ details }) => PLACES[part].test(String(details.file)));
  if (problem) throw problem;
  const { role, example } = PARTS[part];
  const found = candidates.slice(0, 4).map(({ name, file }) => `${name} is ${file.identity.what}`);
  throw new KontextError(
    'weights-invalid',
    `The model at ${files.label} has no ${role}, for example ${example}${found.length > 0 ? ` (${found.join('; ')})` : ''}. Was it downloaded completely?${problems[0] ? ` ${problems[0].message}` : ''}`,
    { part, folder: files.label },
  );
}

/** Names that a file for the part may have, when its content is of no help. */
const PLACES: Record<PartName, RegExp> = {
  transformer: /flux|kontext|transformer\/|diffusion_models\/|unet\/|checkpoints\//i,
  vae: /(^|[\\/])(ae|vae)\b|vae\//i,
  clip: /clip|text_encoder\//i,
  t5: /t5|text_encoder_2\//i,
};

/** Which of several files that hold the network; never by the order in which a directory lists them. */
function decide(files: ModelFiles, fitting: Candidate[], part: PartName): Candidate {
  const only = (list: Candidate[]) => (list.length === 1 ? list[0] : undefined);
  const own = fitting.filter(({ name }) => OWN_FOLDER[part].test(name));
  const named = fitting.filter(({ name }) => PREFERRED[part].test(name));
  const found =
    only(named) ??
    only(own) ??
    (part === 't5' || part === 'clip' ? largest(own.length > 0 ? own : fitting) : undefined);
  if (found) return found;
  const names = fitting.map(({ name }) => name).sort();
  const { role } = PARTS[part];
  throw new KontextError(
    'weights-invalid',
    `The model at ${files.label} has ${names.length} files that could be the ${role}: ${names.join(', ')}. Give the one to use by its path, with the others beside it, or move the rest away.`,
    { part, folder: files.label, files: names },
  );
}

const PREFERRED: Record<PartName, RegExp> = {
  transformer: /kontext/i,
  vae: /(^|\/)(ae|flux[^/]*)\.(safetensors|sft|gguf)$/i,
  clip: /(^|\/)clip_l\b[^/]*$/i,
  t5: /\.gguf$/i,
};

const OWN_FOLDER: Record<PartName, RegExp> = {
  transformer: /^transformer\//,
  vae: /^vae\//,
  clip: /^text_encoder\//,
  t5: /^text_encoder_2\//,
};

/** Of files of one network the most exact: a text encoder runs once a prompt. */
const largest = (list: Candidate[]): Candidate => list.reduce((a, b) => (b.bytes > a.bytes ? b : a));

function missing(files: ModelFiles, name: string): KontextError {
  return new KontextError(
    'weights-invalid',
    `The model at ${files.label} has no ${name}. Was it downloaded completely?`,
    {
      file: name,
      folder: files.label,
    },
  );
}
