// The rule that says which matrices change when q8 or q4 is asked for, and that asking in vain is said.
import { expect, it } from 'vitest';
import { quantisedFormat } from '../../../runtime/src/program/quantized.ts';
import { checkQuantisable } from '../../../sdk/src/model/formats.ts';

it.each([
  // Blocks, of any size.
  ['double_blocks.0.img_attn.qkv.weight', [576, 192], 'q8', 'q4'],
  ['single_blocks.3.linear2.weight', [3072, 15360], 'q8', 'q4'],
  ['encoder.block.0.layer.1.DenseReluDense.wo.weight', [64, 192], 'q8', 'q4'],
  // Modulation is finer than the rest.
  ['double_blocks.0.txt_mod.lin.weight', [1152, 192], 'q8', 'q8'],
  ['single_blocks.0.modulation.lin.weight', [9216, 3072], 'q8', 'q8'],
  // Embedders and last layer keep their precision in q4, and small ones in q8 too.
  ['txt_in.weight', [3072, 4096], 'q8', undefined],
  ['img_in.weight', [3072, 64], undefined, undefined],
  ['final_layer.linear.weight', [64, 3072], undefined, undefined],
  ['final_layer.adaLN_modulation.1.weight', [6144, 3072], 'q8', undefined],
  // Rows of no whole blocks.
  ['double_blocks.0.img_attn.qkv.weight', [120, 40], undefined, undefined],
] as const)('%s %j: q8 makes %s of it, q4 %s', (name, [rows, cols], q8, q4) => {
  expect(quantisedFormat('q8', name, rows, cols)).toBe(q8);
  expect(quantisedFormat('q4', name, rows, cols)).toBe(q4);
});

it('refuses a quantisation that would change nothing', () => {
  const source = (cols: number) =>
    ({
      label: 'odd.safetensors',
      tensors: new Map([
        ['img_in.weight', { dtype: 'F16', shape: [64, 64], bytes: 8192 }],
        ['double_blocks.0.img_mlp.0.weight', { dtype: 'F16', shape: [160, cols], bytes: 320 * cols }],
      ]),
    }) as never;
  expect(() => checkQuantisable(source(40), 'q4')).toThrow(
    /would change nothing: odd.safetensors.*Leave quantization out/,
  );
  for (const asked of ['auto', 'none', 'f16']) expect(() => checkQuantisable(source(40), asked)).not.toThrow();
  for (const asked of ['q8', 'q4']) expect(() => checkQuantisable(source(64), asked)).not.toThrow();
});
