// Opens one file of weights, whatever its name says: safetensors or GGUF, with scales attached; everything else is named.
import { KontextError } from '../../../runtime/src/errors.ts';
import type { ByteSource } from '../../../runtime/src/weights/bytes.ts';
import { CONTAINER_ADVICE, identifyContainer } from '../../../runtime/src/weights/files/identify.ts';
import { joinSources } from '../../../runtime/src/weights/files/placed.ts';
import { openSafetensors, openShardedSafetensors } from '../../../runtime/src/weights/files/safetensors.ts';
import { findNetworks, networkView, type NetworkName as PartName } from '../../../runtime/src/weights/naming/parts.ts';
import { withScales } from '../../../runtime/src/weights/naming/scaled.ts';
import type { WeightSource } from '../../../runtime/src/weights/source.ts';
import { readJson } from './files.ts';
import { type Identity, identifyModel } from './identify.ts';
import { PARTS } from './part-words.ts';
import { INDEX, SHARD } from './weight-names.ts';

/** An open file and what it is. */
export interface WeightsFile {
  source: WeightSource;
  identity: Identity;
}

/** Gives another file of the same folder, for networks in several files; `follow` when the name does not come from a file. */
export type Sibling = (name: string, links?: 'follow') => Promise<ByteSource | undefined>;

/**
 * The tensors of a file, or of all files that it is one of: a shard, a part of a split GGUF, an index of shards. `bytes` are closed when it throws, else with the result's source.
 *
 * @throws KontextError `weights-invalid` naming what the file is, when it holds no weights or a damaged header
 */
export async function openWeightsFile(
  bytes: ByteSource,
  signal?: AbortSignal,
  sibling?: Sibling,
): Promise<WeightsFile> {
  try {
    const container = await identifyContainer(bytes, signal);
    if (container === 'json' && sibling && INDEX.test(nameOf(bytes))) {
      return await describe(await openIndex(bytes, sibling, signal), signal);
    }
    if (container !== 'safetensors' && container !== 'gguf') {
      throw new KontextError('weights-invalid', `${bytes.name} ${CONTAINER_ADVICE[container]}.`, {
        file: bytes.name,
        container,
      });
    }
    const source = await (container === 'gguf' ? openGguf : openShards)(bytes, sibling, signal);
    return await describe(source, signal);
  } catch (error) {
    await bytes.close();
    throw error;
  }
}

/** The tensors of a source that is open already (shards), with scales, and what they are. */
export async function describe(source: WeightSource, signal?: AbortSignal): Promise<WeightsFile> {
  const identity = identifyModel(source);
  // What is packed in another way keeps its scales to itself.
  if (identity.unusable) return { source, identity };
  const scaled = await withScales(source, signal);
  return { source: scaled, identity: scaled === source ? identity : identifyModel(scaled) };
}

async function openGguf(
  bytes: ByteSource,
  sibling: Sibling | undefined,
  signal: AbortSignal | undefined,
): Promise<WeightSource> {
  // Few pages open one: its reader and its blocks are a chunk of their own.
  const { openSplitGguf } = await import('../../../runtime/src/weights/files/gguf.ts');
  return openSplitGguf(bytes, sibling && ((name) => sibling(name, 'follow')), signal);
}

/** Shards without their index are known by their names. */
async function openShards(
  bytes: ByteSource,
  sibling: Sibling | undefined,
  signal: AbortSignal | undefined,
): Promise<WeightSource> {
  const source = await openSafetensors(bytes, signal);
  const [, stem, number, count, kind] = SHARD.exec(nameOf(bytes)) ?? [];
  if (!sibling || stem === undefined || Number(count) > MAX_SHARDS) return source;
  const opened = [source];
  try {
    for (let i = 1; i <= Number(count); i++) {
      if (i === Number(number)) continue;
      const other = `${stem}-${String(i).padStart(5, '0')}-of-${count}.${kind}`;
      const shard = await sibling(other, 'follow');
      if (!shard) throw missingShard(bytes, other);
      opened.push(
        await openSafetensors(shard, signal).catch(async (error: unknown) => {
          await shard.close();
          throw error;
        }),
      );
    }
    return joinSources(bytes.name, opened);
  } catch (error) {
    // The first is the caller's to close.
    await Promise.all(opened.slice(1).map((shard) => shard.close()));
    throw error;
  }
}

async function openIndex(bytes: ByteSource, sibling: Sibling, signal: AbortSignal | undefined): Promise<WeightSource> {
  const open = async (name: string) => {
    // The index names it: where that may lead is for the place to say.
    const shard = await sibling(name);
    if (shard) return shard;
    throw missingShard(bytes, name);
  };
  return openShardedSafetensors(await readJson(bytes, 'weights-invalid', signal), open, bytes.name, signal);
}

function missingShard(bytes: ByteSource, name: string): KontextError {
  const folder = bytes.name.slice(0, -nameOf(bytes).length);
  return new KontextError(
    'weights-invalid',
    `${nameOf(bytes)} belongs to several files, and there is no ${name} beside it. Was the model downloaded completely?`,
    { file: name, folder },
  );
}

/** Without folders and without a URL's query. */
const nameOf = ({ name }: ByteSource): string => /[^\\/]*$/.exec(name.replace(/[?#].*$/, ''))![0];

/** More are no network of FLUX's. */
const MAX_SHARDS = 1000;

/**
 * The network of a file that is to be `part`, under its original names.
 *
 * @throws KontextError `weights-invalid` naming file and part, and what the file is instead
 */
export function partOfFile({ source, identity }: WeightsFile, part: PartName): WeightSource {
  const found = identity.unusable ? undefined : findNetworks(source.tensors.keys()).get(part);
  if (found) return networkView(source, found);
  throw notThePart(source.label, part, identity);
}

/** "this is X; our product needs Y, for example Z" */
export function notThePart(file: string, part: PartName, { what, kind, advice }: Identity): KontextError {
  const { role, needs, example } = PARTS[part];
  const instead = advice === undefined ? '' : ` ${advice}.`;
  return new KontextError(
    'weights-invalid',
    `${file} is ${what}. What is needed as the ${role} is ${needs}, for example ${example}.${instead}`,
    { file, part, kind },
  );
}
