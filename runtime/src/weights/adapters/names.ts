// Every name under which adapter files speak of a model's modules, made from the model's own tensors.
// Looking names up beats turning underscores into dots: `img_attn_qkv` has both kinds of underscore.

import type { AdapterPart, ModelTensors } from './types.ts';

/** A module of the model, or the rows of it that a file's module stands for. */
export interface NamedModule {
  part: AdapterPart;
  module: string;
  rows?: [first: number, end: number];
  swapHalves?: boolean;
}

/** Modules by the name after a file's prefix, with dots and with underscores. */
export interface ModuleNames {
  dotted: ReadonlyMap<string, NamedModule>;
  underscored: ReadonlyMap<string, NamedModule>;
}

export function moduleNames(part: AdapterPart, tensors: ModelTensors[AdapterPart]): ModuleNames {
  const dotted = new Map<string, NamedModule>();
  for (const [tensor, { shape }] of tensors) {
    const [, module] = /^(.*)\.(?:weight|scale)$/.exec(tensor) ?? [];
    if (module === undefined) continue;
    for (const [name, named] of aliases(part, module, shape)) dotted.set(name, named);
  }
  const underscored = new Map([...dotted].map(([name, named]) => [name.replaceAll('.', '_'), named]));
  return { dotted, underscored };
}

function aliases(part: AdapterPart, module: string, shape: readonly number[]): [string, NamedModule][] {
  const whole: NamedModule = { part, module };
  const found: [string, NamedModule][] = [[module, whole]];
  if (part !== 'transformer') {
    // Some trainers wrap the encoder once less.
    if (module.startsWith('text_model.')) found.push([module.slice('text_model.'.length), whole]);
    return found;
  }
  const [rows = 0, cols = 0] = shape;
  const [, kind, index, inner] = /^(double|single)_blocks\.(\d+)\.(.*)$/.exec(module) ?? [];
  if (kind === undefined) {
    const theirs = TOP_LEVEL[module];
    if (theirs) found.push([theirs, { ...whole, ...(theirs === 'norm_out.linear' ? { swapHalves: true } : {}) }]);
    return found;
  }
  const diffusers = `${kind === 'single' ? 'single_' : ''}transformer_blocks.${index}`;
  const stacked = (i: number, of: number): [number, number] => [i * cols, i === of - 1 ? rows : (i + 1) * cols];
  const parts = (kind === 'single' ? SINGLE_BLOCK : DOUBLE_BLOCK)[inner!] ?? [];
  parts.forEach((theirs, i) => {
    found.push([`${diffusers}.${theirs}`, parts.length === 1 ? whole : { ...whole, rows: stacked(i, parts.length) }]);
  });
  for (const [theirs, ours, heads] of XLABS) {
    if (ours !== `${kind}.${inner}`) continue;
    found.push([
      `${kind}_blocks.${index}.processor.${theirs}`,
      heads && rows > 3 * cols ? { ...whole, rows: [0, 3 * cols] } : whole,
    ]);
  }
  return found;
}

const TOP_LEVEL: Readonly<Record<string, string>> = {
  img_in: 'x_embedder',
  txt_in: 'context_embedder',
  'time_in.in_layer': 'time_text_embed.timestep_embedder.linear_1',
  'time_in.out_layer': 'time_text_embed.timestep_embedder.linear_2',
  'vector_in.in_layer': 'time_text_embed.text_embedder.linear_1',
  'vector_in.out_layer': 'time_text_embed.text_embedder.linear_2',
  'guidance_in.in_layer': 'time_text_embed.guidance_embedder.linear_1',
  'guidance_in.out_layer': 'time_text_embed.guidance_embedder.linear_2',
  'final_layer.adaLN_modulation.1': 'norm_out.linear',
  'final_layer.linear': 'proj_out',
};

/** BFL's modules of a double block to diffusers'; several are stacked by rows, in this order. */
const DOUBLE_BLOCK: Readonly<Record<string, readonly string[]>> = {
  'img_mod.lin': ['norm1.linear'],
  'txt_mod.lin': ['norm1_context.linear'],
  'img_attn.qkv': ['attn.to_q', 'attn.to_k', 'attn.to_v'],
  'txt_attn.qkv': ['attn.add_q_proj', 'attn.add_k_proj', 'attn.add_v_proj'],
  'img_attn.norm.query_norm': ['attn.norm_q'],
  'img_attn.norm.key_norm': ['attn.norm_k'],
  'txt_attn.norm.query_norm': ['attn.norm_added_q'],
  'txt_attn.norm.key_norm': ['attn.norm_added_k'],
  'img_attn.proj': ['attn.to_out.0'],
  'txt_attn.proj': ['attn.to_add_out'],
  'img_mlp.0': ['ff.net.0.proj'],
  'img_mlp.2': ['ff.net.2'],
  'txt_mlp.0': ['ff_context.net.0.proj'],
  'txt_mlp.2': ['ff_context.net.2'],
};

const SINGLE_BLOCK: Readonly<Record<string, readonly string[]>> = {
  'modulation.lin': ['norm.linear'],
  linear1: ['attn.to_q', 'attn.to_k', 'attn.to_v', 'proj_mlp'],
  linear2: ['proj_out'],
  'norm.query_norm': ['attn.norm_q'],
  'norm.key_norm': ['attn.norm_k'],
};

/** XLabs names its factors after attention processors: 1 is the image stream, 2 the text stream; qkv are the first rows of `linear1`. */
const XLABS: readonly [theirs: string, ours: string, heads: boolean][] = [
  ['qkv_lora1', 'double.img_attn.qkv', false],
  ['proj_lora1', 'double.img_attn.proj', false],
  ['qkv_lora2', 'double.txt_attn.qkv', false],
  ['proj_lora2', 'double.txt_attn.proj', false],
  ['qkv_lora', 'single.linear1', true],
  ['proj_lora', 'single.linear2', false],
];
