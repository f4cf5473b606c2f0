// Rows of a large table as float32 on the CPU, read by range and remembered.
// Token embeddings of T5-XXL fill 251 MiB: over a default binding, and a prompt needs a hundred rows of them.

import { KontextError } from '../errors.ts';
import { halfToFloat } from '../half.ts';
import { DTYPE_BYTES, elementCount, sourceTensor, type WeightSource } from './source.ts';

/** Rows kept: prompts of one session repeat their words, and the pad token is in all of them. */
const CACHE_BYTES = 32 * 2 ** 20;

export class RowReader {
  /** In order of last use. */
  private readonly cache = new Map<string, Float32Array>();
  private cachedBytes = 0;

  constructor(private readonly source: WeightSource) {}

  async rows(name: string, ids: ArrayLike<number>, signal?: AbortSignal): Promise<Float32Array<ArrayBuffer>> {
    const tensor = sourceTensor(this.source, name);
    const count = tensor.shape[0] ?? 0;
    const cols = elementCount(tensor.shape.slice(1));
    const { dtype } = tensor;
    if (dtype !== 'F32' && dtype !== 'F16' && dtype !== 'BF16') {
      throw new KontextError('weights-invalid', `${this.source.label}: "${name}" is ${dtype}, not F32, F16 or BF16.`, {
        tensor: name,
      });
    }
    const wanted = [...new Set(Array.from(ids))];
    const outside = wanted.find((id) => !Number.isInteger(id) || id < 0 || id >= count);
    if (outside !== undefined) {
      throw new KontextError('invalid-request', `"${name}" has ${count} rows; there is no row ${outside}.`, {
        row: outside,
      });
    }
    const rowBytes = cols * DTYPE_BYTES[dtype];
    const found = new Map<number, Float32Array>();
    await Promise.all(
      wanted.map(async (id) => {
        const key = `${name}\n${id}`;
        let row = this.cache.get(key);
        if (!row) {
          row = widen(await this.source.read(name, id * rowBytes, (id + 1) * rowBytes, signal), dtype);
        }
        found.set(id, row);
        this.remember(key, row);
      }),
    );
    const out = new Float32Array(ids.length * cols);
    for (let i = 0; i < ids.length; i++) out.set(found.get(ids[i]!)!, i * cols);
    return out;
  }

  private remember(key: string, row: Float32Array): void {
    if (this.cache.delete(key)) this.cachedBytes -= row.byteLength;
    this.cache.set(key, row);
    this.cachedBytes += row.byteLength;
    for (const [oldest, { byteLength }] of this.cache) {
      if (this.cachedBytes <= CACHE_BYTES) break;
      this.cache.delete(oldest);
      this.cachedBytes -= byteLength;
    }
  }
}

/** `bytes` own their memory, so they may be viewed in place. */
function widen(bytes: Uint8Array<ArrayBuffer>, dtype: 'F32' | 'F16' | 'BF16'): Float32Array {
  if (dtype === 'F32') return new Float32Array(bytes.buffer, bytes.byteOffset, bytes.length / 4);
  const bits = new Uint16Array(bytes.buffer, bytes.byteOffset, bytes.length / 2);
  if (dtype === 'F16') return Float32Array.from(bits, halfToFloat);
  return new Float32Array(Uint32Array.from(bits, (b) => b << 16).buffer);
}
