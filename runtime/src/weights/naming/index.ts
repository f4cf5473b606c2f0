// Shows a checkpoint under the names of the original (BFL, T5, CLIP) releases, whatever naming its file uses.
// The compiler then knows one naming, and all namings give the same program.

import type { WeightSource } from '../source.ts';
import { transformerTargets, vaeTargets } from './diffusers.ts';
import { renamed } from './views.ts';

/** `source` itself when its names are BFL's, T5's or CLIP's already; otherwise a view that costs no memory. */
export function bflNaming(source: WeightSource): WeightSource {
  const names = [...source.tensors.keys()];
  if (names.some((name) => name.startsWith('transformer_blocks.') || name.startsWith('single_transformer_blocks.'))) {
    return renamed(source, transformerTargets(names));
  }
  if (names.some((name) => name.includes('.mid_block.'))) return renamed(source, vaeTargets(names));
  return source;
}

/** A small decoder (TAESD's kind) under diffusers' names; its author's files number the layers from a clamp on, which diffusers has not. */
export function tinyDecoderNaming(source: WeightSource): WeightSource {
  const names = [...source.tensors.keys()];
  if (!names.every((name) => /^\d+\./.test(name))) return source;
  const ours = (name: string) => name.replace(/^\d+/, (layer) => `decoder.layers.${Number(layer) - 1}`);
  return renamed(
    source,
    names.map((name) => ({ name: ours(name), from: [name] })),
  );
}
