// Reads model specs from a checkpoint: from its config files, or from its tensor shapes when there are none.
// The specs of the released FLUX.1 Kontext [dev] are here too, so that it can be compiled without its weights.

import { KontextError } from '../../../runtime/src/errors.ts';
import type { VaeSpec } from './autoencoder.ts';
import type { ClipSpec } from './clip.ts';
import type { FluxSpec } from './flux.ts';
import type { T5Spec } from './t5.ts';
import type { TinyDecoderSpec } from './tiny-decoder.ts';

export const FLUX1_KONTEXT_DEV: { transformer: FluxSpec; t5: T5Spec; clip: ClipSpec; vae: VaeSpec } = {
  transformer: {
    inChannels: 64,
    outChannels: 64,
    hidden: 3072,
    heads: 24,
    doubleBlocks: 19,
    singleBlocks: 38,
    mlpRatio: 4,
    textWidth: 4096,
    pooledWidth: 768,
    axes: [16, 56, 56],
    theta: 10000,
    guidance: true,
    qkvBias: true,
  },
  t5: {
    vocabulary: 32128,
    width: 4096,
    headSize: 64,
    heads: 64,
    mlpWidth: 10240,
    layers: 24,
    buckets: 32,
    maxDistance: 128,
    eps: 1e-6,
  },
  clip: {
    vocabulary: 49408,
    width: 768,
    heads: 12,
    mlpWidth: 3072,
    layers: 12,
    positions: 77,
    eps: 1e-5,
    activation: 'quick_gelu',
  },
  vae: { channels: [128, 256, 512, 512], blocks: 2, latentChannels: 16, groups: 32, scale: 0.3611, shift: 0.1159 },
};

type Config = Readonly<Record<string, unknown>>;

/** From `transformer/config.json` of a diffusers folder (`FluxTransformer2DModel`). */
export function fluxSpecFromConfig(config: Config): FluxSpec {
  const heads = number(config, 'num_attention_heads');
  const inChannels = number(config, 'in_channels');
  return {
    inChannels,
    outChannels: config.out_channels == null ? inChannels : number(config, 'out_channels'),
    hidden: heads * number(config, 'attention_head_dim'),
    heads,
    doubleBlocks: number(config, 'num_layers'),
    singleBlocks: number(config, 'num_single_layers'),
    mlpRatio: 4,
    textWidth: number(config, 'joint_attention_dim'),
    pooledWidth: number(config, 'pooled_projection_dim'),
    axes: rotaryAxes(numbers(config, 'axes_dims_rope', [16, 56, 56]), number(config, 'attention_head_dim')),
    theta: 10000,
    guidance: config.guidance_embeds === true,
    qkvBias: true,
  };
}

/** Rotary embedding turns pairs, so axes are even; together they are the head. */
function rotaryAxes(axes: number[], headSize: number): number[] {
  const sum = axes.reduce((a, b) => a + b, 0);
  if (sum === headSize && axes.every((axis) => Number.isInteger(axis) && axis > 0 && axis % 2 === 0)) return axes;
  throw invalid(
    `rotary axes ${axes.join(', ')} do not fit a head of ${headSize}: each must be even, and they must add up to it. ` +
      'A file without a config gets the shares of FLUX.1, 1/8 and twice 7/16; other models need their config.json with axes_dims_rope',
  );
}

/** From `text_encoder_2/config.json` (`T5EncoderModel`, gated GELU). */
export function t5SpecFromConfig(config: Config): T5Spec {
  if (config.feed_forward_proj !== 'gated-gelu') {
    throw invalid(
      `feed_forward_proj ${JSON.stringify(config.feed_forward_proj)} is not supported; FLUX uses T5 v1.1 with "gated-gelu"`,
    );
  }
  return {
    vocabulary: number(config, 'vocab_size'),
    width: number(config, 'd_model'),
    headSize: number(config, 'd_kv'),
    heads: number(config, 'num_heads'),
    mlpWidth: number(config, 'd_ff'),
    layers: number(config, 'num_layers'),
    buckets: number(config, 'relative_attention_num_buckets', 32),
    maxDistance: number(config, 'relative_attention_max_distance', 128),
    eps: number(config, 'layer_norm_epsilon', 1e-6),
  };
}

