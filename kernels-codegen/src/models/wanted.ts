// Which tensors a component's programs will ask a checkpoint for: read off its graph, before anything is compiled.
// So a model can be checked when it is opened, from the headers of its files alone.

import { buildGraph, type Component } from '../compile.ts';
import { reads, type WeightOrigin } from '../graph/graph.ts';

/** A tensor wanted, or some rows of it. */
export interface WantedWeight extends WeightOrigin {
  /** As a matrix: rows, and all other axes together (input channels padded, for convolutions). */
  shape: [rows: number, cols: number];
}

export function wantedWeights(component: Component): WantedWeight[] {
  const found = new Map<string, WantedWeight>();
  for (const node of buildGraph(component).nodes) {
    for (const { origin, rows, cols } of reads(node)) {
      if (origin.kind !== 'weight') continue;
      found.set(JSON.stringify(origin.weight), { ...origin.weight, shape: [rows, cols] });
    }
  }
  return [...found.values()];
}
