// Scales beside 8-bit floats, in every spelling, type and shape that files have: what arrives at the tensor, and what is refused.
import { expect, it } from 'vitest';
import { memoryBytes } from '../../../runtime/src/weights/bytes.ts';
import { openWeightsFile, partOfFile } from '../../../sdk/src/model/weights-file.ts';
import { type RawTensor, type RawTensors, safetensors } from '../../support/model-files.ts';

const WEIGHT = 'double_blocks.0.img_attn.proj.weight';
const MODULE = WEIGHT.replace('.weight', '');
const floats = (dtype: 'F32' | 'F16' | 'BF16', values: number[]): Uint8Array => {
  const words = new Uint32Array(new Float32Array(values).buffer);
  if (dtype === 'F32') return new Uint8Array(words.buffer);
  if (dtype === 'BF16') return new Uint8Array(Uint16Array.from(words, (word) => word >>> 16).buffer);
  // Powers of two from 2^-14 to 2^15.
  return new Uint8Array(Uint16Array.from(values, (value) => (Math.log2(value) + 15) << 10).buffer);
};
const matrix = (dtype: string, rows: number, columns: number) => ({
  dtype,
  shape: [rows, columns],
  data: new Uint8Array(rows * columns).fill(0x38),
});
const open = async (beside: RawTensors, metadata?: Record<string, string>, dtype = 'F8_E4M3') => {
  const file = await openWeightsFile(
    memoryBytes(safetensors(new Map([[WEIGHT, matrix(dtype, 4, 2)], ...beside]), metadata)),
  );
  return partOfFile(file, 'transformer').tensors.get(WEIGHT)!;
};
const scale = (dtype: 'F32' | 'F16' | 'BF16', shape: number[], values: number[]): RawTensor => ({
  dtype,
  shape,
  data: floats(dtype, values),
});

it.each<[string, ReturnType<typeof scale>]>([
  ['scale_weight', scale('F32', [], [0.5])],
  ['weight_scale', scale('F32', [1], [0.5])],
  ['weight_scale', scale('BF16', [], [0.5])],
  ['scale_weight', scale('F16', [1], [0.25])],
  ['weight_scale', scale('F32', [4], [1, 2, 4, 8])],
  ['weight_scale', scale('BF16', [4, 1], [1, 2, 4, 8])],
  ['scale_weight', scale('F16', [4, 1], [1, 2, 4, 8])],
])('%s: %j', async (spelling, tensor) => {
  const wanted = Array.from({ length: tensor.data.length / (tensor.dtype === 'F32' ? 4 : 2) }, (_, i) => 2 ** i);
  for (const dtype of ['F8_E4M3', 'F8_E5M2']) {
    const beside = new Map<string, RawTensor>([
      [`${MODULE}.${spelling}`, tensor],
      // Of activations; weights do not change with it.
      [`${MODULE}.scale_input`, scale('F32', [], [3])],
      [`${MODULE}.input_scale`, scale('F32', [1], [3])],
      ['scaled_fp8', { dtype, shape: [0], data: new Uint8Array(0) }],
    ]);
    const { scales, type } = await open(beside, undefined, dtype);
    expect(type?.name).toBe(dtype);
    expect([...scales!]).toEqual(wanted.length > 1 ? wanted : [tensor.dtype === 'F16' ? 0.25 : 0.5]);
  }
});

it('what each layer is, told by a tensor or by the header', async () => {
  const description = (format: string) => new TextEncoder().encode(JSON.stringify({ format }));
  const described = (format: string): RawTensors =>
    new Map<string, RawTensor>([
      [`${MODULE}.weight_scale`, scale('F32', [], [0.5])],
      [`${MODULE}.comfy_quant`, { dtype: 'U8', shape: [description(format).length], data: description(format) }],
    ]);
  expect([...(await open(described('float8_e4m3fn'))).scales!]).toEqual([0.5]);
  await expect(open(described('nvfp4'))).rejects.toThrow(/nvfp4/);
  const layers = JSON.stringify({ layers: { [MODULE]: { format: 'float8_e4m3fn' } } });
  const header = await open(new Map([[`${MODULE}.weight_scale`, scale('F32', [], [0.5])]]), {
    _quantization_metadata: layers,
  });
  expect([...header.scales!]).toEqual([0.5]);
});

it.each<[string, RawTensors, RegExp]>([
  ['blocks', new Map([[`${MODULE}.weight_scale`, scale('F32', [2, 2], [1, 1, 1, 1])]]), /nor one for each row|blocks/],
  [
    'a count that fits nothing',
    new Map([[`${MODULE}.weight_scale`, scale('F32', [3], [1, 1, 1])]]),
    /nor one for each row/,
  ],
  ['NaN', new Map([[`${MODULE}.weight_scale`, scale('F32', [], [Number.NaN])]]), /not finite/],
  [
    'another spelling',
    new Map([[`${MODULE}.weight_scale_inv`, scale('F32', [1, 1], [1])]]),
    /spelling that is not known/,
  ],
])('refuses %s', async (_, beside, message) => {
  await expect(open(beside)).rejects.toThrow(message);
});
