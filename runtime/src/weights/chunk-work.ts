// How a file's tensor gets onto the GPU in chunks, and what the GPU does with each: a light pass where that is enough, else a transcode.
// Loaded with the first such tensor: weights that are stored as the GPU wants them need none of it.
import type { Kernel } from '../program/types.ts';
import { packPass, passGrid, passKernel, passOf } from './passes.ts';
import type { ChunkPlan } from './plan.ts';
import { packParams, transcodeGrid, transcodeKernel } from './transcode.ts';

export { planChunks } from './plan.ts';

/** One dispatch. */
export interface ChunkWork {
  kernel: Kernel;
  /** The uniform buffer's content. */
  params: Uint32Array<ArrayBuffer>;
  grid: [x: number, y: number];
  /** What is bound between the parameters and the notes, in order: the file's bytes, the scales of its rows, the weight. */
  operands: readonly ('source' | 'scales' | 'weight')[];
}

/** @param slot word of the notes where the kernel tells what it saw */
export function chunkWork(chunk: ChunkPlan, slot: number): ChunkWork {
  const { type, params, rowScales } = chunk;
  const pass = passOf(chunk);
  if (!pass) {
    const grid = transcodeGrid(params.count, chunk);
    return {
      kernel: transcodeKernel({ ...chunk, checked: true }),
      params: packParams({ ...params, slot }, grid[0]),
      grid,
      operands: rowScales ? ['source', 'weight', 'scales'] : ['source', 'weight'],
    };
  }
  const bytes = params.count * type.bytes;
  const grid = passGrid(bytes);
  return {
    kernel: passKernel(type, pass),
    params: packPass(bytes, params.sections[0]! + params.start * type.bytes, grid[0], slot),
    grid,
    operands: pass === 'copy' ? ['weight'] : ['source', 'weight'],
  };
}
