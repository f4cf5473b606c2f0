// Changes inputs as damage and malice would: bytes flipped, cut, repeated; values of JSON replaced, removed, nested.
// Every choice comes from one seeded generator, so that input i of seed s is the same on every machine.

/** Numbers in [0, 1), a new sequence for each seed (Mulberry32, Tommy Ettinger 2017, public domain). */
export function randomOf(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = state;
    t = Math.imul(t ^ (t >>> 15), t | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
}

export type Random = () => number;

export const pick = <T>(random: Random, from: readonly T[]): T => from[Math.floor(random() * from.length)]!;
const below = (random: Random, n: number): number => Math.floor(random() * n);

/** Whole numbers where readers break: ends of ranges, signs, off by one. */
export const EDGES = [0, 1, 2, 7, 8, 9, 127, 128, 255, 256, 65535, 65536, 2 ** 31 - 1, 2 ** 31, 2 ** 32 - 1];

/** One to four changes. */
export function mutateBytes(random: Random, seed: Uint8Array): Uint8Array<ArrayBuffer> {
  let bytes = new Uint8Array(seed);
  for (let changes = 1 + below(random, 4); changes > 0; changes--) {
    const at = below(random, Math.max(1, bytes.length));
    const length = 1 + below(random, 16);
    switch (below(random, 7)) {
      case 0:
        if (bytes.length > 0) bytes[at] = bytes[at]! ^ (1 << below(random, 8));
        break;
      case 1:
        if (bytes.length > 0) bytes[at] = pick(random, EDGES) & 255;
        break;
      case 2:
        bytes = bytes.slice(0, at);
        break;
      case 3:
        bytes = joined(bytes.subarray(0, at), bytes.subarray(at + length));
        break;
      case 4:
        bytes = joined(bytes.subarray(0, at), bytes.subarray(at, at + length), bytes.subarray(at));
        break;
      case 5:
        if (bytes.length >= at + 4) new DataView(bytes.buffer).setUint32(at, pick(random, EDGES), random() < 0.5);
        break;
      default:
        bytes = joined(
          bytes.subarray(0, at),
          Uint8Array.from({ length }, () => below(random, 256)),
          bytes.subarray(at),
        );
    }
  }
  return bytes;
}

function joined(...parts: Uint8Array[]): Uint8Array<ArrayBuffer> {
  const out = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    out.set(part, at);
    at += part.length;
  }
  return out;
}

/** What a field can hold that nobody expects. JSON's own values first; the rest comes from callers only. */
export const ODD_JSON: readonly unknown[] = [
  null,
  true,
  '',
  'x',
  '__proto__',
  '../../etc/passwd',
  'ⅷ\u0000',
  'x'.repeat(300),
  0,
  -0,
  -1,
  0.5,
  1e308,
  -1e308,
  1e-320,
  2 ** 31,
  2 ** 32,
  2 ** 53,
  2 ** 53 - 1,
  -(2 ** 63),
  [],
  {},
  [[]],
  [0],
  [1, 2, 3, 4, 5, 6, 7, 8, 9],
  { length: 3 },
  { toString: 1 },
];

export const ODD_VALUES: readonly unknown[] = [
  ...ODD_JSON,
  undefined,
  Number.NaN,
  Number.POSITIVE_INFINITY,
  Number.NEGATIVE_INFINITY,
  7n,
  Symbol('odd'),
  () => 1,
  new Date(0),
  /x/,
  new Map(),
  Object.create(null),
  new Uint8Array(3),
  new Float64Array([Number.NaN]),
  new ArrayBuffer(5),
  new Error('odd'),
  Promise.resolve(1),
];

/** One of its own, because later changes may go into it. */
const oddJson = (random: Random): unknown => structuredClone(pick(random, ODD_JSON));

/** A copy of a JSON value with one to three nodes changed. */
export function mutateJson(random: Random, seedText: string): unknown {
  let root: unknown = JSON.parse(seedText);
  for (let changes = 1 + below(random, 3); changes > 0; changes--) {
    const places = placesIn(root);
    if (places.length === 0) return oddJson(random);
    const { parent, key } = pick(random, places);
    const holder = parent as Record<string | number, unknown>;
    switch (below(random, 6)) {
      case 0:
        if (Array.isArray(parent)) parent.splice(key as number, 1);
        else delete holder[key];
        break;
      case 1:
        if (Array.isArray(parent)) parent.push(structuredClone(holder[key]));
        else holder[`${key}${pick(random, ['', '_', '2'])}`] = structuredClone(pick(random, places).parent);
        break;
      case 2:
        if (typeof holder[key] === 'number')
          holder[key] = pick(random, [-1, 0, 0.5, 1, 2, 1e9]) * (holder[key] as number);
        else holder[key] = oddJson(random);
        break;
      case 3:
        root = random() < 0.05 ? oddJson(random) : root;
        break;
      default:
        holder[key] = oddJson(random);
    }
  }
  return root;
}

function placesIn(value: unknown, found: { parent: object; key: string | number }[] = []) {
  if (typeof value !== 'object' || value === null) return found;
  for (const key of Array.isArray(value) ? value.keys() : Object.keys(value)) {
    found.push({ parent: value, key });
    placesIn((value as Record<string | number, unknown>)[key], found);
  }
  return found;
}
