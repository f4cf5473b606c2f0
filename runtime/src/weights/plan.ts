// Cuts one weight request into uploads: which source bytes, which transcode, which kernel parameters.
// Pure arithmetic on untrusted shapes, so it is checked here and tested without a GPU.

import { KontextError } from '../errors.ts';
import { columnsUnit, isQuantised, storedLayout } from '../program/formats.ts';
import type { WeightRequest } from '../program/types.ts';
import { describeTensor, elementCount, partsOf, type SourceTensor } from './source.ts';
import type { TranscodeParams, TranscodeSpec } from './transcode.ts';
import { canTranscode, isLossless, type SourceType } from './types/source-type.ts';

export interface ChunkPlan extends TranscodeSpec {
  /** Bytes of the source tensor to read: whole blocks. */
  start: number;
  end: number;
  params: TranscodeParams;
  /** One for each row of the chunk. */
  rowScales?: Float32Array<ArrayBuffer>;
}

/** Chunks start at multiples of this many elements, so that no two write the same word of codes, scales or groups. */
const CHUNK_ELEMENTS = 256;

/**
 * @param chunkBytes wanted source bytes of a chunk; exceeded only when 256 elements' worth of rows is more
 * @throws `weights-invalid` when the tensor does not have the type or shape that the request needs
 */
export function planChunks(
  request: WeightRequest,
  tensor: SourceTensor,
  file: string,
  chunkBytes: number,
): ChunkPlan[] {
  const refuse = (problem: string) =>
    new KontextError('weights-invalid', `${file}: tensor "${request.name}" (${describeTensor(tensor)}) ${problem}.`, {
      tensor: request.name,
      file,
      shape: tensor.shape,
      dtype: tensor.dtype,
    });
  const { format } = request;
  const allRows = tensor.shape[0] ?? 1;
  const allCols = elementCount(tensor.shape.slice(1));
  const [firstRow, endRow] = request.rows ?? [0, allRows];
  const [firstCol, endCol] = request.cols ?? [0, allCols];
  if (endRow > allRows || endCol > allCols) {
    throw refuse(`has no rows ${firstRow} to ${endRow}, columns ${firstCol} to ${endCol}`);
  }
  const convolution = request.layout === 'ohwi';
  if (convolution && (tensor.shape.length !== 4 || request.cols)) throw refuse('is not a convolution to be read whole');
  const channels = convolution ? tensor.shape[1]! : endCol - firstCol;
  const padIn = convolution ? (request.padIn ?? channels) : channels;
  const taps = convolution ? tensor.shape[2]! * tensor.shape[3]! : 1;
  if (padIn < channels) throw refuse(`has more than ${padIn} input channels`);

  const outCols = taps * padIn;
  const total = (endRow - firstRow) * outCols;
  const unit = columnsUnit(format);
  if (request.shape[1] % unit !== 0) throw refuse(`has rows that are no multiple of ${unit}, as ${format} needs`);
  const [rows, cols] = request.shape;
  // A vector is a row or a column as the program likes; of others a transposed or reshaped one would fit by its count alone.
  const same = tensor.shape.length < 2 ? total === rows * cols : endRow - firstRow === rows && outCols === cols;
  if (!same || total === 0) {
    throw refuse(`does not give the shape [${request.shape.join(', ')}] that the program needs`);
  }
  const { sections } = storedLayout(format, ...request.shape);
  const contiguous = outCols === allCols && !convolution;

  const chunks: ChunkPlan[] = [];
  const step = CHUNK_ELEMENTS / greatestCommonDivisor(CHUNK_ELEMENTS, outCols);
  let partRow = 0;
  let partByte = 0;
  for (const part of partsOf(tensor)) {
    const partRows = tensor.parts ? part.shape[0]! : allRows;
    const type = usable(part.type, refuse);
    if (!canTranscode(type, format) || (isLossless({ type, format }) && isQuantised(format) && !contiguous)) {
      throw refuse(`cannot be stored as ${format}`);
    }
    const blockBytes = (element: number) => partByte + (element / type.elements) * type.bytes;
    const rowsPerChunk = Math.max(step, Math.floor((chunkBytes * type.elements) / type.bytes / allCols / step) * step);
    const scaled = part.scales !== undefined || format === 'e4m3' || format === 'e5m2';
    const until = Math.min(endRow, partRow + partRows);
    for (let row = Math.max(firstRow, partRow); row < until; row += rowsPerChunk) {
      const end = Math.min(until, row + rowsPerChunk);
      const start = (row - firstRow) * outCols;
      if (row > firstRow && start % CHUNK_ELEMENTS !== 0 && isQuantised(format)) {
        throw refuse(`is joined from parts whose ends are no blocks, as ${format} needs`);
      }
      // Rows of one-dimensional tensors are elements: they need not start on a block.
      const from = Math.floor(((row - partRow) * allCols) / type.elements) * type.elements;
      const to = Math.ceil(((end - partRow) * allCols) / type.elements) * type.elements;
      chunks.push({
        type,
        format,
        scaled,
        start: blockBytes(from),
        end: blockBytes(to),
        params: {
          count: (end - row) * outCols,
          outCols,
          srcCols: allCols,
          first: (row - partRow) * allCols + firstCol - from,
          padIn,
          channels,
          taps,
          start,
          sections,
        },
        ...(scaled && { rowScales: rowScales(part.scales, row - partRow, end - partRow) }),
      });
    }
    partRow += partRows;
    partByte += part.bytes;
  }
  return chunks;
}

function usable(type: SourceType | undefined, refuse: (problem: string) => KontextError): SourceType {
  if (type) return type;
  throw refuse('has a type that weights cannot have');
}

function rowScales(scales: Float32Array | undefined, first: number, end: number): Float32Array<ArrayBuffer> {
  const one = scales === undefined || scales.length === 1;
  return Float32Array.from({ length: end - first }, (_, i) => (one ? (scales?.[0] ?? 1) : scales[first + i]!));
}

function greatestCommonDivisor(a: number, b: number): number {
  return b === 0 ? a : greatestCommonDivisor(b, a % b);
}
