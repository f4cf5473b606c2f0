// Reads GGUF, versions 2 and 3: one file, or the parts it was split into.
// The header is untrusted input: counts, lengths, types, alignment and offsets are checked before a byte of data is read.
// Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md

import { KontextError } from '../../errors.ts';
import type { ByteSource } from '../bytes.ts';
import { elementCount, type WeightSource } from '../source.ts';
import { GGML_TYPES } from '../types/ggml.ts';
import { joinSources, type PlacedTensor, placedSource } from './placed.ts';

/** Names, elements and bytes of a block by ggml's numbers. What is in no list of source types can lie in a file, but not become a weight. */
const TYPE_IDS: Readonly<Record<number, readonly [name: string, elements: number, bytes: number]>> = {
  0: ['F32', 1, 4],
  1: ['F16', 1, 2],
  2: ['Q4_0', 32, 18],
  3: ['Q4_1', 32, 20],
  6: ['Q5_0', 32, 22],
  7: ['Q5_1', 32, 24],
  8: ['Q8_0', 32, 34],
  9: ['Q8_1', 32, 36],
  10: ['Q2_K', 256, 84],
  11: ['Q3_K', 256, 110],
  12: ['Q4_K', 256, 144],
  13: ['Q5_K', 256, 176],
  14: ['Q6_K', 256, 210],
  15: ['Q8_K', 256, 292],
  16: ['IQ2_XXS', 256, 66],
  17: ['IQ2_XS', 256, 74],
  18: ['IQ3_XXS', 256, 98],
  19: ['IQ1_S', 256, 50],
  20: ['IQ4_NL', 32, 18],
  21: ['IQ3_S', 256, 110],
  22: ['IQ2_S', 256, 82],
  23: ['IQ4_XS', 256, 136],
  24: ['I8', 1, 1],
  25: ['I16', 1, 2],
  26: ['I32', 1, 4],
  27: ['I64', 1, 8],
  28: ['F64', 1, 8],
  29: ['IQ1_M', 256, 56],
  30: ['BF16', 1, 2],
  34: ['TQ1_0', 256, 54],
  35: ['TQ2_0', 256, 66],
  39: ['MXFP4', 32, 17],
};

/** Bytes of metadata values by their type's number; 8 is a string, 9 a list. */
const VALUE_BYTES: Readonly<Record<number, number>> = {
  0: 1,
  1: 1,
  2: 2,
  3: 2,
  4: 4,
  5: 4,
  6: 4,
  7: 1,
  10: 8,
  11: 8,
  12: 8,
};
const STRING = 8;
const LIST = 9;

/** A header of FLUX's tensors takes 60 KB, a vocabulary of 32,000 words a megabyte. */
const MAX_HEADER_BYTES = 64 * 2 ** 20;
const MAX_NAME_BYTES = 65535;
/** Values longer than this are vocabularies, which nothing here reads. */
const MAX_KEPT_VALUES = 16;

export interface GgufFile {
  source: WeightSource;
  /** Which of how many, counted from 0, when the file is one of several. */
  split?: { index: number; count: number };
}

/**
 * One file.
 *
 * @throws `weights-invalid` for a header that is broken or does not fit the file, naming tensor and file
 */
export async function openGguf(bytes: ByteSource, signal?: AbortSignal): Promise<GgufFile> {
  const header = new HeaderReader(bytes, signal);
  if ((await header.u32()) !== 0x46554747) throw header.invalid('it does not start with "GGUF"');
  const version = await header.u32();
  if (version !== 2 && version !== 3) {
    const why = version === 1 ? 'convert it again with a current tool' : 'this program reads versions 2 and 3';
    const swapped = version === 0x02000000 || version === 0x03000000;
    throw header.invalid(
      swapped ? 'it is written in big-endian order, which is not supported' : `it has version ${version}; ${why}`,
    );
  }
  const tensorCount = await header.count('tensors', 24);
  const valueCount = await header.count('metadata entries', 13);
  const values = new Map<string, Value>();
  for (let i = 0; i < valueCount; i++) {
    const key = await header.text(MAX_NAME_BYTES, 'a metadata key');
    if (values.has(key)) throw header.invalid(`the metadata key "${key}" occurs twice`);
    values.set(key, await header.value(await header.u32(), key));
  }
  const alignment = values.get('general.alignment') ?? 32;
  if (typeof alignment !== 'number' || alignment < 1 || alignment > 2 ** 20 || (alignment & (alignment - 1)) !== 0) {
    throw header.invalid(`general.alignment is ${String(alignment)}, which is no power of two`);
  }
  const entries: Entry[] = [];
  const names = new Set<string>();
  for (let i = 0; i < tensorCount; i++) {
    const entry = await readEntry(header, values);
    if (names.has(entry.name)) throw header.invalid(`tensor "${entry.name}" occurs twice`, entry.name);
    names.add(entry.name);
    entries.push(entry);
  }
  const dataStart = Math.ceil(header.position / alignment) * alignment;
  const tensors = place(header, entries, dataStart, alignment);
  const metadata = Object.fromEntries(
    [...values].flatMap(([key, value]) => (value === undefined || Array.isArray(value) ? [] : [[key, String(value)]])),
  );
  const split = splitOf(values);
  return { source: placedSource(bytes, tensors, metadata), ...(split && { split }) };
}

