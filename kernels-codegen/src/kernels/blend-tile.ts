// Adds one tile of a picture into the whole, weighted by a ramp that fades at the edges it shares with other tiles.
// Tiled decoding sums overlapping tiles this way; dividing by the summed weights at the end leaves no seam.

import { KontextError } from '../../../runtime/src/errors.ts';
import type { TargetProfile } from '../targets/types.ts';
import { flatGrid } from '../wgsl/grid.ts';
import { type KernelSource, type MatrixView, viewLength } from './kernel.ts';
import { viewBytes } from './precision.ts';

export interface BlendTileSpec {
  /** Pixels of the whole picture. */
  width: number;
  height: number;
  /** Pixels of the tile. */
  tileWidth: number;
  tileHeight: number;
  /** f32 `[tileHeight·tileWidth, channels]`. */
  tile: MatrixView;
  /** f32 `[1, 8]` = (top, left, fade top, fade left, fade bottom, fade right, 0, 0), pixels; see {@link blendTile}. */
  position: MatrixView;
  /** f32 `[height·width, channels + 1]`, read and written: Σ w·value, and Σ w in the last column. */
  sum: MatrixView;
}

/**
 * sum[p, c] += w(p)·tile[q, c] and sum[p, channels] += w(p) for every pixel q of the tile, at p = q + (top, left).
 *
 * w is the product of four linear ramps: (d + ½) / fade for pixels nearer than `fade` to that edge, d their distance
 * in pixels, else 1. An edge of the whole picture has fade 0. Tile pixels outside the picture are skipped.
 * One invocation a pixel of the tile, so no two write one element. Bindings: tile, position, sum.
 *
 * @throws KontextError `program-invalid` when the views are not f32 or do not fit the sizes
 */
export function blendTile(spec: BlendTileSpec, target: TargetProfile): KernelSource {
  const { width, height, tileWidth, tileHeight, tile, position, sum } = spec;
  const channels = tile.cols;
  const fits = tile.rows === tileWidth * tileHeight && sum.rows === width * height && sum.cols === channels + 1;
  if (!fits || [tile, position, sum].some((v) => v.type !== 'f32')) {
    throw new KontextError(
      'program-invalid',
      'blendTile: give f32 matrices of tile, and of picture with one more column.',
    );
  }
  const grid = flatGrid(tile.rows, target);
  const at = (i: number): string => `position[${position.offset + i}u]`;
  const ramp = (distance: string, fade: string): string =>
    `select(1.0, min(1.0, (f32(${distance}) + 0.5) / ${fade}), ${fade} > 0.0)`;
  const wgsl = `@group(0) @binding(0) var<storage, read> tile: array<f32, ${viewLength(tile)}>;
@group(0) @binding(1) var<storage, read> position: array<f32, ${viewLength(position)}>;
@group(0) @binding(2) var<storage, read_write> sum: array<f32, ${viewLength(sum)}>;
${grid.open}
let y = item / ${tileWidth}u;
let x = item % ${tileWidth}u;
let row = u32(${at(0)}) + y;
let col = u32(${at(1)}) + x;
if (row >= ${height}u || col >= ${width}u) { return; }
let weight = ${ramp('y', at(2))} * ${ramp('x', at(3))}
  * ${ramp(`${tileHeight - 1}u - y`, at(4))} * ${ramp(`${tileWidth - 1}u - x`, at(5))};
let source = ${tile.offset}u + item * ${tile.rowStride}u;
let place = ${sum.offset}u + (row * ${width}u + col) * ${sum.rowStride}u;
for (var c = 0u; c < ${channels}u; c++) { sum[place + c] += weight * tile[source + c]; }
sum[place + ${channels}u] += weight;
}
`;
  return {
    label: `blend-tile ${tileHeight}×${tileWidth}×${channels} into ${height}×${width}`,
    wgsl,
    bindings: ['read', 'read', 'read_write'],
    workgroups: grid.workgroups,
    flops: tile.rows * (2 * channels + 16),
    bytes: viewBytes(tile) + 2 * tile.rows * (channels + 1) * 4,
    needs: { invocations: grid.invocations, workgroupBytes: 0 },
  };
}
