// Finds the four networks among the files of a folder by what they hold: diffusers' folders, BFL's files, ComfyUI's tree or one heap.
// Headers are read, names decide only between files that hold the same network.
import { KontextError } from '../../../runtime/src/errors.ts';
import type { NetworkName as PartName } from '../../../runtime/src/weights/naming/parts.ts';
import type { WeightSource } from '../../../runtime/src/weights/source.ts';
import type { ModelFiles } from './files.ts';
import { PARTS } from './part-words.ts';
import { INDEX, weightNames } from './weight-names.ts';
import { notThePart, openWeightsFile, partOfFile, type WeightsFile } from './weights-file.ts';

/** An open file of the folder. */
interface Candidate {
  name: string;
  bytes: number;
  file: WeightsFile;
}

/** A file that may hold weights and does not open. */
interface Problem {
  name: string;
  error: KontextError;
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
  const problems: Problem[] = [];
  const close = async () => {
    await Promise.all([first?.source.close(), ...candidates.map(({ file }) => file.source.close())]);
  };
  try {
    const inFirst = first ? new Set(first.identity.networks) : new Set<PartName>();
    const missing = (Object.keys(PARTS) as PartName[]).filter((part) => !inFirst.has(part));
    for (const name of missing.length > 0 ? await weightNames(files, missing, signal) : []) {
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
  problems: Problem[],
  signal: AbortSignal | undefined,
): Promise<Omit<Candidate, 'name'> | undefined> {
  const folder = name.replace(/[^/]*$/, '');
  try {
    const bytes = await files.open(name, signal, 'follow');
    if (!bytes) {
      const error = `${name} in ${files.label} is no file: a folder, or a link to what is not there.`;
      throw new KontextError('weights-invalid', error, { file: name, folder: files.label });
    }
    const { size } = bytes;
    const file = await openWeightsFile(bytes, signal, async (other, links) => {
      const found = await files.open(folder + other, signal, links);
      // Only what an index names must be there.
      if (found || links) return found;
      const error = `The model at ${files.label} has no ${folder}${other}. Was it downloaded completely?`;
      throw new KontextError('weights-invalid', error, { file: folder + other, folder: files.label });
    });
    return { bytes: INDEX.test(name) ? Number.MAX_SAFE_INTEGER : size, file };
  } catch (error) {
    if (!(error instanceof KontextError) || error.code !== 'weights-invalid') throw error;
    problems.push({ name, error });
    return undefined;
  }
}

function chosen(files: ModelFiles, candidates: Candidate[], problems: Problem[], part: PartName): WeightSource {
  const fitting = candidates.filter(({ file }) => !file.identity.unusable && file.identity.networks.includes(part));
  const one = fitting.length > 1 ? decide(files, fitting, part) : fitting[0];
  if (one) return partOfFile(one.file, part);
  // What lies in the part's place, or looks like it, says more than that nothing is there.
  const instead = candidates.find(({ name, file }) => file.identity.unusable && PLACES[part].test(name));
  if (instead) throw notThePart(instead.file.source.label, part, instead.file.identity);
  const problem = problems.find(({ name }) => PLACES[part].test(name));
  if (problem) throw problem.error;
  const { role, example } = PARTS[part];
  const found = candidates.slice(0, 4).map(({ name, file }) => `${name} is ${file.identity.what}`);
  throw new KontextError(
    'weights-invalid',
    `The model at ${files.label} has no ${role}, for example ${example}${found.length > 0 ? ` (${found.join('; ')})` : ''}. Was it downloaded completely?${problems[0] ? ` ${problems[0].error.message}` : ''}`,
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
function decide(files: ModelFiles, candidates: Candidate[], part: PartName): Candidate {
  const fitting = [...candidates].sort((a, b) => (a.name < b.name ? -1 : 1));
  const only = (list: Candidate[]) => (list.length === 1 ? list[0] : undefined);
  const own = fitting.filter(({ name }) => OWN_FOLDER[part].test(name));
  const named = fitting.filter(({ name }) => PREFERRED[part].test(name));
  const found =
    only(named) ??
    only(own) ??
    only(own.filter(({ name }) => PLAIN.test(name))) ??
    (part === 't5' || part === 'clip' ? largest(own.length > 0 ? own : fitting) : undefined);
  if (found) return found;
  const names = fitting.map(({ name }) => name);
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

/** What diffusers and transformers call a network's file, without a variant in the name. */
const PLAIN = /\/(diffusion_pytorch_model|model)\.safetensors(\.index\.json)?$/;

/** Of files of one network the most exact: a text encoder runs once a prompt. */
const largest = (list: Candidate[]): Candidate => list.reduce((a, b) => (b.bytes > a.bytes ? b : a));
