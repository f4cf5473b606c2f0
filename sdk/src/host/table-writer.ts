// Writes the binary form that sdk/assembly/reader.ts and trie.ts read.
// Kept beside the builder rather than inside it: the format is one thing, the tokenizer files another.

/** A trie in level order: node 0 is the root, children of a node are neighbours sorted by label. */
export interface Trie {
  /** Byte that leads to the node; 0 for the root. */
  labels: Uint8Array;
  /** Number of children. */
  counts: Uint8Array;
  /** 1 + the value of a node where an entry ends, else 0. */
  values: Uint32Array;
}

/** Trie of the UTF-8 bytes of `entries`; of equal keys the last one counts. */
export function trieOf(entries: Iterable<readonly [key: string, value: number]>): Trie {
  const encoder = new TextEncoder();
  const keys: Uint8Array[] = [];
  const values: number[] = [];
  for (const [key, value] of new Map(entries)) {
    keys.push(encoder.encode(key));
    values.push(value);
  }
  const order = Uint32Array.from(keys.keys()).sort((a, b) => compare(keys[a]!, keys[b]!));
  const labels = [0];
  const counts = [0];
  const nodeValues = [0];
  // Level by level over ranges of sorted keys: a node's keys are neighbours, the one that ends there is the first.
  const ranges: [from: number, to: number, depth: number][] = [[0, order.length, 0]];
  for (let node = 0; node < ranges.length; node++) {
    let [from, to, depth] = ranges[node]!;
    if (from < to && keys[order[from]!]!.length === depth) nodeValues[node] = values[order[from++]!]! + 1;
    while (from < to) {
      const label = keys[order[from]!]![depth]!;
      let next = from + 1;
      while (next < to && keys[order[next]!]![depth] === label) next++;
      ranges.push([from, next, depth + 1]);
      labels.push(label);
      counts.push(0);
      nodeValues.push(0);
      counts[node]!++;
      from = next;
    }
  }
  return { labels: Uint8Array.from(labels), counts: Uint8Array.from(counts), values: Uint32Array.from(nodeValues) };
}

/** Appends to one growing buffer; {@link finish} adds the header: magic, length, checksum. */
export class TableWriter {
  #data = new Uint8Array(1 << 16);
  #length = 12;

  constructor(readonly magic: number) {}

  varint(value: number): void {
    this.#reserve(5);
    for (; value >= 128; value = Math.floor(value / 128)) this.#data[this.#length++] = (value & 127) | 128;
    this.#data[this.#length++] = value;
  }

  bytes(data: Uint8Array): void {
    this.#reserve(data.length);
    this.#data.set(data, this.#length);
    this.#length += data.length;
  }

  trie({ labels, counts, values }: Trie): void {
    this.bytes(labels);
    this.bytes(counts);
    for (const value of values) this.varint(value);
  }

  /** Bytes a score, then the scores: four where float32 holds all of them exactly. */
  scores(scores: Float64Array): void {
    const width = scores.every((score) => Math.fround(score) === score) ? 4 : 8;
    this.varint(width);
    const data = new DataView(new ArrayBuffer(width * scores.length));
    scores.forEach((score, i) => {
      if (width === 4) data.setFloat32(4 * i, score, true);
      else data.setFloat64(8 * i, score, true);
    });
    this.bytes(new Uint8Array(data.buffer));
  }

  finish(): Uint8Array<ArrayBuffer> {
    const table = this.#data.slice(0, this.#length);
    const view = new DataView(table.buffer);
    view.setUint32(0, this.magic, true);
    view.setUint32(4, table.length, true);
    view.setUint32(8, checksum(table.subarray(12)), true);
    return table;
  }

  #reserve(bytes: number): void {
    if (this.#length + bytes <= this.#data.length) return;
    const larger = new Uint8Array(2 * (this.#length + bytes));
    larger.set(this.#data);
    this.#data = larger;
  }
}

/** FNV-1a over little-endian words, the tail zero-padded; the same as in sdk/assembly/reader.ts. */
function checksum(data: Uint8Array): number {
  const view = new DataView(data.buffer, data.byteOffset, data.byteLength);
  const words = data.length & ~3;
  let hash = 0x811c9dc5;
  for (let at = 0; at < words; at += 4) hash = Math.imul(hash ^ view.getUint32(at, true), 0x01000193);
  let tail = 0;
  for (let i = 0; words + i < data.length; i++) tail |= data[words + i]! << (8 * i);
  return Math.imul(hash ^ tail, 0x01000193) >>> 0;
}

function compare(a: Uint8Array, b: Uint8Array): number {
  const shared = Math.min(a.length, b.length);
  for (let i = 0; i < shared; i++) if (a[i] !== b[i]) return a[i]! - b[i]!;
  return a.length - b.length;
}
