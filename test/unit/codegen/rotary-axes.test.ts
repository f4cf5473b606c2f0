// Rotary axes of a transformer: from its config, or guessed from the head's size; never odd, never of another sum.
import { expect, it } from 'vitest';
import { fluxSpecFromConfig, fluxSpecFromShapes } from '../../../kernels-codegen/src/models/specs.ts';

const config = (attention_head_dim: number, axes_dims_rope?: number[]) => ({
  attention_head_dim,
  num_attention_heads: 2,
  in_channels: 64,
  num_layers: 1,
  num_single_layers: 1,
  joint_attention_dim: 32,
  pooled_projection_dim: 32,
  ...(axes_dims_rope ? { axes_dims_rope } : {}),
});
const shapes = (headSize: number) => (name: string) =>
  name.includes('query_norm')
    ? [headSize]
    : name.endsWith('.0.img_attn.qkv.bias') || name.includes('blocks.1.')
      ? undefined
      : [headSize * 2, headSize * 2];

it('keeps what fits', () => {
  expect(fluxSpecFromConfig(config(128)).axes).toEqual([16, 56, 56]);
  expect(fluxSpecFromConfig(config(24, [4, 10, 10])).axes).toEqual([4, 10, 10]);
  expect(fluxSpecFromShapes(shapes(64)).axes).toEqual([8, 28, 28]);
});

it.each([[config(48, [6, 21, 21])], [config(64)], [config(30, [10, 10, 11])], [config(12, [12, 0, 0])]])(
  'refuses axes of %j',
  (bad) => {
    expect(() => fluxSpecFromConfig(bad)).toThrow(expect.objectContaining({ code: 'weights-invalid' }));
  },
);

it.each([16, 24, 48, 72])('refuses to guess for a head of %i', (headSize) => {
  expect(() => fluxSpecFromShapes(shapes(headSize))).toThrow(/axes_dims_rope/);
});
