// Tensors that lie at known places of one file: what every container comes down to once its header is read.

import { KontextError } from '../../errors.ts';
import type { ByteSource } from '../bytes.ts';
import { type SourceTensor, sourceTensor, type WeightSource } from '../source.ts';

export interface PlacedTensor extends SourceTensor {
  /** Of its first byte in the file. */
  offset: number;
}

/** Gaps up to this are read with what lies around them: a request costs more than these bytes. */
const GAP_BYTES = 64 * 2 ** 10;

/** A source over checked places. */
export function placedSource(
  bytes: ByteSource,
  tensors: ReadonlyMap<string, PlacedTensor>,
  metadata: Readonly<Record<string, string>> = {},
): WeightSource {
  return {
    label: bytes.name,
    tensors,
    metadata,
    async read(name, start, end, signal) {
      const tensor = sourceTensor({ label: bytes.name, tensors }, name) as PlacedTensor;
      if (start < 0 || end < start || end > tensor.bytes) {
        throw new KontextError(
          'weights-invalid',
          `${bytes.name}: bytes ${start} to ${end} are outside tensor "${name}" of ${tensor.bytes} bytes.`,
          { file: bytes.name, tensor: name },
        );
      }
      return bytes.read(tensor.offset + start, tensor.offset + end, signal);
    },
    async readSmall(names, signal) {
      const wanted = names
        .map((name) => ({ name, ...(sourceTensor({ label: bytes.name, tensors }, name) as PlacedTensor) }))
        .sort((a, b) => a.offset - b.offset);
      const found = new Map<string, Uint8Array>();
      for (let i = 0; i < wanted.length; ) {
        const start = wanted[i]!.offset;
        let end = start + wanted[i]!.bytes;
        let last = i + 1;
        for (; last < wanted.length && wanted[last]!.offset - end <= GAP_BYTES; last++) {
          end = wanted[last]!.offset + wanted[last]!.bytes;
        }
        const data = await bytes.read(start, end, signal);
        for (; i < last; i++) {
          const { name, offset, bytes: length } = wanted[i]!;
          found.set(name, data.subarray(offset - start, offset - start + length));
        }
      }
      return found;
    },
    close: () => bytes.close(),
  };
}

/** Tensors of several files as one source; a name in two files is an error. */
export function joinSources(label: string, sources: readonly WeightSource[]): WeightSource {
  const owners = new Map<string, WeightSource>();
  const tensors = new Map<string, SourceTensor>();
  for (const source of sources) {
    for (const [name, tensor] of source.tensors) {
      if (owners.has(name)) {
        throw new KontextError(
          'weights-invalid',
          `${label}: both ${owners.get(name)!.label} and ${source.label} hold "${name}". Are they parts of one file?`,
          { tensor: name, file: label },
        );
      }
      owners.set(name, source);
      tensors.set(name, tensor);
    }
  }
  return {
    label,
    tensors,
    metadata: sources[0]?.metadata ?? {},
    async read(name, start, end, signal) {
      sourceTensor({ label, tensors }, name);
      return owners.get(name)!.read(name, start, end, signal);
    },
    async readSmall(names, signal) {
      const found = new Map<string, Uint8Array>();
      for (const source of sources) {
        const own = names.filter((name) => owners.get(name) === source);
        if (own.length > 0) for (const [name, data] of await readSmall(source, own, signal)) found.set(name, data);
      }
      return found;
    },
    close: async () => {
      await Promise.all(sources.map((source) => source.close()));
    },
  };
}

/** Whole tensors of a few bytes each (scales, descriptions), neighbours with one read. */
export async function readSmall(
  source: WeightSource,
  names: readonly string[],
  signal?: AbortSignal,
): Promise<Map<string, Uint8Array>> {
  if (source.readSmall) return source.readSmall(names, signal);
  const found = new Map<string, Uint8Array>();
  for (const name of names) found.set(name, await source.read(name, 0, sourceTensor(source, name).bytes, signal));
  return found;
}