/**
 * A file with all others it was split into (`NAME-00001-of-00003.gguf`).
 *
 * @param sibling gives a file of the same folder by name
 */
export async function openSplitGguf(
  bytes: ByteSource,
  sibling: ((name: string) => Promise<ByteSource | undefined>) | undefined,
  signal?: AbortSignal,
): Promise<WeightSource> {
  const { source, split } = await openGguf(bytes, signal);
  if (!split || split.count === 1) return source;
  const opened = [source];
  try {
    const name = bytes.name.split(/[\\/]/).at(-1)!;
    const [, stem, , digits] = /^(.*)-(\d{5})-of-(\d{5})\.gguf$/i.exec(name) ?? [];
    const missing = (what: string) =>
      new KontextError(
        'weights-invalid',
        `${bytes.name} is part ${split.index + 1} of ${split.count}, and ${what}. Put all parts into one folder, under the names they were published with.`,
        { file: bytes.name, parts: split.count },
      );
    if (stem === undefined || Number(digits) !== split.count || !sibling)
      throw missing('the others cannot be found by its name');
    for (let i = 0; i < split.count; i++) {
      if (i === split.index) continue;
      const other = `${stem}-${String(i + 1).padStart(5, '0')}-of-${digits}.gguf`;
      const part = await sibling(other);
      if (!part) throw missing(`${other} is not beside it`);
      const file = await openGguf(part, signal).catch(async (error: unknown) => {
        await part.close();
        throw error;
      });
      opened.push(file.source);
      if (file.split?.index !== i || file.split.count !== split.count) throw missing(`${other} is of another file`);
    }
    return joinSources(bytes.name, opened);
  } catch (error) {
    await Promise.all(opened.map((part) => part.close()));
    throw error;
  }
}

type Value = string | number | boolean | number[] | undefined;

interface Entry {
  name: string;
  /** Fastest axis last, as everywhere but in the file. */
  shape: number[];
  type: number;
  /** From the start of the data. */
  offset: number;
}

async function readEntry(header: HeaderReader, values: ReadonlyMap<string, Value>): Promise<Entry> {
  const name = await header.text(MAX_NAME_BYTES, 'a tensor’s name');
  const axes = await header.u32();
  if (axes > 8) throw header.invalid(`tensor "${name}" has ${axes} axes`, name);
  const shape: number[] = [];
  for (let axis = 0; axis < axes; axis++) shape.unshift(await header.u64(`the shape of tensor "${name}"`));
  const elements = elementCount(shape);
  if (!Number.isSafeInteger(elements) || elements === 0) {
    throw header.invalid(`tensor "${name}" has the shape [${shape.join(', ')}]`, name);
  }
  const type = await header.u32();
  const offset = await header.u64(`the offset of tensor "${name}"`);
  const known = TYPE_IDS[type];
  if (known && (shape.at(-1) ?? 1) % known[1] !== 0) {
    throw header.invalid(
      `tensor "${name}" (${known[0]} [${shape.join(', ')}]) has rows that are no whole blocks of ${known[1]}`,
      name,
    );
  }
  // Converters keep shapes that ggml cannot express beside the tensor.
  const original = values.get(`comfy.gguf.orig_shape.${name}`);
  if (original === undefined) return { name, shape, type, offset };
  if (!Array.isArray(original) || elementCount(original) !== elements || original.some((n) => n < 1)) {
    throw header.invalid(`the original shape of tensor "${name}" does not have its ${elements} elements`, name);
  }
  return { name, shape: original, type, offset };
}

/** Sizes and places, checked against the file and each other. Gaps are allowed, because tensors are padded. */
function place(
  header: HeaderReader,
  entries: Entry[],
  dataStart: number,
  alignment: number,
): Map<string, PlacedTensor> {
  const { size } = header.bytes;
  const sorted = [...entries].sort((a, b) => a.offset - b.offset);
  const placed = new Map<string, PlacedTensor>();
  let end = 0;
  sorted.forEach(({ name, shape, type, offset }, i) => {
    const known = TYPE_IDS[type];
    const next = sorted[i + 1]?.offset ?? size - dataStart;
    // A type that is newer than this program: its bytes reach to the next tensor.
    const bytes = known ? (elementCount(shape) / known[1]) * known[2] : Math.max(0, next - offset);
    const dtype = known?.[0] ?? `ggml type ${type}`;
    if (offset % alignment !== 0)
      throw header.invalid(`tensor "${name}" starts at ${offset}, off the alignment of ${alignment}`, name);
    if (offset < end) throw header.invalid(`tensor "${name}" overlaps another`, name);
    if (!Number.isSafeInteger(bytes) || dataStart + offset + bytes > size) {
      throw header.invalid(
        `tensor "${name}" (${dtype} [${shape.join(', ')}]) ends at byte ${dataStart + offset + bytes} of ${size}: the file is truncated. Download it again`,
        name,
      );
    }
    end = offset + bytes;
    const reader = GGML_TYPES[dtype];
    placed.set(name, { dtype, ...(reader && { type: reader }), shape, bytes, offset: dataStart + offset });
  });
  return new Map(entries.map(({ name }) => [name, placed.get(name)!]));
}

