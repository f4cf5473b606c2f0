// Weights as the GPU holds them: matrices in their stored format, whole, so that an upload is a copy and a row slice some copies.
// The bytes of all tensors follow each other in one stream, which files cut where they please.

import { KontextError, shown } from '../../errors.ts';
import { columnsUnit, storedLayout, WEIGHT_FORMATS } from '../../program/formats.ts';
import type { WeightFormat, WeightRequest } from '../../program/types.ts';
import type { ByteSource } from '../byte-source.ts';
import { elementCount, type SourceTensor, type StoredRange, sourceTensor, type WeightSource } from '../source.ts';
import { SOURCE_TYPES } from '../types/index.ts';

/** A tensor in the stream. */
export interface PackedTensor {
  /** As in the checkpoint. */
  shape: number[];
  /** Of the first byte in the stream. */
  offset: number;
  /** How the GPU holds it; absent for tables that are read by rows on the CPU, which keep the checkpoint's bytes. */
  stored?: { format: WeightFormat; rows: number; cols: number; layout: WeightRequest['layout'] };
  /** With `stored` absent: the element type, by its name in {@link SOURCE_TYPES}. */
  dtype?: string;
}

/** Bytes that a tensor takes in the stream. */
export function packedBytes({ shape, stored, dtype }: PackedTensor): number {
  if (stored) return storedLayout(stored.format, stored.rows, stored.cols).bytes;
  const { elements, bytes } = SOURCE_TYPES[dtype!]!;
  return (elementCount(shape) / elements) * bytes;
}

/**
 * @param stream all bytes of one part of the model; closed with the source
 * @param tensors untrusted
 * @throws `weights-invalid` naming the first tensor whose description or place cannot be
 */
export function openPackedWeights(
  stream: ByteSource,
  tensors: Readonly<Record<string, PackedTensor>>,
  label: string,
): WeightSource {
  const views = new Map<string, SourceTensor>();
  for (const [name, tensor] of Object.entries(tensors)) {
    checkTensor(name, tensor, stream.size, label);
    const { shape, stored, dtype } = tensor;
    views.set(name, {
      dtype: stored?.format ?? dtype!,
      ...(!stored && { type: SOURCE_TYPES[dtype!]! }),
      shape,
      bytes: packedBytes(tensor),
    });
  }
  const source: WeightSource = {
    label,
    tensors: views,
    async read(name, start, end, signal) {
      const { bytes } = sourceTensor(source, name);
      if (start < 0 || end < start || end > bytes)
        throw new RangeError(`${name}: bytes ${start} to ${end} of ${bytes}`);
      const { offset } = tensors[name]!;
      return stream.read(offset + start, offset + end, signal);
    },
    stored(request) {
      const { stored } = tensors[request.name] ?? {};
      return stored && storedRanges(request, stored, label);
    },
    close: () => stream.close(),
  };
  return source;
}

/** Rows of a stored matrix are a contiguous run of each of its sections. */
function storedRanges(
  request: WeightRequest,
  stored: NonNullable<PackedTensor['stored']>,
  label: string,
): StoredRange[] {
  const { format, rows, cols, layout } = stored;
  const [first, end] = request.rows ?? [0, rows];
  const asked = request.shape[0] * request.shape[1];
  if (
    request.format !== format ||
    request.layout !== layout ||
    request.cols ||
    asked !== (end - first) * cols ||
    end > rows
  ) {
    throw new KontextError(
      'weights-invalid',
      `${label} holds "${request.name}" as ${format} ${layout} [${rows}, ${cols}]; the program wants ${request.format} ${request.layout} ` +
        `[${request.shape.join(', ')}]. Pack the model again, or compile programs for this one.`,
      { tensor: request.name, file: label },
    );
  }
  const from = storedLayout(format, rows, cols);
  const to = storedLayout(format, end - first, cols);
  return from.sections.map((start, i) => {
    const sectionEnd = (layout: typeof from) => layout.sections[i + 1] ?? layout.bytes;
    const bytes = sectionEnd(to) - to.sections[i]!;
    const perRow = (sectionEnd(from) - start) / rows;
    const skip = first * perRow;
    if (!Number.isInteger(skip) || skip % 4 !== 0) {
      throw new KontextError(
        'weights-invalid',
        `${label}: rows ${first} to ${end} of "${request.name}" start in a word.`,
        {
          tensor: request.name,
          file: label,
        },
      );
    }
    return { start: start + skip, end: Math.min(start + skip + bytes, from.bytes), at: to.sections[i]! };
  });
}

function checkTensor(name: string, tensor: PackedTensor, size: number, label: string): void {
  const refuse = (problem: string) =>
    new KontextError('weights-invalid', `${label}: tensor "${name}" ${problem}.`, { tensor: name, file: label });
  const { shape, offset, stored, dtype } = tensor ?? {};
  const whole = (value: unknown): value is number => Number.isSafeInteger(value) && (value as number) >= 0;
  if (!Array.isArray(shape) || !shape.every(whole)) throw refuse('has no valid shape');
  if (!whole(offset) || offset % 4 !== 0) throw refuse('has no valid offset');
  if (stored) {
    const { format, rows, cols, layout } = stored;
    if (!WEIGHT_FORMATS.includes(format)) throw refuse(`has the unknown format ${shown(format)}`);
    if (layout !== 'matrix' && layout !== 'ohwi') throw refuse('has no known layout');
    if (!whole(rows) || !whole(cols) || rows === 0 || cols === 0 || cols % columnsUnit(format) !== 0) {
      throw refuse(`cannot be ${format} [${shown(rows)}, ${shown(cols)}]`);
    }
    const held = elementCount(shape);
    if (layout === 'matrix' ? rows * cols !== held : rows !== shape[0] || rows * cols < held) {
      throw refuse(`of shape [${shape.join(', ')}] cannot be stored as [${rows}, ${cols}]`);
    }
  } else if (typeof dtype !== 'string' || !Object.hasOwn(SOURCE_TYPES, dtype)) {
    throw refuse(`has the unknown type ${shown(dtype)}`);
  }
  if (offset + packedBytes(tensor) > size) throw refuse(`ends after byte ${size}, where the model ends`);
}
