// A packed model: a manifest, shards of at most 64 MiB in the GPU's own layout, tokenizer tables. Written by `kontext pack`.
// Opening one reads the manifest and the tables; loading copies bytes to the GPU and compiles no transcode kernel.
import { KontextError } from '../../../runtime/src/errors.ts';
import type { WeightFormat } from '../../../runtime/src/program/types.ts';
import type { ByteSource } from '../../../runtime/src/weights/byte-source.ts';
import { openPackedWeights, type PackedTensor } from '../../../runtime/src/weights/files/packed.ts';
import { checkDefaults, checkSchedule } from './configs.ts';
import { type ModelFiles, readJson } from './files.ts';
import type { Model, ModelPart, PartName } from './open.ts';
import { addressBelow } from './place-names.ts';

/** Name of the manifest in a packed model's folder. */
export const PACKED_FILE = 'kontext-model.json';
export const PART_NAMES = ['clip', 't5', 'transformer', 'vae'] as const satisfies readonly PartName[];

/** One file of the stream. */
export interface Shard {
  file: string;
  bytes: number;
  /** Of the whole file, in hexadecimal. */
  sha256: string;
}

/** Contents of the {@link PACKED_FILE}. */
export interface PackedManifest {
  /** Of this format. */
  version: 1;
  /** Name of the model that was packed. */
  model: string;
  /** What its users must know of its licence. */
  licence?: string;
  schedule: Model['schedule'];
  defaults: Model['defaults'];
  tokenizers: { clip: string; t5: string };
  parts: Record<PartName, { config?: Record<string, unknown>; shards: Shard[]; tensors: Record<string, PackedTensor> }>;
}

/** @param bytes the open manifest. @throws KontextError `weights-invalid` when it is a broken one */
export async function openPacked(files: ModelFiles, bytes: ByteSource, signal?: AbortSignal): Promise<Model> {
  const manifest = (await readJson(bytes, 'weights-invalid', signal)) as unknown as PackedManifest;
  const refuse = (problem: string) =>
    new KontextError('weights-invalid', `${bytes.name} is not a usable packed model: ${problem}.`, {
      file: bytes.name,
    });
  if (manifest.version !== 1) throw refuse('it has another version than 1; pack it again, or update kontext-webgpu');
  const opened: { close(): Promise<void> }[] = [];
  const close = async () => {
    await Promise.all(opened.map((one) => one.close()));
  };
  try {
    const parts = {} as Record<PartName, ModelPart>;
    for (const part of PART_NAMES) {
      const { config, shards, tensors } = manifest.parts?.[part] ?? {};
      if (!Array.isArray(shards) || !isObject(tensors)) throw refuse(`it has no ${part}`);
      if (config !== undefined && !isObject(config)) throw refuse(`the config of ${part} is none`);
      const stream = await joinShards(files, shards, `${files.label} ${part}`, signal);
      opened.push(stream);
      parts[part] = {
        weights: openPackedWeights(stream, tensors, `${files.label} ${part}`),
        ...(config && { config }),
        stored: storedFormats(tensors),
      };
    }
    const table = async (name: unknown) => {
      const file = await files.open(plainName(name), signal);
      if (!file) throw refuse(`it has no ${String(name)}`);
      try {
        return { table: await file.read(0, file.size, signal) };
      } finally {
        await file.close();
      }
    };
    return {
      label: files.label,
      parts,
      clipTokenizer: await table(manifest.tokenizers?.clip),
      t5Tokenizer: await table(manifest.tokenizers?.t5),
      schedule: checkSchedule(manifest.schedule, bytes.name),
      defaults: checkDefaults({ ...manifest.defaults }, bytes.name),
      close,
    };
  } catch (error) {
    await close();
    throw error;
  }
}

/** Formats of the matrices and convolutions; vectors are f32 in every program. */
function storedFormats(tensors: Readonly<Record<string, PackedTensor>>): Record<string, WeightFormat> {
  return Object.fromEntries(
    Object.entries(tensors).flatMap(([name, { stored }]) => (stored ? [[name, stored.format] as const] : [])),
  );
}

/** Consecutive files as one; each is opened when first read. */
async function joinShards(
  files: ModelFiles,
  shards: readonly Shard[],
  label: string,
  signal: AbortSignal | undefined,
): Promise<ByteSource> {
  const starts: number[] = [];
  let size = 0;
  for (const shard of shards) {
    const { file, bytes } = (shard ?? {}) as Partial<Shard>;
    plainName(file);
    if (!Number.isSafeInteger(bytes) || bytes! <= 0)
      throw new KontextError('weights-invalid', `${label}: ${file} has no size.`);
    starts.push(size);
    size += bytes!;
  }
  const opened = new Map<number, Promise<ByteSource>>();
  const shardAt = (index: number) => {
    let opening = opened.get(index);
    if (!opening) {
      const { file, bytes } = shards[index]!;
      opening = (async () => {
        const source = await files.open(file, signal?.aborted ? undefined : signal);
        if (source?.size === bytes) return source;
        await source?.close();
        const problem = source ? `has ${source.size} bytes, not ${bytes}` : 'is not there';
        throw new KontextError('weights-invalid', `${files.label}: ${file} ${problem}. Was it copied completely?`, {
          file,
        });
      })();
      opened.set(index, opening);
      opening.catch(() => opened.delete(index));
    }
    return opening;
  };
  return {
    name: label,
    size,
    async read(start, end, readSignal) {
      const bytes = new Uint8Array(end - start);
      let index = starts.findLastIndex((at) => at <= start);
      for (let at = start; at < end; index++) {
        const from = starts[index]!;
        const until = Math.min(end, from + shards[index]!.bytes);
        const source = await shardAt(index);
        bytes.set(await source.read(at - from, until - from, readSignal), at - start);
        at = until;
      }
      return bytes;
    },
    async close() {
      await Promise.all([...opened.values()].map(async (source) => (await source).close()));
    },
  };
}

const isObject = (value: unknown): boolean => typeof value === 'object' && value !== null && !Array.isArray(value);

function plainName(name: unknown): string {
  if (typeof name !== 'string') throw new KontextError('weights-invalid', `${PACKED_FILE} names no file.`);
  addressBelow(new URL('file:///model/'), name);
  return name;
}
