// Opens one file of weights, whatever its name says: safetensors or GGUF, with scales attached; everything else is named.
import { KontextError } from '../../../runtime/src/errors.ts';
import type { ByteSource } from '../../../runtime/src/weights/bytes.ts';
import { CONTAINER_ADVICE, identifyContainer } from '../../../runtime/src/weights/files/identify.ts';
import { openSafetensors } from '../../../runtime/src/weights/files/safetensors.ts';
import { findNetworks, networkView, type NetworkName as PartName } from '../../../runtime/src/weights/naming/parts.ts';
import { withScales } from '../../../runtime/src/weights/naming/scaled.ts';
import type { WeightSource } from '../../../runtime/src/weights/source.ts';
import { type Identity, identifyModel } from './identify.ts';

/** An open file and what it is. */
export interface WeightsFile {
  source: WeightSource;
  identity: Identity;
}

/** Gives another file of the same folder, for GGUFs that were split. */
export type Sibling = (name: string) => Promise<ByteSource | undefined>;

/**
 * The tensors of a file. `bytes` are closed when it throws, else with the result's source.
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
    if (container !== 'safetensors' && container !== 'gguf') {
      throw new KontextError('weights-invalid', `${bytes.name} ${CONTAINER_ADVICE[container]}.`, {
        file: bytes.name,
        container,
      });
    }
    const source = container === 'gguf' ? await openGguf(bytes, signal, sibling) : await openSafetensors(bytes, signal);
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
  signal: AbortSignal | undefined,
  sibling: Sibling | undefined,
): Promise<WeightSource> {
  // Few pages open one: its reader and its blocks are a chunk of their own.
  const { openSplitGguf } = await import('../../../runtime/src/weights/files/gguf.ts');
  return openSplitGguf(bytes, sibling, signal);
}

/** What each part is called in messages, and a file that is one. */
export const PARTS: Record<PartName, { role: string; needs: string; example: string }> = {
  transformer: {
    role: 'transformer',
    needs: 'the transformer of FLUX.1 Kontext [dev]',
    example: 'flux1-kontext-dev.safetensors',
  },
  vae: { role: 'autoencoder', needs: 'FLUX.1’s autoencoder', example: 'ae.safetensors' },
  clip: { role: 'CLIP text encoder', needs: 'the text encoder of CLIP-L', example: 'clip_l.safetensors' },
  t5: { role: 'T5 text encoder', needs: 'the encoder of T5 XXL v1.1', example: 't5xxl_fp16.safetensors' },
};

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
