// How a model's weights are held on the GPU when nothing else is asked for: as the file holds them, without loss.
import { KontextError } from '../../../runtime/src/errors.ts';
import type { WeightFormat } from '../../../runtime/src/program/formats.ts';
import { quantisedFormat } from '../../../runtime/src/program/quantized.ts';
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

/** Being asked to save memory and saving none is said. @throws KontextError `invalid-request` when no matrix can be stored that way */
export function checkQuantisable({ label, tensors }: WeightSource, asked: string): void {
  if (asked !== 'q8' && asked !== 'q4') return;
  for (const [name, { shape }] of tensors) {
    if (shape.length === 2 && quantisedFormat(asked, name, shape[0]!, shape[1]!)) return;
  }
  throw new KontextError(
    'invalid-request',
    `quantization "${asked}" would change nothing: ${label} has no matrix whose rows are whole blocks of 32. Leave quantization out.`,
  );
}
