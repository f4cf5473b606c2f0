// Which weight a program asks for, and how it is stored.
import { columnsUnit } from '../../../runtime/src/program/formats.ts';
import { quantisedFormat } from '../../../runtime/src/program/quantized.ts';
import type { WeightFormat, WeightRequest } from '../../../runtime/src/program/types.ts';
import type { Tensor, WeightOrigin } from '../graph/graph.ts';
import { hasTier, type TargetProfile } from '../targets/types.ts';
import { weightBytes } from '../wgsl/weights.ts';
import { BINDING_UNIT, roundUp } from './slabs.ts';

/** How matrix weights are stored; `none` keeps the tier's own precision (f32 in tier f32, else f16). */
export type Quantization = 'none' | 'f16' | 'q8' | 'q4';

/** What decides how weights are stored. */
export interface WeightStorage {
  target: TargetProfile;
  quantization: Quantization;
  /** Formats of single matrices and convolutions by their names in the checkpoint: what a packed model holds. They win. */
  stored?: Readonly<Record<string, WeightFormat>>;
}

/** What the program asks of the checkpoint for a tensor. */
export function weightRequest(t: Tensor, o: WeightStorage): WeightRequest {
  const { weight } = t.origin as { kind: 'weight'; weight: WeightOrigin };
  const format = weightFormat(t, weight, o);
  return {
    name: weight.name,
    ...(weight.rows ? { rows: weight.rows } : {}),
    format,
    shape: [t.rows, t.cols],
    layout: weight.role === 'convolution' ? 'ohwi' : 'matrix',
    ...(weight.channels && weight.channels.padded !== weight.channels.stored ? { padIn: weight.channels.padded } : {}),
    bytes: roundUp(weightBytes(format, t.rows, t.cols), BINDING_UNIT),
  };
}

function weightFormat(t: Tensor, { name, role }: WeightOrigin, o: WeightStorage): WeightFormat {
  if (role === 'vector') return 'f32';
  const { quantization, stored = {} } = o;
  const own = Object.hasOwn(stored, name) ? stored[name] : undefined;
  if (own !== undefined && t.cols % columnsUnit(own) === 0) return own;
  if (role === 'matrix' && (quantization === 'q8' || quantization === 'q4')) {
    const format = quantisedFormat(quantization, name, t.rows, t.cols);
    if (format) return format;
  }
  const half = quantization !== 'none' || hasTier(o.target, 'f16');
  return half && t.cols % 2 === 0 ? 'f16' : 'f32';
}