/** From `text_encoder/config.json` (`CLIPTextModel`, or the whole of CLIP, whose text encoder it describes apart). */
export function clipSpecFromConfig(whole: Config): ClipSpec {
  const config = typeof whole.text_config === 'object' && whole.text_config ? (whole.text_config as Config) : whole;
  const activation = config.hidden_act ?? 'quick_gelu';
  if (activation !== 'quick_gelu')
    throw invalid(`hidden_act ${JSON.stringify(activation)} is not supported; CLIP-L uses "quick_gelu"`);
  return {
    vocabulary: number(config, 'vocab_size'),
    width: number(config, 'hidden_size'),
    heads: number(config, 'num_attention_heads'),
    mlpWidth: number(config, 'intermediate_size'),
    layers: number(config, 'num_hidden_layers'),
    positions: number(config, 'max_position_embeddings', 77),
    eps: number(config, 'layer_norm_eps', 1e-5),
    activation,
  };
}

/** From `vae/config.json` (`AutoencoderKL`). */
export function vaeSpecFromConfig(config: Config): VaeSpec {
  if (config.use_quant_conv === true || config.use_post_quant_conv === true) {
    throw invalid('use_quant_conv and use_post_quant_conv are not supported; FLUX’s autoencoder has neither');
  }
  return {
    channels: numbers(config, 'block_out_channels'),
    blocks: number(config, 'layers_per_block'),
    latentChannels: number(config, 'latent_channels'),
    groups: number(config, 'norm_num_groups', 32),
    scale: number(config, 'scaling_factor'),
    shift: number(config, 'shift_factor', 0),
  };
}

/** Shape of a checkpoint's tensor under its BFL name, or undefined when it is not there. */
export type ShapeOf = (name: string) => readonly number[] | undefined;

/**
 * From the tensors of a BFL transformer file. Rotary axes and theta are not stored there: those of FLUX.1 are assumed,
 * scaled to the head size.
 * @throws KontextError `weights-invalid` for a head size that does not divide so
 */
export function fluxSpecFromShapes(shapeOf: ShapeOf): FluxSpec {
  const [hidden, inChannels] = shape(shapeOf, 'img_in.weight');
  const [headSize] = shape(shapeOf, 'double_blocks.0.img_attn.norm.query_norm.scale');
  const [mlpWidth] = shape(shapeOf, 'double_blocks.0.img_mlp.0.weight');
  return {
    inChannels: inChannels!,
    outChannels: shape(shapeOf, 'final_layer.linear.weight')[0]!,
    hidden: hidden!,
    heads: hidden! / headSize!,
    doubleBlocks: count((i) => shapeOf(`double_blocks.${i}.img_mod.lin.weight`)),
    singleBlocks: count((i) => shapeOf(`single_blocks.${i}.linear1.weight`)),
    mlpRatio: mlpWidth! / hidden!,
    textWidth: shape(shapeOf, 'txt_in.weight')[1]!,
    pooledWidth: shape(shapeOf, 'vector_in.in_layer.weight')[1]!,
    axes: rotaryAxes([headSize! / 8, (headSize! * 7) / 16, (headSize! * 7) / 16], headSize!),
    theta: 10000,
    guidance: shapeOf('guidance_in.in_layer.weight') !== undefined,
    qkvBias: shapeOf('double_blocks.0.img_attn.qkv.bias') !== undefined,
  };
}

/** From the tensors of a BFL autoencoder file; groups, scale and shift are FLUX's. */
export function vaeSpecFromShapes(shapeOf: ShapeOf): VaeSpec {
  const levels = count((i) => shapeOf(`encoder.down.${i}.block.0.conv1.weight`));
  const channels = Array.from(
    { length: levels },
    (_, i) => shape(shapeOf, `encoder.down.${i}.block.0.conv1.weight`)[0]!,
  );
  return {
    ...FLUX1_KONTEXT_DEV.vae,
    channels,
    blocks: count((i) => shapeOf(`encoder.down.0.block.${i}.conv1.weight`)),
    latentChannels: shape(shapeOf, 'decoder.conv_in.weight')[1]!,
  };
}

