// 8-bit floats with scales beside them, in all the ways that files for ComfyUI spell it: W = scale · code.
//
// `<module>.scale_weight` or `<module>.weight_scale` scales `<module>.weight`; input scales are for 8-bit activations and do not
// change a weight. What a layer is may also be told by `<module>.comfy_quant` or the header's `_quantization_metadata`, which
// know formats that are no 8-bit floats: those leave their tensors without a type, so that only what needs them is refused.

import { KontextError } from '../../errors.ts';
import { readSmall } from '../files/placed.ts';
import { describeTensor, elementCount, type SourceTensor, type WeightSource } from '../source.ts';
import { decodeBlocks } from '../types/decode.ts';

const SCALE = /\.(scale_weight|weight_scale)$/;
const DESCRIPTION = /\.comfy_quant$/;
/** Formats of such descriptions that are a code times a scale of the tensor or the row. */
const FLOATS = ['float8_e4m3fn', 'float8_e5m2'];
/** Descriptions are JSON of some dozen bytes; scales at most one f32 for each row of the largest matrix. */
const MAX_DESCRIPTION_BYTES = 4096;

/**
 * `source` itself when nothing in it is scaled; else a view with the scales attached.
 *
 * @throws `weights-invalid` for scales that are neither one for the tensor nor one for each row, or not finite
 */
export async function withScales(source: WeightSource, signal?: AbortSignal): Promise<WeightSource> {
  const names = [...source.tensors.keys()];
  const formats = await layerFormats(source, names, signal);
  const scaleNames = names.filter((name) => SCALE.test(name));
  if (scaleNames.length === 0 && formats.size === 0) return source;
  const tensors = new Map(source.tensors);
  for (const [module, format] of formats) {
    const name = `${module}.weight`;
    const tensor = tensors.get(name);
    if (!tensor || FLOATS.includes(format)) continue;
    const { type: _, ...unreadable } = tensor;
    tensors.set(name, { ...unreadable, dtype: format });
  }
  const wanted = scaleNames.filter((name) => {
    const weight = tensors.get(name.replace(SCALE, '.weight'));
    return weight?.type !== undefined;
  });
  for (const name of wanted) checkShape(source, name, tensors.get(name.replace(SCALE, '.weight'))!);
  for (const [name, data] of await readSmall(source, wanted, signal)) {
    const weight = name.replace(SCALE, '.weight');
    const scales = decodeBlocks(source.tensors.get(name)!.type!, data);
    if (!scales.every(Number.isFinite)) throw invalid(source, name, 'holds a scale that is not finite');
    const tensor = tensors.get(weight)!;
    // A vector has no rows to scale.
    tensors.set(weight, { ...tensor, scales });
  }
  return { ...source, tensors };
}

/** Formats that the file names for its layers, by module. */
async function layerFormats(
  source: WeightSource,
  names: readonly string[],
  signal: AbortSignal | undefined,
): Promise<Map<string, string>> {
  const formats = new Map<string, string>();
  const header = source.metadata?._quantization_metadata;
  if (header !== undefined) {
    const { layers } = parse(header) as { layers?: Record<string, { format?: unknown }> };
    for (const [module, layer] of Object.entries(layers ?? {})) formats.set(module, String(layer?.format));
  }
  const described = names.filter(
    (name) => DESCRIPTION.test(name) && source.tensors.get(name)!.bytes <= MAX_DESCRIPTION_BYTES,
  );
  for (const [name, data] of await readSmall(source, described, signal)) {
    const { format } = parse(new TextDecoder().decode(data)) as { format?: unknown };
    formats.set(name.replace(DESCRIPTION, ''), String(format));
  }
  return formats;
}

function checkShape(source: WeightSource, name: string, weight: SourceTensor): void {
  const scale = source.tensors.get(name)!;
  const count = elementCount(scale.shape);
  const float = scale.type !== undefined && scale.type.elements === 1 && scale.type.bytes > 1;
  // By its shape: of a weight with four rows, [2, 2] are blocks.
  const rows = weight.shape[0]!;
  const ofRows = weight.shape.length === 2 && count === rows && scale.shape.includes(rows);
  if (float && (count === 1 || ofRows)) return;
  throw invalid(
    source,
    name,
    `(${describeTensor(scale)}) is neither one scale nor one for each row of the weight (${describeTensor(weight)}): blocks with scales of their own are not supported`,
  );
}

function parse(text: string): object {
  try {
    const value: unknown = JSON.parse(text);
    return typeof value === 'object' && value !== null ? value : {};
  } catch {
    return {};
  }
}

const invalid = (source: WeightSource, tensor: string, problem: string): KontextError =>
  new KontextError('weights-invalid', `${source.label}: "${tensor}" ${problem}.`, { tensor, file: source.label });
