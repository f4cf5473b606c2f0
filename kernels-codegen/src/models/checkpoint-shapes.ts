// Shapes of a model's tensors without its files: what tools need that speak of a model nobody has downloaded.
// Read off the graphs, so that they are what the programs bind.

import { buildGraph, type Component } from '../compile.ts';
import { reads } from '../graph/graph.ts';
import type { ClipSpec } from './clip.ts';
import type { FluxSpec } from './flux.ts';
import type { T5Spec } from './t5.ts';

type Shapes = ReadonlyMap<string, { shape: number[] }>;

/** By network and BFL name; embedding tables of the text encoders are left out, because no program binds them. */
export function checkpointShapes(specs: {
  transformer: FluxSpec;
  clip: ClipSpec;
  t5: T5Spec;
}): Record<'transformer' | 'clip' | 't5', Shapes> {
  const grid = { height: 1, width: 1 };
  const spec = specs.transformer;
  return {
    transformer: shapesOf(
      { component: 'denoise', spec, textTokens: 1, image: grid, references: [] },
      { component: 'modulation', spec, steps: 1 },
    ),
    clip: shapesOf({ component: 'clip', spec: specs.clip, tokens: 1 }),
    t5: shapesOf({ component: 't5', spec: specs.t5, tokens: 1 }),
  };
}

function shapesOf(...components: Component[]): Shapes {
  const shapes = new Map<string, { shape: number[] }>();
  for (const component of components) {
    for (const { origin, rows, cols } of buildGraph(component).nodes.flatMap(reads)) {
      if (origin.kind !== 'weight') continue;
      const { name, role, rows: part } = origin.weight;
      const vector = role === 'vector' && rows === 1;
      // A part of a layer's rows says how many there are at least.
      const length = Math.max(part?.[1] ?? (vector ? cols : rows), shapes.get(name)?.shape[0] ?? 0);
      shapes.set(name, { shape: vector ? [length] : [length, cols] });
    }
  }
  return shapes;
}