/** From the tensors of a T5 encoder file; buckets' maximum distance and eps are T5 v1.1's. */
export function t5SpecFromShapes(shapeOf: ShapeOf): T5Spec {
  const attention = 'encoder.block.0.layer.0.SelfAttention';
  const [vocabulary, width] = shape(shapeOf, 'shared.weight');
  const [buckets, heads] = shape(shapeOf, `${attention}.relative_attention_bias.weight`);
  return {
    ...FLUX1_KONTEXT_DEV.t5,
    vocabulary: vocabulary!,
    width: width!,
    heads: heads!,
    headSize: shape(shapeOf, `${attention}.q.weight`)[0]! / heads!,
    mlpWidth: shape(shapeOf, 'encoder.block.0.layer.1.DenseReluDense.wi_0.weight')[0]!,
    layers: count((i) => shapeOf(`encoder.block.${i}.layer.0.SelfAttention.q.weight`)),
    buckets: buckets!,
  };
}

/** From the tensors of a CLIP text encoder file; heads of 64 channels, as in CLIP-L. */
export function clipSpecFromShapes(shapeOf: ShapeOf): ClipSpec {
  const [vocabulary, width] = shape(shapeOf, 'text_model.embeddings.token_embedding.weight');
  if (width! % 64 !== 0) {
    throw invalid(
      `a CLIP text encoder of width ${width} has no heads of 64 channels, and its file does not tell how many it has. ` +
        'Put its config.json into text_encoder/, or give it as configs.clip',
    );
  }
  return {
    ...FLUX1_KONTEXT_DEV.clip,
    vocabulary: vocabulary!,
    width: width!,
    heads: width! / 64,
    mlpWidth: shape(shapeOf, 'text_model.encoder.layers.0.mlp.fc1.weight')[0]!,
    layers: count((i) => shapeOf(`text_model.encoder.layers.${i}.mlp.fc1.weight`)),
    positions: shape(shapeOf, 'text_model.embeddings.position_embedding.weight')[0]!,
  };
}

/** From the tensors of a small decoder under diffusers' names (`AutoencoderTiny`). */
export function tinyDecoderSpecFromShapes(shapeOf: ShapeOf): TinyDecoderSpec {
  const [channels, latentChannels] = shape(shapeOf, 'decoder.layers.0.weight');
  const blocks: number[] = [];
  for (let layer = 2; ; layer += 2) {
    const inLevel = count((i) => shapeOf(`decoder.layers.${layer + i}.conv.0.weight`));
    blocks.push(inLevel);
    layer += inLevel;
    // The last level ends in a convolution, the others in an enlargement, which has no weights, and a convolution.
    if (shapeOf(`decoder.layers.${layer}.weight`)) break;
    shape(shapeOf, `decoder.layers.${layer + 1}.weight`);
  }
  return { latentChannels: latentChannels!, channels: channels!, blocks };
}

function shape(shapeOf: ShapeOf, name: string): readonly number[] {
  const found = shapeOf(name);
  if (found) return found;
  throw new KontextError(
    'weights-invalid',
    `The checkpoint has no tensor "${name}"; it is not a FLUX.1 file of this kind.`,
    {
      tensor: name,
    },
  );
}

function count(at: (i: number) => unknown): number {
  let i = 0;
  while (at(i) !== undefined) i++;
  return i;
}

function number(config: Config, key: string, fallback?: number): number {
  const value = config[key] ?? fallback;
  if (typeof value === 'number' && Number.isFinite(value)) return value;
  throw invalid(`"${key}" must be a number, not ${JSON.stringify(config[key])}`);
}

function numbers(config: Config, key: string, fallback?: number[]): number[] {
  const value = config[key] ?? fallback;
  if (Array.isArray(value) && value.length > 0 && value.every((v) => typeof v === 'number')) return value;
  throw invalid(`"${key}" must be a list of numbers, not ${JSON.stringify(config[key])}`);
}

const invalid = (why: string): KontextError => new KontextError('weights-invalid', `Model config: ${why}.`);
