// Values of file bytes on the CPU, for what never becomes a GPU weight: embedding rows, adapters' factors, checks.

import { NIBBLE_LEVELS } from '../../program/formats.ts';
import { emptyBlock, type SourceType } from './source-type.ts';

/**
 * The float32 values of whole blocks, in ggml's order of operations: equal to ggml's to the last bit.
 *
 * @param bytes a multiple of `type.bytes`
 */
export function decodeBlocks(type: SourceType, bytes: Uint8Array): Float32Array<ArrayBuffer> {
  const { reader } = type;
  if (reader.kind === 'element') return reader.decode(bytes);
  const blocks = bytes.byteLength / type.bytes;
  const values = new Float32Array(blocks * type.elements);
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const block = emptyBlock();
  const parts = type.elements / 32;
  const { fround } = Math;
  for (let i = 0; i < blocks * parts; i++) {
    reader.read(view, Math.floor(i / parts) * type.bytes, i % parts, block);
    for (let k = 0; k < 32; k++) {
      const h = k >> 4;
      const scale = fround(block.d * block.scales[h]!);
      const minimum = fround(block.dMin * block.minimums[h]!);
      const code = block.codes[k]!;
      values[32 * i + k] = fround(scale * (reader.levels ? NIBBLE_LEVELS[code]! : code)) - minimum;
    }
  }
  return values;
}
