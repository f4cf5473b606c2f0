// Reads a safetensors file into typed arrays, for tests.
// Independent of the runtime's own reader on purpose: golden data must not pass through the code it judges.

import { readFileSync } from 'node:fs';

/** One tensor; 16-bit floats arrive widened to float32, I64 narrowed to int32 (an error when a value does not fit). */
export interface TestTensor {
  /** The dtype as stored: F64, F32, F16, BF16, F8_E4M3, F8_E5M2, I64, I32, I16, I8, U32, U16, U8, BOOL. */
  dtype: string;
  shape: number[];
  data: Float64Array | Float32Array | Int32Array | Int16Array | Int8Array | Uint32Array | Uint16Array | Uint8Array;
}

/** All tensors of a file by name. 8-bit floats and booleans arrive as their bytes. */
export function readSafetensors(path: string | URL): Map<string, TestTensor> {
  const file = readFileSync(path);
  const headerBytes = Number(file.readBigUInt64LE(0));
  const header = JSON.parse(file.toString('utf8', 8, 8 + headerBytes)) as Record<string, HeaderEntry>;
  const tensors = new Map<string, TestTensor>();
  for (const [name, entry] of Object.entries(header)) {
    if (name === '__metadata__') continue;
    const [start, end] = entry.data_offsets;
    const bytes = Uint8Array.from(file.subarray(8 + headerBytes + start, 8 + headerBytes + end));
    tensors.set(name, { dtype: entry.dtype, shape: entry.shape, data: decode(entry.dtype, bytes.buffer, name) });
  }
  return tensors;
}

/** The float32 values of a tensor (stored as F32, F16 or BF16); an error names what is missing or of another type. */
export function floatTensor(tensors: Map<string, TestTensor>, name: string): Float32Array {
  const tensor = tensors.get(name);
  if (!tensor) throw new Error(`no tensor ${name}`);
  if (!(tensor.data instanceof Float32Array)) throw new Error(`${name} is ${tensor.dtype}, not a 16 or 32-bit float`);
  return tensor.data;
}

interface HeaderEntry {
  dtype: string;
  shape: number[];
  data_offsets: [number, number];
}

function decode(dtype: string, buffer: ArrayBuffer, name: string): TestTensor['data'] {
  switch (dtype) {
    case 'F64':
      return new Float64Array(buffer);
    case 'F32':
      return new Float32Array(buffer);
    case 'F16':
      return Float32Array.from(new Uint16Array(buffer), halfToFloat);
    case 'BF16':
      return new Float32Array(Uint32Array.from(new Uint16Array(buffer), (bits) => bits << 16).buffer);
    case 'I64':
      return Int32Array.from(new BigInt64Array(buffer), (value) => {
        if (value !== BigInt.asIntN(32, value)) throw new Error(`${name} holds ${value}, beyond int32`);
        return Number(value);
      });
    case 'I32':
      return new Int32Array(buffer);
    case 'I16':
      return new Int16Array(buffer);
    case 'I8':
      return new Int8Array(buffer);
    case 'U32':
      return new Uint32Array(buffer);
    case 'U16':
      return new Uint16Array(buffer);
    case 'U8':
    case 'BOOL':
    case 'F8_E4M3':
    case 'F8_E5M2':
      return new Uint8Array(buffer);
    default:
      throw new Error(`${name} has dtype ${dtype}, which this reader does not know`);
  }
}

function halfToFloat(bits: number): number {
  const sign = bits & 0x8000 ? -1 : 1;
  const exponent = (bits >> 10) & 31;
  const fraction = bits & 1023;
  if (exponent === 31) return fraction ? NaN : sign * Infinity;
  return exponent === 0 ? sign * fraction * 2 ** -24 : sign * (1024 + fraction) * 2 ** (exponent - 25);
}
