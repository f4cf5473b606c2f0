// Where weights come from: tensors by name, read by byte range.
// Nothing here holds a tensor whole; readers below are views on files far larger than memory.

import { KontextError } from '../errors.ts';
import type { WeightRequest } from '../program/types.ts';
import type { SourceType } from './types/source-type.ts';

export interface SourceTensor {
  /** The element type as the file spells it; `Q4_K, Q6_K` where `parts` differ. */
  dtype: string;
  /** How to read it; absent for types that cannot become weights (integers, formats of other programs) and with `parts`. */
  type?: SourceType;
  /** Row-major; empty for a scalar. */
  shape: number[];
  bytes: number;
  /** 8-bit floats: W = scale · code, one scale for the tensor or one for each row (axis 0). */
  scales?: Float32Array;
  /**
   * A tensor shown as one that the file keeps as several of different types: they follow each other along axis 0, and so do
   * their bytes.
   */
  parts?: readonly SourceTensor[];
}

/** Bytes `[start, end)` of a tensor that belong at `at` of the weight's buffer; all multiples of 4. */
export interface StoredRange {
  start: number;
  end: number;
  at: number;
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
  /** Whole tensors of a few bytes each; neighbours come with one read. */
  readSmall?(names: readonly string[], signal?: AbortSignal): Promise<Map<string, Uint8Array>>;
  /**
   * The ranges of a tensor that are a request's bytes as they are, where the source holds it in that format: nothing to transcode.
   *
   * @throws `weights-invalid` when it holds the tensor in another format, which then cannot be turned into this one
   */
  stored?(request: WeightRequest): StoredRange[] | undefined;
  /** Closes files; reading afterwards fails. */
  close(): Promise<void>;
}

/** The tensor, or `weights-invalid` naming it and the file. */
export function sourceTensor(source: Pick<WeightSource, 'label' | 'tensors'>, name: string): SourceTensor {
  const tensor = source.tensors.get(name);
  if (tensor) return tensor;
  throw new KontextError('weights-invalid', `${source.label} has no tensor "${name}". Is it the right model file?`, {
    tensor: name,
    file: source.label,
  });
}

/** Elements of a shape; 1 for a scalar. */
export const elementCount = (shape: readonly number[]): number => shape.reduce((product, n) => product * n, 1);

/** The tensor itself, or what it is joined from. */
export const partsOf = (tensor: SourceTensor): readonly SourceTensor[] => tensor.parts ?? [tensor];

/** Type and shape for messages: `BF16 [3072, 64]`. */
export const describeTensor = ({ dtype, shape }: SourceTensor): string => `${dtype} [${shape.join(', ')}]`;