function splitOf(values: ReadonlyMap<string, Value>): GgufFile['split'] {
  const [index, count] = [values.get('split.no'), values.get('split.count')];
  if (typeof index !== 'number' || typeof count !== 'number') return undefined;
  return index >= 0 && index < count && count <= 1000 ? { index, count } : undefined;
}

/** Reads the header forwards, in growing pieces, because nothing says how long it is. */
class HeaderReader {
  position = 0;
  private data = new DataView(new ArrayBuffer(0));
  private readonly decoder = new TextDecoder();

  constructor(
    readonly bytes: ByteSource,
    private readonly signal: AbortSignal | undefined,
  ) {}

  invalid(problem: string, tensor?: string): KontextError {
    return new KontextError('weights-invalid', `${this.bytes.name} is not a usable GGUF file: ${problem}.`, {
      file: this.bytes.name,
      ...(tensor === undefined ? {} : { tensor }),
    });
  }

  async u32(): Promise<number> {
    const at = await this.take(4);
    return this.data.getUint32(at, true);
  }

  async u64(what: string): Promise<number> {
    const at = await this.take(8);
    const value = this.data.getBigUint64(at, true);
    if (value > BigInt(Number.MAX_SAFE_INTEGER)) throw this.invalid(`${what} is ${value}`);
    return Number(value);
  }

  /** A count of things that take at least `least` bytes each in what is left of the file. */
  async count(what: string, least: number): Promise<number> {
    const value = await this.u64(`the number of ${what}`);
    if (value * least > this.bytes.size - this.position || value * least > MAX_HEADER_BYTES) {
      throw this.invalid(`it would have ${value} ${what}, more than fit into ${this.bytes.size} bytes`);
    }
    return value;
  }

  async text(most: number, what: string): Promise<string> {
    const length = await this.count(`bytes in ${what}`, 1);
    if (length > most) throw this.invalid(`${what} is ${length} bytes long`);
    const at = await this.take(length);
    return this.decoder.decode(new Uint8Array(this.data.buffer, at, length));
  }

  /** A metadata value; long lists are passed over. */
  async value(type: number, key: string, depth = 0): Promise<Value> {
    if (type === STRING) return this.text(MAX_HEADER_BYTES, `the value of "${key}"`);
    if (type === LIST) {
      const items = await this.u32();
      const least = VALUE_BYTES[items] ?? 8;
      const count = await this.count(`values in "${key}"`, least);
      if (depth > 2) throw this.invalid(`the lists of "${key}" are nested too deeply`);
      if (VALUE_BYTES[items] !== undefined && count > MAX_KEPT_VALUES) {
        await this.take(count * least);
        return undefined;
      }
      const list: Value[] = [];
      for (let i = 0; i < count; i++) {
        const value = await this.value(items, key, depth + 1);
        if (i < MAX_KEPT_VALUES) list.push(value);
      }
      return list.every((value) => typeof value === 'number') ? list : undefined;
    }
    const size = VALUE_BYTES[type];
    if (size === undefined) throw this.invalid(`the value of "${key}" has the unknown type ${type}`);
    const at = await this.take(size);
    const { data } = this;
    switch (type) {
      case 0:
        return data.getUint8(at);
      case 1:
        return data.getInt8(at);
      case 2:
        return data.getUint16(at, true);
      case 3:
        return data.getInt16(at, true);
      case 4:
        return data.getUint32(at, true);
      case 5:
        return data.getInt32(at, true);
      case 6:
        return data.getFloat32(at, true);
      case 7:
        return data.getUint8(at) !== 0;
      case 10:
        return Number(data.getBigUint64(at, true));
      case 11:
        return Number(data.getBigInt64(at, true));
      default:
        return data.getFloat64(at, true);
    }
  }

  /** Moves on by `count` bytes. @returns where they start in `data` */
  private async take(count: number): Promise<number> {
    const start = this.position;
    const end = start + count;
    if (end > this.bytes.size)
      throw this.invalid(
        `its header goes on after its ${this.bytes.size} bytes: the file is truncated. Download it again`,
      );
    if (end > MAX_HEADER_BYTES) throw this.invalid(`its header is longer than ${MAX_HEADER_BYTES} bytes`);
    if (end > this.data.byteLength) {
      const length = Math.min(this.bytes.size, Math.max(end, 2 * this.data.byteLength, 256 * 2 ** 10));
      const grown = new Uint8Array(length);
      grown.set(new Uint8Array(this.data.buffer));
      grown.set(await this.bytes.read(this.data.byteLength, length, this.signal), this.data.byteLength);
      this.data = new DataView(grown.buffer);
    }
    this.position = end;
    return start;
  }
}
