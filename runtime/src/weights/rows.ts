// Rows of a large table as float32 on the CPU, read by range and remembered.
// Token embeddings of T5-XXL fill 251 MiB: over a default binding, and a prompt needs a hundred rows of them.

import { KontextError } from '../errors.ts';
import { describeTensor, elementCount, partsOf, type SourceTensor, sourceTensor, type WeightSource } from './source.ts';
import { decodeBlocks } from './types/decode.ts';

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
    const wanted = [...new Set(Array.from(ids))];
    const outside = wanted.find((id) => !Number.isInteger(id) || id < 0 || id >= count);
    if (outside !== undefined) {
      throw new KontextError('invalid-request', `"${name}" has ${count} rows; there is no row ${outside}.`, {
        row: outside,
      });
    }
    const found = new Map<number, Float32Array>();
    await Promise.all(
      wanted.map(async (id) => {
        const key = `${name}\n${id}`;
        let row = this.cache.get(key);
        if (!row) {
          row = await this.read(name, tensor, id, cols, signal);
          if (!row.every(Number.isFinite)) {
            const problem = `${this.source.label}: row ${id} of "${name}" holds values that are not finite: the file is damaged. Get it again.`;
            throw new KontextError('weights-invalid', problem, {
              tensor: name,
              file: this.source.label,
              notFinite: true,
            });
          }
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

  private async read(
    name: string,
    tensor: SourceTensor,
    row: number,
    cols: number,
    signal: AbortSignal | undefined,
  ): Promise<Float32Array> {
    let firstRow = 0;
    let firstByte = 0;
    for (const part of partsOf(tensor)) {
      const rows = part.shape[0]!;
      const { type, scales } = part;
      if (row < firstRow + rows) {
        if (!type || cols % type.elements !== 0) {
          const problem = `${this.source.label}: "${name}" (${describeTensor(part)}) cannot be read row by row.`;
          throw new KontextError('weights-invalid', problem, { tensor: name });
        }
        const rowBytes = (cols / type.elements) * type.bytes;
        const start = firstByte + (row - firstRow) * rowBytes;
        const values = decodeBlocks(type, await this.source.read(name, start, start + rowBytes, signal));
        const scale = scales?.[scales.length === 1 ? 0 : row - firstRow];
        return scale === undefined ? values : values.map((value) => value * scale);
      }
      firstRow += rows;
      firstByte += part.bytes;
    }
    throw new RangeError(`row ${row} of ${firstRow}`);
  }
}
