// Joins tiles that were encoded or decoded apart: sum of ramped tiles, then division by the summed ramps.
// For pictures whose activations would not fit the memory budget in one piece.

import * as e from '../expr/expr.ts';
import type { Builder } from '../graph/builder.ts';
import type { Graph } from '../graph/graph.ts';

/** In pixels of what is joined: image pixels after decoding, latent pixels after encoding. */
export interface TileShape {
  height: number;
  width: number;
  tileHeight: number;
  tileWidth: number;
  channels: number;
}

/** Adds one tile. The sum starts as zeros. */
export function buildTileBlend(g: Builder, shape: TileShape): Graph {
  const sum = g.state('sum', shape.height * shape.width, shape.channels + 1);
  const tile = g.input('tile', shape.tileHeight * shape.tileWidth, shape.channels);
  g.update(sum, g.blendTile(sum, tile, g.input('position', 1, 8), shape));
  return g.finish();
}

/** Divides by the weights; the image is quantised as an untiled decode's is. */
export function buildTileFinish(
  g: Builder,
  shape: { height: number; width: number; channels: number; output: 'image' | 'packed' },
): Graph {
  const sum = g.input('sum', shape.height * shape.width, shape.channels + 1);
  const values = g.cols(sum, 0, shape.channels);
  const joined = g.map([values, g.cols(sum, shape.channels, 1)], e.div(e.operand(0), e.operand(1)), 'joined');
  if (shape.output === 'image') g.output('image', g.tensorToImage(joined, shape.height, shape.width));
  else g.output('latents', g.pack(joined, shape.height, shape.width, 'packed'));
  return g.finish();
}
