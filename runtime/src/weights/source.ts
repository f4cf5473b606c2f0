// Where weights come from: tensors by name, read by byte range.
// Nothing here holds a tensor whole; readers below are views on files far larger than memory.

import { KontextError } from '../errors.ts';

/** Element types of checkpoint files, by safetensors' names, with their sizes in bytes. */
export const DTYPE_BYTES = {
  F64: 8,
  F32: 4,
  F16: 2,
  BF16: 2,
  F8_E4M3: 1,
  F8_E5M2: 1,
  I64: 8,
  I32: 4,
  I16: 2,
  I8: 1,
  U64: 8,
  U32: 4,
  U16: 2,
  U8: 1,
  BOOL: 1,
} as const;

export type SourceDtype = keyof typeof DTYPE_BYTES;

export interface SourceTensor {
  dtype: SourceDtype;
  /** Row-major; empty for a scalar. */
  shape: number[];
  bytes: number;
}

export interface WeightSource {
  /** For error messages: the file or files. */
  readonly label: string;
  readonly tensors: ReadonlyMap<string, SourceTensor>;
  /** What the file says beside its tensors, as text: untrusted. */
  readonly metadata?: Readonly<Record<string, string>>;
  /**
   * Bytes `[start, end)` of a tensor, in memory of the caller's own.
   *
   * @throws `weights-invalid` when the tensor or range is not there; what the underlying file throws
   */
  read(name: string, start: number, end: number, signal?: AbortSignal): Promise<Uint8Array<ArrayBuffer>>;
  /** Closes files; reading afterwards fails. */
  close(): Promise<void>;
}

/** The tensor, or `weights-invalid` naming it and the file. */
export function sourceTensor(source: WeightSource, name: string): SourceTensor {
  const tensor = source.tensors.get(name);
  if (tensor) return tensor;
  throw new KontextError('weights-invalid', `${source.label} has no tensor "${name}". Is it the right model file?`, {
    tensor: name,
    file: source.label,
  });
}

/** Elements of a shape; 1 for a scalar. */
export const elementCount = (shape: readonly number[]): number => shape.reduce((product, n) => product * n, 1);
