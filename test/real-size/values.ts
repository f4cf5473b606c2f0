// The values of a FLUX.1 Kontext checkpoint of full size, computed when they are read: no disk, no download.
//
// A matrix value is ±code · 2^−s. The codes −8…7 come from a hash of the position in a pool of 131071 blocks of 32, −8 first in each
// block, which also has a sign; a tensor starts in the pool at a block given by the hash of its name, and wraps. So float32,
// bfloat16, float16 and ggml's Q4_0 hold every value exactly, and sums do not drift. The exponents give outputs of about unit size.
// Norms are 1, biases 0.

/** Prime, so that no two rows of a matrix are alike. */
const BLOCKS = 131071;
export const POOL = BLOCKS * 32;

/** murmur3's finisher. */
function mix(x: number): number {
  let h = Math.imul(x ^ (x >>> 16), 0x85ebca6b);
  h = Math.imul(h ^ (h >>> 13), 0xc2b2ae35);
  return (h ^ (h >>> 16)) >>> 0;
}

/** FNV-1a over the name's characters, mixed. */
function nameHash(name: string): number {
  let hash = 2166136261;
  for (let i = 0; i < name.length; i++) hash = Math.imul(hash ^ name.charCodeAt(i), 16777619);
  return mix(hash >>> 0);
}

/** The s of 2^−s. Modulation is smaller, and T5's queries, whose attention has no 1/√d. */
export function exponentOf(name: string, shape: readonly number[]): number {
  if (/embed_tokens|shared\.weight|token_embedding|position_embedding|relative_attention_bias/.test(name)) return 3;
  const fanIn = shape.slice(1).reduce((a, b) => a * b, 1);
  let s = Math.round(Math.log2(4.61 * Math.sqrt(fanIn)));
  if (/_mod\.lin|modulation\.lin|adaLN/.test(name)) s += 2;
  if (/SelfAttention\.q/.test(name)) s += 3;
  return s;
}

/** Where in the pool a tensor's first value is. */
export const startOf = (name: string): number => (nameHash(name) % BLOCKS) * 32;

/** Of the value at a place of the pool: 0 … 15, for −8 … 7. */
export const codeAt = (at: number): number => (at % 32 === 0 ? 0 : mix(at) >>> 28);

/** Whether a block's values are negated. */
export const isNegative = (block: number): boolean => (mix(0x51ed270b + block) & 1) === 1;

export function isScale(name: string): boolean {
  return /(norm|scale|layer_norm)[^.]*\.?(weight|scale)$|norm.*\.weight$|\.scale$/.test(name);
}

const pools = new Map<number, Uint16Array>();

/** The pool in bfloat16 for an exponent; a few are kept, because tensors of one block of the model differ in theirs. */
function bfloat16Pool(s: number): Uint16Array {
  let pool = pools.get(s);
  if (pool) return pool;
  pool = new Uint16Array(POOL);
  const float = new Float32Array(1);
  const bits = new Uint32Array(float.buffer);
  const table = Uint16Array.from({ length: 16 }, (_, code) => {
    float[0] = (code - 8) * 2 ** -s;
    return bits[0]! >>> 16;
  });
  for (let at = 0; at < POOL; at++) pool[at] = table[codeAt(at)]! ^ (isNegative(at >>> 5) ? 0x8000 : 0);
  if (pools.size > 3) pools.clear();
  pools.set(s, pool);
  return pool;
}

/** Elements `[start, end)` of a tensor in bfloat16. */
export function bfloat16Values(name: string, shape: readonly number[], start: number, end: number): Uint16Array {
  const values = new Uint16Array(end - start);
  if (shape.length === 1) return isScale(name) ? values.fill(0x3f80) : values;
  const pool = bfloat16Pool(exponentOf(name, shape));
  let at = (startOf(name) + start) % POOL;
  for (let done = 0; done < values.length; ) {
    const run = Math.min(values.length - done, POOL - at);
    values.set(pool.subarray(at, at + run), done);
    done += run;
    at = 0;
  }
  return values;
}

let blocks: Uint8Array | undefined;

/** Blocks `[start, end)` of a matrix as ggml's Q4_0: 18 bytes of 32 values, a float16 scale and nibbles, exact. */
export function q4Blocks(name: string, shape: readonly number[], start: number, end: number): Uint8Array {
  if (!blocks) {
    blocks = new Uint8Array(BLOCKS * 18);
    for (let block = 0; block < BLOCKS; block++) {
      for (let i = 0; i < 16; i++) {
        blocks[block * 18 + 2 + i] = codeAt(block * 32 + i) | (codeAt(block * 32 + 16 + i) << 4);
      }
    }
  }
  const bytes = new Uint8Array((end - start) * 18);
  const first = startOf(name) / 32;
  // 2^−s as float16: the exponent field is 15 − s, which is positive for every matrix here.
  const exponent = (15 - exponentOf(name, shape)) << 10;
  for (let i = 0; i < end - start; i++) {
    const block = (first + start + i) % BLOCKS;
    bytes.set(blocks.subarray(block * 18, block * 18 + 18), i * 18);
    const scale = exponent | (isNegative(block) ? 0x8000 : 0);
    bytes[i * 18] = scale & 255;
    bytes[i * 18 + 1] = scale >> 8;
  }
  return bytes;
}
