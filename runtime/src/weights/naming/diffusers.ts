// diffusers' names of the transformer and the autoencoder, as rules that give the original (BFL) names.
//
// The rules were derived from the two public implementations' parameter lists: diffusers splits qkv and linear1 by rows,
// numbers the decoder's up-blocks from the other end, writes 1×1 convolutions of the VAE's attention as linears, and
// stores norm_out as [scale, shift] where BFL's final layer has [shift, scale].

import type { Target } from './views.ts';

const EMBEDDERS: Record<string, string> = {
  x_embedder: 'img_in',
  context_embedder: 'txt_in',
  'time_text_embed.timestep_embedder.linear_1': 'time_in.in_layer',
  'time_text_embed.timestep_embedder.linear_2': 'time_in.out_layer',
  'time_text_embed.text_embedder.linear_1': 'vector_in.in_layer',
  'time_text_embed.text_embedder.linear_2': 'vector_in.out_layer',
  'time_text_embed.guidance_embedder.linear_1': 'guidance_in.in_layer',
  'time_text_embed.guidance_embedder.linear_2': 'guidance_in.out_layer',
  proj_out: 'final_layer.linear',
};

/** Inside `transformer_blocks.N.`, to what follows `double_blocks.N.`; arrays concatenate. */
const DOUBLE_BLOCK: [from: string[], to: string][] = [
  [['norm1.linear'], 'img_mod.lin'],
  [['norm1_context.linear'], 'txt_mod.lin'],
  [['attn.to_q', 'attn.to_k', 'attn.to_v'], 'img_attn.qkv'],
  [['attn.add_q_proj', 'attn.add_k_proj', 'attn.add_v_proj'], 'txt_attn.qkv'],
  [['attn.norm_q'], 'img_attn.norm.query_norm'],
  [['attn.norm_k'], 'img_attn.norm.key_norm'],
  [['attn.norm_added_q'], 'txt_attn.norm.query_norm'],
  [['attn.norm_added_k'], 'txt_attn.norm.key_norm'],
  [['attn.to_out.0'], 'img_attn.proj'],
  [['attn.to_add_out'], 'txt_attn.proj'],
  [['ff.net.0.proj'], 'img_mlp.0'],
  [['ff.net.2'], 'img_mlp.2'],
  [['ff_context.net.0.proj'], 'txt_mlp.0'],
  [['ff_context.net.2'], 'txt_mlp.2'],
];

const SINGLE_BLOCK: [from: string[], to: string][] = [
  [['norm.linear'], 'modulation.lin'],
  [['attn.to_q', 'attn.to_k', 'attn.to_v', 'proj_mlp'], 'linear1'],
  [['attn.norm_q'], 'norm.query_norm'],
  [['attn.norm_k'], 'norm.key_norm'],
  [['proj_out'], 'linear2'],
];

export function transformerTargets(names: string[]): Target[] {
  const targets: Target[] = [];
  for (const name of names) {
    const [, module, leaf] = /^(.*)\.(weight|bias)$/.exec(name) ?? [];
    if (module === undefined) continue;
    if (module === 'norm_out.linear') {
      targets.push({ name: `final_layer.adaLN_modulation.1.${leaf}`, from: [name], swapHalves: true });
      continue;
    }
    const embedder = EMBEDDERS[module];
    if (embedder) {
      targets.push({ name: `${embedder}.${leaf}`, from: [name] });
      continue;
    }
    const [, kind, index, inner] = /^(single_)?transformer_blocks\.(\d+)\.(.*)$/.exec(module) ?? [];
    const rule = (kind ? SINGLE_BLOCK : DOUBLE_BLOCK).find(([from]) => from[0] === inner);
    if (!rule) continue;
    const [from, to] = rule;
    const [theirs, ours] = kind
      ? ['single_transformer_blocks', 'single_blocks']
      : ['transformer_blocks', 'double_blocks'];
    targets.push({
      // BFL's RMS norms call their only parameter `scale`.
      name: `${ours}.${index}.${to}.${to.includes('norm.') ? 'scale' : leaf}`,
      from: from.map((part) => `${theirs}.${index}.${part}.${leaf}`),
    });
  }
  return targets;
}

const VAE_ATTENTION: Record<string, string> = {
  group_norm: 'norm',
  to_q: 'q',
  to_k: 'k',
  to_v: 'v',
  'to_out.0': 'proj_out',
};

export function vaeTargets(names: string[]): Target[] {
  const upBlocks = 1 + Math.max(...names.map((name) => Number(/^decoder\.up_blocks\.(\d+)\./.exec(name)?.[1] ?? -1)));
  return names.map((name): Target => {
    const attention = /^(.*)\.mid_block\.attentions\.0\.(.*)\.(weight|bias)$/.exec(name);
    const inner = attention && VAE_ATTENTION[attention[2]!];
    if (inner) {
      return {
        name: `${attention[1]}.mid.attn_1.${inner}.${attention[3]}`,
        from: [name],
        conv1x1: inner !== 'norm' && attention[3] === 'weight',
      };
    }
    const ours = name
      .replace(/\.down_blocks\.(\d+)\./, '.down.$1.')
      .replace(/\.up_blocks\.(\d+)\./, (_, index: string) => `.up.${upBlocks - 1 - Number(index)}.`)
      .replace(/\.mid_block\.resnets\.(\d+)\./, (_, index: string) => `.mid.block_${Number(index) + 1}.`)
      .replace(/\.resnets\.(\d+)\./, '.block.$1.')
      .replace('.downsamplers.0.', '.downsample.')
      .replace('.upsamplers.0.', '.upsample.')
      .replace('.conv_shortcut.', '.nin_shortcut.')
      .replace('.conv_norm_out.', '.norm_out.');
    return { name: ours, from: [name] };
  });
}
