// Which layers of the real model get sums in f16, and on which targets: those whose left operand a norm gave, where such sums are faster.
import { describe, expect, it } from 'vitest';
import { type CompileRequest, type Component, compile } from '../../../kernels-codegen/src/compile.ts';
import { FLUX1_KONTEXT_DEV } from '../../../kernels-codegen/src/models/specs.ts';
import { targetByName } from '../../../kernels-codegen/src/targets/profiles.ts';
import type { TargetProfile } from '../../../kernels-codegen/src/targets/types.ts';

const { transformer, t5, vae } = FLUX1_KONTEXT_DEV;
const grid = { height: 32, width: 32 };
const denoise: Component = {
  ...{ component: 'denoise', textTokens: 512, image: grid, references: [grid] },
  spec: { ...transformer, doubleBlocks: 1, singleBlocks: 1 },
};
const parts: Record<string, Component> = {
  denoise,
  t5: { component: 't5', spec: { ...t5, layers: 1 }, tokens: 512 },
  'vae-decode': { component: 'vae-decode', spec: vae, height: 256, width: 256 },
};

/** Layers by whether their kernels sum in f16; attention and what is no product are left out. */
function layers(part: string, target: TargetProfile): { packed: string[]; others: string[] } {
  const program = compile({ ...parts[part]!, target } as CompileRequest);
  const found = { packed: new Set<string>(), others: new Set<string>() };
  for (const { kernel, label } of program.dispatches) {
    const text = program.kernels[kernel]!.label;
    if (!/^(matmul|conv2d)/.test(text)) continue;
    found[text.includes(' packed ') ? 'packed' : 'others'].add(label.replace(/\s*[+·/].*|\.silu$| silu$/, ''));
  }
  return { packed: [...found.packed].sort(), others: [...found.others].sort() };
}

describe('on AMD without matrices', () => {
  const amd = targetByName('amd-rdna');
  it('the transformer: what follows a modulated norm, and nothing that follows attention or GELU', () => {
    expect(layers('denoise', amd)).toMatchInlineSnapshot(`
      {
        "others": [
          "double_blocks.0.img",
          "double_blocks.0.txt",
          "img_in",
          "single_blocks.0",
          "txt_in",
        ],
        "packed": [
          "double_blocks.0.img_attn.qkv",
          "double_blocks.0.img_mlp.1",
          "double_blocks.0.txt_attn.qkv",
          "double_blocks.0.txt_mlp.1",
          "final_layer.linear",
          "single_blocks.0.linear1.qkv",
          "single_blocks.0.mlp_act",
        ],
      }
    `);
  });
  it('T5: what follows its norms', () => {
    expect(layers('t5', amd)).toMatchInlineSnapshot(`
      {
        "others": [
          "encoder.block.0",
          "encoder.block.0.layer.0",
        ],
        "packed": [
          "encoder.block.0.layer.0.SelfAttention.k",
          "encoder.block.0.layer.0.SelfAttention.q",
          "encoder.block.0.layer.0.SelfAttention.v",
          "encoder.block.0.layer.1.DenseReluDense.act",
          "encoder.block.0.layer.1.DenseReluDense.gated",
        ],
      }
    `);
  });
  it('the decoder: what follows a group norm and silu', () => {
    expect(layers('vae-decode', amd)).toMatchInlineSnapshot(`
      {
        "others": [
          "decoder.conv_in",
          "decoder.mid.attn_1",
          "decoder.up.0.block.0",
          "decoder.up.1.block.0",
          "decoder.up.1.upsample.conv",
          "decoder.up.2.upsample.conv",
          "decoder.up.3.upsample.conv",
        ],
        "packed": [
          "decoder.conv_out",
          "decoder.mid.attn_1.k",
          "decoder.mid.attn_1.q",
          "decoder.mid.attn_1.v",
          "decoder.mid.block_1",
          "decoder.mid.block_1.conv1",
          "decoder.mid.block_2",
          "decoder.mid.block_2.conv1",
          "decoder.up.0.block.0.conv1",
          "decoder.up.0.block.0.conv2",
          "decoder.up.0.block.1",
          "decoder.up.0.block.1.conv1",
          "decoder.up.0.block.2",
          "decoder.up.0.block.2.conv1",
          "decoder.up.1.block.0.conv1",
          "decoder.up.1.block.0.conv2",
          "decoder.up.1.block.1",
          "decoder.up.1.block.1.conv1",
          "decoder.up.1.block.2",
          "decoder.up.1.block.2.conv1",
          "decoder.up.2.block.0",
          "decoder.up.2.block.0.conv1",
          "decoder.up.2.block.1",
          "decoder.up.2.block.1.conv1",
          "decoder.up.2.block.2",
          "decoder.up.2.block.2.conv1",
          "decoder.up.3.block.0",
          "decoder.up.3.block.0.conv1",
          "decoder.up.3.block.1",
          "decoder.up.3.block.1.conv1",
          "decoder.up.3.block.2",
          "decoder.up.3.block.2.conv1",
        ],
      }
    `);
  });
});

it('with adapters too: their own products stay in f32', () => {
  const program = compile({ ...denoise, target: targetByName('amd-rdna'), room: 16 } as CompileRequest);
  const texts = program.kernels.filter(({ label }) => /packed .* beside/.test(label));
  expect(texts.length).toBeGreaterThan(2);
  for (const { wgsl } of texts) expect(wgsl).toMatch(/atomicLoad\(&beyond\) == t \+ 1u \|\| t >= 192u/);
});

it.each(['amd-rdna', 'intel-xe', 'adreno'])('%s has them, and can be told not to', (name) => {
  const target = targetByName(name);
  expect(layers('denoise', target).packed.length).toBeGreaterThan(3);
  expect(layers('denoise', { ...target, packedSums: false }).packed).toEqual([]);
  expect(layers('denoise', { ...target, tier: 'f32' }).packed).toEqual([]);
  expect(layers('denoise', { ...target, software: true }).packed).toEqual([]);
});

it.each(['nvidia', 'apple-m', 'mali', 'nvidia-matrix', 'lavapipe'])('%s has none', (name) => {
  for (const part of Object.keys(parts)) expect(layers(part, targetByName(name)).packed).toEqual([]);
});

it('on matrix instructions only what no matrix kernel takes: three columns', () => {
  const amd = targetByName('amd-rdna3');
  expect(Object.keys(parts).flatMap((part) => layers(part, amd).packed)).toEqual(['decoder.conv_out']);
});
