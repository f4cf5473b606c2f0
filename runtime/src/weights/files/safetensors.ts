// Reads safetensors: one file, or the shards that an index lists.
// The header is untrusted input: every offset and shape is checked before a byte of data is read.
// Format: https://github.com/huggingface/safetensors (8 bytes of header length, JSON header, data).

import { KontextError } from '../../errors.ts';
import { duplicateKey, jsonProblem } from '../../json.ts';
import type { ByteSource } from '../bytes.ts';
import { elementCount, type SourceTensor, sourceTensor, type WeightSource } from '../source.ts';
import { FLOAT_TYPES } from '../types/floats.ts';
import { type PlacedTensor, placedSource, readSmall } from './placed.ts';

/** A tenth of the reference implementation's limit; FLUX.1's whole transformer has 90 kB. */
const MAX_HEADER_BYTES = 10_000_000;
/** FLUX.1's transformer has 1,442 under its longest naming. */
const MAX_TENSORS = 100_000;
const MAX_AXES = 16;

/** Bytes an element of the types takes that are no weights but occur beside them. A type in no list is taken at its word. */
const OTHER_BYTES: Readonly<Record<string, number>> = {
  F64: 8,
  I64: 8,
  I32: 4,
  I16: 2,
  I8: 1,
  U64: 8,
  U32: 4,
  U16: 2,
  U8: 1,
  BOOL: 1,
};

/**
 * A single file.
 *
 * @throws `weights-invalid` for a header that is broken or does not fit the file, naming tensor and file
 */
export async function openSafetensors(bytes: ByteSource, signal?: AbortSignal): Promise<WeightSource> {
  const { tensors, metadata } = await readHeader(bytes, signal);
  return placedSource(bytes, tensors, metadata);
}

/**
 * The shards of an index file (`*.safetensors.index.json`); each is opened when first read, its header checked then.
 *
 * @param index the parsed index, untrusted
 * @param open gives a shard's bytes by its file name in the index
 */
export async function openShardedSafetensors(
  index: unknown,
  open: (file: string) => Promise<ByteSource>,
  label = 'the index',
  signal?: AbortSignal,
): Promise<WeightSource> {
  const map = (index as { weight_map?: unknown } | null)?.weight_map;
  if (typeof map !== 'object' || map === null || !Object.values(map).every((file) => typeof file === 'string')) {
    throw new KontextError(
      'weights-invalid',
      `${label} is not a safetensors index: it has no "weight_map" of file names.`,
      {
        file: label,
      },
    );
  }
  const weightMap = map as Record<string, string>;
  const shards = new Map<string, WeightSource>();
  const tensors = new Map<string, SourceTensor>();
  const close = async () => {
    await Promise.all([...shards.values()].map((shard) => shard.close()));
  };
  try {
    for (const file of new Set(Object.values(weightMap))) {
      shards.set(file, await openSafetensors(await open(file), signal));
    }
    for (const [name, file] of Object.entries(weightMap)) tensors.set(name, sourceTensor(shards.get(file)!, name));
  } catch (error) {
    await close();
    throw error;
  }
  const source: WeightSource = {
    label,
    tensors,
    async read(name, start, end, readSignal) {
      sourceTensor(source, name);
      return shards.get(weightMap[name]!)!.read(name, start, end, readSignal);
    },
    metadata: [...shards.values()][0]?.metadata ?? {},
    async readSmall(names, readSignal) {
      const found = new Map<string, Uint8Array>();
      for (const [file, shard] of shards) {
        const own = names.filter((name) => weightMap[name] === file);
        if (own.length === 0) continue;
        for (const [name, data] of await readSmall(shard, own, readSignal)) found.set(name, data);
      }
      return found;
    },
    close,
  };
  return source;
}

interface Header {
  tensors: Map<string, PlacedTensor>;
  metadata: Record<string, string>;
}

