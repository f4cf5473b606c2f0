// Values of an adapter's tensors as float32, whatever they are stored in, each known to be finite.
// Adapters are a hundredth of a model, so they may pass through JavaScript; a model may not.

import { KontextError } from '../../errors.ts';
import { sourceTensor, type WeightSource } from '../source.ts';
import { decodeBlocks } from '../types/decode.ts';

/** @throws KontextError `weights-invalid` for a type that holds no such numbers, or a value that is not finite */
export async function readValues(
  source: WeightSource,
  key: string,
  signal?: AbortSignal,
): Promise<Float32Array<ArrayBuffer>> {
  const { dtype, type, bytes } = sourceTensor(source, key);
  const known = Object.hasOwn(DECODERS, dtype) ? DECODERS[dtype] : undefined;
  const decode = type ? (data: Uint8Array) => decodeBlocks(type, data) : known;
  if (!decode) throw invalid(source, key, `is stored as ${dtype}, which adapters are not read from`);
  const values = decode(await source.read(key, 0, bytes, signal));
  for (const value of values)
    if (!Number.isFinite(value)) throw invalid(source, key, 'has a value that is no finite number');
  return values;
}

/** An alpha: one number, as a scalar or as a list of one. */
export async function readScalar(source: WeightSource, key: string, signal?: AbortSignal): Promise<number> {
  const { shape } = sourceTensor(source, key);
  if (shape.some((n) => n !== 1)) throw invalid(source, key, `has the shape [${shape.join(', ')}], not one value`);
  return (await readValues(source, key, signal))[0]!;
}

/** Types that weights cannot have, and alphas do. */
const DECODERS: Readonly<Record<string, (bytes: Uint8Array<ArrayBuffer>) => Float32Array<ArrayBuffer>>> = {
  F64: (bytes) => Float32Array.from(new Float64Array(aligned(bytes))),
  I64: (bytes) => Float32Array.from(new BigInt64Array(aligned(bytes)), Number),
  I32: (bytes) => Float32Array.from(new Int32Array(aligned(bytes))),
};

/** The bytes as a buffer of their own, which typed arrays of any width can view. */
const aligned = (bytes: Uint8Array<ArrayBuffer>): ArrayBuffer =>
  bytes.byteOffset === 0 && bytes.byteLength === bytes.buffer.byteLength
    ? bytes.buffer
    : bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.byteLength);

function invalid(source: WeightSource, key: string, problem: string): KontextError {
  return new KontextError('weights-invalid', `${source.label}: "${key}" ${problem}.`, {
    file: source.label,
    tensor: key,
  });
}
