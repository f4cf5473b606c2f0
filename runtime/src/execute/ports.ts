// What crosses between JavaScript arrays and a port's bytes.
// f16 ports are seen as float32 from outside, so that callers need not know a program's precision.

import { KontextError } from '../errors.ts';
import type { KontextDevice } from '../gpu/device.ts';
import { BufferUsage, MAP_MODE_READ, wholeWords } from '../gpu/flags.ts';
import { floatToHalf, halfToFloat } from '../half.ts';
import type { Port } from '../program/types.ts';

export interface ReadResult {
  f32: Float32Array<ArrayBuffer>;
  u32: Uint32Array<ArrayBuffer>;
  i32: Int32Array<ArrayBuffer>;
  bytes: Uint8Array<ArrayBuffer>;
}

export type ReadType = keyof ReadResult;

/** The bytes to write at `byteOffset`, padded to whole words. */
export function encodePortData(port: Port, data: ArrayBufferView, byteOffset: number): Uint8Array<ArrayBuffer> {
  const view =
    port.type === 'f16' && data instanceof Float32Array
      ? new Uint8Array(Uint16Array.from(data, floatToHalf).buffer)
      : new Uint8Array(data.buffer as ArrayBuffer, data.byteOffset, data.byteLength);
  if (byteOffset < 0 || byteOffset % 4 !== 0 || byteOffset + view.length > port.bytes) {
    throw new KontextError(
      'invalid-request',
      `Port "${port.name}" has ${port.bytes} bytes (${port.type} [${port.shape.join(', ')}]); ${view.length} bytes at ${byteOffset} do not fit.`,
      { port: port.name, bytes: port.bytes },
    );
  }
  if (view.length % 4 !== 0 && byteOffset + view.length < port.bytes) {
    throw new KontextError('invalid-request', `A write inside port "${port.name}" must be a multiple of four bytes.`, {
      port: port.name,
    });
  }
  return wholeWords(view);
}

/** A copy of the port's contents after everything submitted before. */
export async function readBuffer<T extends ReadType>(
  gpu: KontextDevice,
  buffer: GPUBuffer,
  port: Port,
  type: T,
): Promise<ReadResult[T]> {
  const float = port.type === 'f32' || port.type === 'f16';
  if (type !== 'bytes' && (type === 'f32' ? !float : type !== port.type)) {
    throw new KontextError('invalid-request', `Port "${port.name}" is ${port.type}; it cannot be read as ${type}.`, {
      port: port.name,
    });
  }
  const size = Math.ceil(port.bytes / 4) * 4;
  const staging = await gpu.allocate(`readback of ${port.name}`, size, BufferUsage.MAP_READ | BufferUsage.COPY_DST);
  try {
    await gpu.scoped(`readback of ${port.name}`, () => {
      const encoder = gpu.device.createCommandEncoder({ label: `readback of ${port.name}` });
      encoder.copyBufferToBuffer(buffer, 0, staging, 0, size);
      gpu.queue.submit([encoder.finish()]);
    });
    await gpu.guard(staging.mapAsync(MAP_MODE_READ, 0, size));
    const bytes = staging.getMappedRange(0, size).slice(0, port.bytes);
    return decode(bytes, port, type) as ReadResult[T];
  } finally {
    gpu.free(staging);
  }
}

function decode(bytes: ArrayBuffer, port: Port, type: ReadType): ReadResult[ReadType] {
  switch (type) {
    case 'f32':
      return port.type === 'f16' ? Float32Array.from(new Uint16Array(bytes), halfToFloat) : new Float32Array(bytes);
    case 'u32':
      return new Uint32Array(bytes);
    case 'i32':
      return new Int32Array(bytes);
    case 'bytes':
      return new Uint8Array(bytes);
    default:
      return type satisfies never;
  }
}
