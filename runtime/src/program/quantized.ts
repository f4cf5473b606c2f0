// Which matrices change when block quantisation is asked for, and into what: one rule for the compiler, packing and planning.
import { columnsUnit, type WeightFormat } from './formats.ts';

/** Block formats that any floating-point matrix can be turned into. */
export type BlockFormat = Extract<WeightFormat, 'q8' | 'q4'>;

/** Matrices of blocks are the model, whatever its size. Those outside are embedders and the last layer. */
const IN_BLOCK = /(^|\.)(blocks?|double_blocks|single_blocks|layers?)\.\d+\./;
/** Outside of blocks q8 leaves alone what has fewer elements: it would save nothing. */
const LARGE = 2 ** 20;
/** Scales and shifts of every activation. Used once for all steps and not kept, so that twice the bits take no memory while denoising. */
const MODULATION = /_mod\.lin|modulation\.lin|adaLN/;

/**
 * The format of a matrix `[rows, cols]` called `name` (as BFL and transformers name it) when `asked` is wanted; undefined where it
 * keeps the precision of the arithmetic: rows of no whole blocks, and what costs more than it saves.
 *
 * `q4` is measured on the demo model, each kind of matrix alone in q4 (`npm run bench:quantisation -- --kinds`): embedders and last
 * layer, under 1 % of the full-size model, do as much harm as half of the blocks. They stay as they are.
 */
export function quantisedFormat(asked: BlockFormat, name: string, rows: number, cols: number): BlockFormat | undefined {
  if (!IN_BLOCK.test(name) && (asked === 'q4' || rows * cols < LARGE)) return undefined;
  const format = asked === 'q4' && MODULATION.test(name) ? 'q8' : asked;
  return cols % columnsUnit(format) === 0 ? format : undefined;
}
