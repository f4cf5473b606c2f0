// Weight sources made in memory, for tests of the store and of safetensors.

import { memoryBytes } from '../../runtime/src/weights/bytes.ts';
import { openSafetensors } from '../../runtime/src/weights/files/safetensors.ts';
import type { WeightSource } from '../../runtime/src/weights/source.ts';

export interface MemoryTensor {
  dtype: string;
  shape: number[];
  data: ArrayBufferView;
}

/** The bytes of a safetensors file with these tensors, in this order. */
export function safetensorsBytes(tensors: Record<string, MemoryTensor>): Uint8Array<ArrayBuffer> {
  const header: Record<string, unknown> = {};
  let offset = 0;
  for (const [name, { dtype, shape, data }] of Object.entries(tensors)) {
    header[name] = { dtype, shape, data_offsets: [offset, offset + data.byteLength] };
    offset += data.byteLength;
  }
  const json = new TextEncoder().encode(JSON.stringify(header));
  const file = new Uint8Array(8 + json.length + offset);
  new DataView(file.buffer).setBigUint64(0, BigInt(json.length), true);
  file.set(json, 8);
  let at = 8 + json.length;
  for (const { data } of Object.values(tensors)) {
    file.set(new Uint8Array(data.buffer, data.byteOffset, data.byteLength), at);
    at += data.byteLength;
  }
  return file;
}

export function memorySource(tensors: Record<string, MemoryTensor>): Promise<WeightSource> {
  return openSafetensors(memoryBytes(safetensorsBytes(tensors), 'test.safetensors'));
}

export function f32Tensor(shape: number[], value: (i: number) => number): MemoryTensor {
  const count = shape.reduce((product, n) => product * n, 1);
  return { dtype: 'F32', shape, data: Float32Array.from({ length: count }, (_, i) => value(i)) };
}
