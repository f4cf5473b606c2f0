// How a model's weights are held on the GPU when nothing else is asked for: as the file holds them, without loss.
import type { WeightFormat } from '../../../runtime/src/program/formats.ts';
import { partsOf, type WeightSource } from '../../../runtime/src/weights/source.ts';

/**
 * The stored format of each quantised tensor, by name; undefined when there is none, and programs are those of plain files.
 * Tensors joined from parts of different types are left out: no one format holds them, so they take the arithmetic's precision.
 */
export function heldFormats(source: WeightSource): Record<string, WeightFormat> | undefined {
  const held: Record<string, WeightFormat> = {};
  for (const [name, tensor] of source.tensors) {
    // Convolutions are reordered while loading, which blocks do not survive; vectors are f32 in every program.
    if (tensor.shape.length !== 2) continue;
    const [format, ...others] = new Set(partsOf(tensor).map(({ type }) => type?.stored));
    if (format !== undefined && others.length === 0) held[name] = format;
  }
  return Object.keys(held).length > 0 ? held : undefined;
}
