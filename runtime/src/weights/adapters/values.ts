// Values of an adapter's tensors as float32, whatever they are stored in, each known to be finite.
// Adapters are a hundredth of a model, so they may pass through JavaScript; a model may not.

import { KontextError } from '../../errors.ts';
import { halfToFloat } from '../../half.ts';
import { sourceTensor, type WeightSource } from '../source.ts';

/** @throws KontextError `weights-invalid` for a type that holds no such numbers, or a value that is not finite */
export async function readValues(
  source: WeightSource,
  key: string,
  signal?: AbortSignal,
): Promise<Float32Array<ArrayBuffer>> {
  const { dtype, bytes } = sourceTensor(source, key);
  const decode = DECODERS[dtype];
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

const DECODERS: Readonly<Record<string, (bytes: Uint8Array<ArrayBuffer>) => Float32Array<ArrayBuffer>>> = {
  F64: (bytes) => Float32Array.from(new Float64Array(aligned(bytes))),
  F32: (bytes) => new Float32Array(aligned(bytes)),
  F16: (bytes) => Float32Array.from(new Uint16Array(aligned(bytes)), halfToFloat),
  BF16: (bytes) => new Float32Array(Uint32Array.from(new Uint16Array(aligned(bytes)), (bits) => bits << 16).buffer),
  F8_E4M3: (bytes) => Float32Array.from(bytes, (code) => FP8_E4M3[code]!),
  F8_E5M2: (bytes) => Float32Array.from(bytes, (code) => halfToFloat(code << 8)),
  I64: (bytes) => Float32Array.from(new BigInt64Array(aligned(bytes)), Number),
  I32: (bytes) => Float32Array.from(new Int32Array(aligned(bytes))),
};

/** One sign, four exponent bits (bias 7), three of mantissa; no infinity, 0x7f and 0xff are no number. */
const FP8_E4M3 = Float32Array.from({ length: 256 }, (_, code) => {
  const [exponent, mantissa] = [(code >> 3) & 15, code & 7];
  if ((code & 127) === 127) return Number.NaN;
  const size = exponent === 0 ? mantissa * 2 ** -9 : (1 + mantissa / 8) * 2 ** (exponent - 7);
  return code & 128 ? -size : size;
});

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
