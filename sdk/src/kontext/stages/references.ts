// Where several references lie: the positions their patches have beside the target's, which is all that tells them apart.
// FLUX.1 Kontext was trained with one reference, at index 1; what to do with more is the practice of those who run it.
import type { ReferencePositions } from '../options.ts';
import type { Place } from '../rope.ts';
import type { ImageSize } from '../types.ts';

/**
 * - `offset`: all at index 1, each laid to the right of those before it or below them, whichever keeps the whole smaller, as ComfyUI and
 *   stable-diffusion.cpp do with Kontext's weights;
 * - `index`: reference r at index 1 + r, each from the corner: needs a model trained for it.
 *
 * Stitched ones are one picture, for which both rules say the same.
 *
 * @param grids sizes in patches
 */
export function referencePlaces(rule: ReferencePositions, grids: readonly ImageSize[]): Place[] {
  let [height, width] = [0, 0];
  return grids.map((grid, i) => {
    if (rule === 'index') return { ...grid, index: 1 + i, row: 0, column: 0 };
    const right = grid.height + height > grid.width + width;
    const place = { ...grid, index: 1, row: right ? 0 : height, column: right ? width : 0 };
    height = Math.max(height, grid.height + place.row);
    width = Math.max(width, grid.width + place.column);
    return place;
  });
}
