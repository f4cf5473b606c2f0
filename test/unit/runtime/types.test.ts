// Walks the table of element types: every block held to ggml's own values, on the CPU, on the GPU, and in the format that stores it.

import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { readBuffer } from '../../../runtime/src/execute/ports.ts';
import type { KontextDevice } from '../../../runtime/src/gpu/device.ts';
import { openDevice } from '../../../runtime/src/gpu/open.ts';
import { STORED_FORMATS, storedBits, storedLayout, type WeightFormat } from '../../../runtime/src/program/formats.ts';
import type { WeightRequest } from '../../../runtime/src/program/types.ts';
import type { SourceTensor, WeightSource } from '../../../runtime/src/weights/source.ts';
import { WeightStore } from '../../../runtime/src/weights/store.ts';
import { decodeBlocks } from '../../../runtime/src/weights/types/decode.ts';
import { SOURCE_TYPES, sourceBits } from '../../../runtime/src/weights/types/index.ts';
import { floatTensor, readSafetensors } from '../../support/safetensors.ts';
import { storedValues } from '../../support/stored.ts';

const ggml = readSafetensors(new URL('../../fixtures/gguf-types/io.safetensors', import.meta.url));
const fp8 = readSafetensors(new URL('../../fixtures/fp8/codes.safetensors', import.meta.url));

interface Case {
  bytes: Uint8Array<ArrayBuffer>;
  values: Float32Array;
  shape: [number, number];
}

function caseOf(codes: string, values: string, from = ggml): Case {
  const { data, shape } = from.get(codes)!;
  const wanted = floatTensor(from, values);
  return { bytes: data as Uint8Array<ArrayBuffer>, values: wanted, shape: [shape[0]!, wanted.length / shape[0]!] };
}

/** The data of each type: whole rows, and blocks with the oddest scales and codes. */
const cases = new Map<string, Case[]>(
  Object.values(SOURCE_TYPES).map(({ name }) => {
    if (name === 'F8_E4M3') return [name, [caseOf('e4m3fn.code', 'e4m3fn.float32', fp8)]];
    if (name === 'F8_E5M2') return [name, [caseOf('e5m2.code', 'e5m2.float32', fp8)]];
    const rows = caseOf(`${name}.bytes`, `${name}.dequantized`);
    if (!ggml.has(`${name}.edge_blocks`)) return [name, [rows]];
    return [name, [rows, caseOf(`${name}.edge_blocks`, `${name}.edge_dequantized`)]];
  }),
);

let gpu: KontextDevice;
beforeAll(async () => {
  gpu = await openDevice();
});
afterAll(() => {
  expect(gpu.uncapturedErrors).toEqual([]);
  gpu.destroy();
});

/** A tensor of a type as the store leaves it on the GPU. */
async function load(tensor: SourceTensor, bytes: Uint8Array, format: WeightFormat, chunk?: Partial<WeightRequest>) {
  const source: WeightSource = {
    label: 'test',
    tensors: new Map([['w', tensor]]),
    read: async (_, start, end) => Uint8Array.from(bytes.subarray(start, end)),
    close: async () => {},
  };
  const [rows, cols] = tensor.shape as [number, number];
  const shape = chunk?.shape ?? [rows, cols];
  const size = storedLayout(format, ...shape).bytes;
  const request: WeightRequest = { name: 'w', format, shape, layout: 'matrix', bytes: size, ...chunk };
  const store = new WeightStore(gpu, source);
  const buffer = await store.get(request);
  const stored = await readBuffer(
    gpu,
    buffer,
    { name: 'w', direction: 'out', type: 'f32', shape: [size / 4], bytes: size },
    'bytes',
  );
  store.release(request, { free: true });
  await store.evict();
  return stored;
}

/** GPUs may take subnormal f16 scales for zero: 1e-7 absolute, and the last bit for fused multiply-adds. */
function expectClose(actual: ArrayLike<number>, wanted: ArrayLike<number>): void {
  expect(actual.length).toBe(wanted.length);
  for (let i = 0; i < wanted.length; i++) {
    const off = Math.abs(actual[i]! - wanted[i]!);
    if (!(off <= Math.max(1e-7, 2 ** -22 * Math.abs(wanted[i]!))))
      expect(`${i}: ${actual[i]}`).toBe(`${i}: ${wanted[i]}`);
  }
}

