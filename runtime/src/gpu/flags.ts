// WebGPU's usage and mode flags by value, and its rule for writes.
// Node has no global GPUBufferUsage (the `webgpu` package leaves globals to its user), and one import is the same everywhere.

export const BufferUsage = {
  MAP_READ: 0x0001,
  COPY_SRC: 0x0004,
  COPY_DST: 0x0008,
  UNIFORM: 0x0040,
  STORAGE: 0x0080,
  QUERY_RESOLVE: 0x0200,
} as const;

export const MAP_MODE_READ = 0x0001;
export const SHADER_STAGE_COMPUTE = 0x4;

/** `data`, or a copy of it padded with zeros: `writeBuffer` takes multiples of four bytes only. */
export function wholeWords(data: Uint8Array<ArrayBuffer>): Uint8Array<ArrayBuffer> {
  if (data.length % 4 === 0) return data;
  const padded = new Uint8Array(Math.ceil(data.length / 4) * 4);
  padded.set(data);
  return padded;
}
