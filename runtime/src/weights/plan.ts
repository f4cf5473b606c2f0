// Cuts one weight request into uploads: which source bytes, which output ranges, which kernel parameters.
// Pure arithmetic on untrusted shapes, so it is checked here and tested without a GPU.

import { KontextError } from '../errors.ts';
import { paddedBytes } from '../gpu/device.ts';
import type { WeightRequest } from '../program/types.ts';
import { DTYPE_BYTES, elementCount, type SourceTensor } from './source.ts';
import type { TranscodeDtype, TranscodeOutput, TranscodeParams } from './transcode.ts';

export interface ChunkPlan {
  /** Bytes of the source tensor to read: whole rows. */
  start: number;
  end: number;
  /** One dispatch each: the data, and the scales of q8 and q4. */
  outputs: ChunkOutput[];
  params: Omit<TranscodeParams, 'groupsX' | 'dstWord'>;
}

/** Where in the weight's buffer a dispatch writes; `offset` is a multiple of 256, `dstWord` counts from there. */
export interface ChunkOutput {
  kernel: TranscodeOutput;
  offset: number;
  size: number;
  dstWord: number;
}

export interface WeightPlan {
  dtype: TranscodeDtype;
  chunks: ChunkPlan[];
}

/** Chunks start at multiples of this many elements, so that no two write the same word of data or scales. */
const CHUNK_ELEMENTS = 64;

/**
 * @param chunkBytes wanted source bytes of a chunk; exceeded only when 64 elements' worth of rows is more
 * @throws `weights-invalid` when the tensor does not have the type or shape that the request needs
 */
export function planChunks(request: WeightRequest, tensor: SourceTensor, file: string, chunkBytes: number): WeightPlan {
  const refuse = (problem: string) =>
    new KontextError(
      'weights-invalid',
      `${file}: tensor "${request.name}" (${tensor.dtype} [${tensor.shape.join(', ')}]) ${problem}.`,
      { tensor: request.name, file, shape: tensor.shape, dtype: tensor.dtype },
    );
  const { dtype } = tensor;
  if (dtype !== 'F32' && dtype !== 'F16' && dtype !== 'BF16') throw refuse('is not F32, F16 or BF16');

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
  if (total !== request.shape[0] * request.shape[1] || total === 0) {
    throw refuse(`does not give the shape [${request.shape.join(', ')}] that the program needs`);
  }
  if ((request.format === 'q8' || request.format === 'q4') && request.shape[1] % 32 !== 0)
    throw refuse(`has rows that are no multiple of 32, as ${request.format} needs`);

  const rowBytes = allCols * DTYPE_BYTES[dtype];
  const step = CHUNK_ELEMENTS / greatestCommonDivisor(CHUNK_ELEMENTS, outCols);
  const rowsPerChunk = Math.max(step, Math.floor(chunkBytes / rowBytes / step) * step);
  const chunks: ChunkPlan[] = [];
  for (let row = firstRow; row < endRow; row += rowsPerChunk) {
    const end = Math.min(endRow, row + rowsPerChunk);
    const first = (row - firstRow) * outCols;
    const count = (end - row) * outCols;
    const outputs = [
      output(request.format, dataBytes(request, first), dataBytes(request, first + count), request.bytes),
    ];
    if (request.format === 'q8' || request.format === 'q4') {
      // Two bytes a block of 32, after all data.
      const base = dataBytes(request, total);
      outputs.push(output(`${request.format}-scales`, base + first / 16, base + (first + count) / 16, request.bytes));
    }
    chunks.push({
      start: row * rowBytes,
      end: end * rowBytes,
      outputs,
      params: {
        count,
        outCols,
        srcCols: allCols,
        firstCol,
        padIn,
        channels,
        taps,
      },
    });
  }
  return { dtype, chunks };
}

/** Bytes that the first `elements` take, without scales. */
function dataBytes({ format }: WeightRequest, elements: number): number {
  return format === 'f32' ? elements * 4 : format === 'f16' ? elements * 2 : format === 'q8' ? elements : elements / 2;
}

/** A binding that contains bytes `[start, end)`: from a multiple of 256, to whole words within the padded buffer. */
function output(kernel: TranscodeOutput, start: number, end: number, bytes: number): ChunkOutput {
  const offset = Math.floor(start / 256) * 256;
  const size = Math.min(paddedBytes(bytes), Math.ceil(end / 4) * 4) - offset;
  return { kernel, offset, size, dstWord: (start - offset) / 4 };
}

function greatestCommonDivisor(a: number, b: number): number {
  return b === 0 ? a : greatestCommonDivisor(b, a % b);
}