describe.each(Object.values(SOURCE_TYPES).map((type) => [type.name, type] as const))('%s', (name, type) => {
  it('has ggml’s size and values on the CPU, bit for bit', () => {
    for (const { bytes, values } of cases.get(name)!) {
      expect(bytes.length * type.elements).toBe(values.length * type.bytes);
      expect(new Uint8Array(decodeBlocks(type, bytes).buffer)).toEqual(
        new Uint8Array(values.buffer, values.byteOffset, values.byteLength),
      );
    }
  });

  it('becomes f32 on the GPU', async () => {
    for (const { bytes, values, shape } of cases.get(name)!) {
      const tensor = { dtype: name, type, shape, bytes: bytes.length };
      expectClose(new Float32Array((await load(tensor, bytes, 'f32')).buffer), values);
    }
  });

  it('becomes f32 in columns, from a row in the middle', async () => {
    const { bytes, values, shape } = cases.get(name)![0]!;
    const [rows, all] = shape;
    const cols: [number, number] = all > 34 ? [33, all - 1] : [0, 1];
    const tensor = { dtype: name, type, shape, bytes: bytes.length };
    const width = cols[1] - cols[0];
    const stored = await load(tensor, bytes, 'f32', { rows: [rows - 1, rows], cols, shape: [1, width] });
    expectClose(
      new Float32Array(stored.buffer),
      values.subarray((rows - 1) * all + cols[0], (rows - 1) * all + cols[1]),
    );
  });

  it.skipIf(type.stored === undefined)('is stored without loss', async () => {
    const format = type.stored!;
    for (const { bytes, values, shape: full } of cases.get(name)!) {
      // Rows of 8-bit floats are whole words.
      const cols = type.elements === 1 ? Math.floor(values.length / 8) * 4 : full[1];
      const rows = type.elements === 1 ? 2 : full[0];
      const tensor = { dtype: name, type, shape: [rows, cols], bytes: (rows * cols * type.bytes) / type.elements };
      const stored = await load(tensor, bytes, format);
      const kept = storedValues(format, rows, cols, stored);
      const wanted = values.subarray(0, rows * cols);
      // Codes and scales are the file's own; only the oracle's float64 against ggml's float32 differs.
      expectClose(kept, wanted);
      if (STORED_FORMATS[format].scales === 'half') expect(Float32Array.from(kept)).toEqual(Float32Array.from(wanted));
    }
  });

  it.runIf(name.startsWith('F8'))('keeps the scales of rows', async () => {
    const { bytes, values } = cases.get(name)![0]!;
    const [rows, cols] = [3, 80];
    const scales = Float32Array.of(0.5, -3, 0.3);
    const tensor = { dtype: name, type, shape: [rows, cols], bytes: rows * cols, scales };
    const wanted = values.subarray(0, rows * cols).map((value, i) => value * scales[Math.floor(i / cols)]!);
    expectClose(new Float32Array((await load(tensor, bytes, 'f32')).buffer), wanted);
    expectClose(storedValues(type.stored!, rows, cols, await load(tensor, bytes, type.stored!)), wanted);
    const one = { ...tensor, scales: Float32Array.of(0.3) };
    const scaled = values.subarray(0, rows * cols).map((value) => value * Math.fround(0.3));
    expectClose(storedValues(type.stored!, rows, cols, await load(one, bytes, type.stored!)), scaled);
  });
});

it('every stored format holds the types it is made for in little more than their bits', () => {
  for (const type of Object.values(SOURCE_TYPES)) {
    if (!type.stored) continue;
    const [file, gpuBits] = [sourceBits(type), storedBits(type.stored)];
    expect(gpuBits, type.name).toBeGreaterThanOrEqual(file);
    expect(gpuBits, type.name).toBeLessThanOrEqual(file + 2.6);
  }
});