async function readHeader(bytes: ByteSource, signal: AbortSignal | undefined): Promise<Header> {
  if (bytes.size < 8) throw invalid(bytes, `it has ${bytes.size} bytes, too few for a header`);
  const prefix = await bytes.read(0, 8, signal);
  const length = new DataView(prefix.buffer).getBigUint64(0, true);
  if (length > BigInt(MAX_HEADER_BYTES) || Number(length) > bytes.size - 8) {
    throw invalid(bytes, `its header would be ${length} bytes long, the file has ${bytes.size}`);
  }
  const dataStart = 8 + Number(length);
  const header = parseHeader(bytes, await bytes.read(8, dataStart, signal));
  const count = Object.keys(header).length;
  if (count > MAX_TENSORS) throw invalid(bytes, `it names ${count} tensors, more than ${MAX_TENSORS}`);
  const tensors = new Map<string, PlacedTensor>();
  for (const [name, entry] of Object.entries(header)) {
    if (name === '__metadata__') continue;
    tensors.set(name, placeTensor(bytes, name, entry, dataStart));
  }
  checkLayout(bytes, tensors, dataStart);
  return { tensors, metadata: textEntries((header as Record<string, unknown>).__metadata__) };
}

/** The format allows text only; anything else is left out. */
function textEntries(value: unknown): Record<string, string> {
  if (typeof value !== 'object' || value === null) return {};
  return Object.fromEntries(Object.entries(value).filter(([, text]) => typeof text === 'string'));
}

/** As strict as the reference implementation: UTF-8 that starts with a brace, and no name twice. */
function parseHeader(bytes: ByteSource, data: Uint8Array): Record<string, unknown> {
  if (data[0] !== 0x7b) throw invalid(bytes, 'its header does not start with {');
  let text: string;
  try {
    text = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(data);
  } catch {
    throw invalid(bytes, 'its header is not UTF-8');
  }
  let header: unknown;
  try {
    header = JSON.parse(text);
  } catch (error) {
    throw invalid(bytes, `its header is not JSON: ${jsonProblem(error)}`);
  }
  const twice = duplicateKey(text);
  if (twice !== undefined) throw invalid(bytes, `its header has "${twice.slice(0, 200)}" twice`);
  return header as Record<string, unknown>;
}

function placeTensor(bytes: ByteSource, name: string, entry: unknown, dataStart: number): PlacedTensor {
  const { dtype, shape, data_offsets: offsets } = (entry ?? {}) as Record<string, unknown>;
  if (typeof dtype !== 'string' || dtype.length > 32) throw invalid(bytes, `tensor "${name}" has no type`, name);
  if (!isIndexArray(shape)) throw invalid(bytes, `tensor "${name}" has no valid shape`, name);
  if (!isIndexArray(offsets) || offsets.length !== 2)
    throw invalid(bytes, `tensor "${name}" has no valid data_offsets`, name);
  const [start, end] = offsets as [number, number];
  const type = Object.hasOwn(FLOAT_TYPES, dtype) ? FLOAT_TYPES[dtype] : undefined;
  const elementBytes = type?.bytes ?? (Object.hasOwn(OTHER_BYTES, dtype) ? OTHER_BYTES[dtype] : undefined);
  const size = elementBytes === undefined ? end - start : elementCount(shape) * elementBytes;
  if (end - start !== size || size < 0) {
    throw invalid(
      bytes,
      `tensor "${name}" (${dtype} [${shape.join(', ')}]) needs ${size} bytes, its range holds ${end - start}`,
      name,
    );
  }
  if (dataStart + end > bytes.size) {
    throw invalid(
      bytes,
      `tensor "${name}" ends at byte ${dataStart + end} of ${bytes.size}: the file is truncated. Download it again`,
      name,
    );
  }
  return { dtype, ...(type && { type }), shape, bytes: size, offset: dataStart + start };
}

/** The format forbids overlaps and holes; either means that names and data do not belong together. */
function checkLayout(bytes: ByteSource, tensors: Map<string, PlacedTensor>, dataStart: number): void {
  let position = dataStart;
  for (const [name, tensor] of [...tensors].sort((a, b) => a[1].offset - b[1].offset || a[1].bytes - b[1].bytes)) {
    if (tensor.offset !== position) throw invalid(bytes, `tensor "${name}" overlaps another or follows a gap`, name);
    position += tensor.bytes;
  }
  if (position !== bytes.size) throw invalid(bytes, `its tensors end at byte ${position} of ${bytes.size}`);
}

const isIndexArray = (value: unknown): value is number[] =>
  Array.isArray(value) && value.length <= MAX_AXES && value.every((n) => Number.isSafeInteger(n) && n >= 0);

function invalid(bytes: ByteSource, problem: string, tensor?: string): KontextError {
  return new KontextError('weights-invalid', `${bytes.name} is not a usable safetensors file: ${problem}.`, {
    file: bytes.name,
    ...(tensor === undefined ? {} : { tensor }),
  });
}
