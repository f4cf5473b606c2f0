// The key styles of adapter files as data: what may stand before a module's name, and what behind it.
// A new trainer's style is a line here.

import type { AdapterPart } from './types.ts';

/** What a tensor is to its module. */
export type Role =
  | 'down'
  | 'up'
  | 'bias'
  | 'alpha'
  | 'w1'
  | 'w1a'
  | 'w1b'
  | 'w2'
  | 'w2a'
  | 'w2b'
  | 'difference'
  | 'bias-difference'
  /** Known, and not supported: the reason is told. */
  | { refused: string };

export interface Leaf {
  /** Matches the end of a key, from the dot on. */
  pattern: RegExp;
  role: Role;
  /** Which family of updates the roles `w1…` belong to. */
  family?: 'loha' | 'lokr';
}

const DORA = 'DoRA (a magnitude for each row) is not supported';
const TUCKER = 'Tucker decompositions of convolutions are not supported: FLUX has none';

/** The first match counts. `[^.]+` is the adapter's name that PEFT writes inside. */
export const LEAVES: readonly Leaf[] = [
  { pattern: /\.lora_magnitude_vector(?:\.[^.]+)*$/, role: { refused: DORA } },
  { pattern: /\.dora_scale$/, role: { refused: DORA } },
  { pattern: /\.(?:hada_t[12]|lokr_t2|lora_mid\.weight)$/, role: { refused: TUCKER } },
  { pattern: /\.lora_A(?:\.[^.]+)?(?:\.weight)?$/, role: 'down' },
  { pattern: /\.lora_B(?:\.(?!bias$)[^.]+)?\.bias$/, role: 'bias' },
  { pattern: /\.lora_B(?:\.[^.]+)?(?:\.weight)?$/, role: 'up' },
  { pattern: /(?:\.lora_linear_layer|\.lora)?\.(?:lora_)?down\.weight$/, role: 'down' },
  { pattern: /(?:\.lora_linear_layer|\.lora)?\.(?:lora_)?up\.weight$/, role: 'up' },
  { pattern: /\.(?:lora_)?up\.bias$/, role: 'bias' },
  { pattern: /\.alpha$/, role: 'alpha' },
  { pattern: /\.hada_w1_a$/, role: 'w1a', family: 'loha' },
  { pattern: /\.hada_w1_b$/, role: 'w1b', family: 'loha' },
  { pattern: /\.hada_w2_a$/, role: 'w2a', family: 'loha' },
  { pattern: /\.hada_w2_b$/, role: 'w2b', family: 'loha' },
  { pattern: /\.lokr_w1$/, role: 'w1', family: 'lokr' },
  { pattern: /\.lokr_w1_a$/, role: 'w1a', family: 'lokr' },
  { pattern: /\.lokr_w1_b$/, role: 'w1b', family: 'lokr' },
  { pattern: /\.lokr_w2$/, role: 'w2', family: 'lokr' },
  { pattern: /\.lokr_w2_a$/, role: 'w2a', family: 'lokr' },
  { pattern: /\.lokr_w2_b$/, role: 'w2b', family: 'lokr' },
  { pattern: /\.(?:diff|w_norm)$/, role: 'difference' },
  { pattern: /\.(?:diff_b|b_norm)$/, role: 'bias-difference' },
  {
    pattern: /\.(?:weight|bias|scale|set_weight|reshape_weight)$/,
    role: { refused: 'whole values are not supported, only changes' },
  },
];

export interface Prefix {
  text: string;
  parts: readonly AdapterPart[];
  /** Module names behind it have underscores for dots. */
  underscored: boolean;
  /** For people. */
  style: string;
}

const dotted = (text: string, style: string, ...parts: AdapterPart[]): Prefix => ({
  text,
  parts,
  underscored: false,
  style,
});
const under = (text: string, style: string, ...parts: AdapterPart[]): Prefix => ({
  text,
  parts,
  underscored: true,
  style,
});

/** Tried in order; a name must be known behind its prefix. PEFT's wrapper `base_model.model.` may stand before any. */
export const PREFIXES: readonly Prefix[] = [
  dotted('transformer.', 'diffusers', 'transformer'),
  dotted('model.diffusion_model.', 'BFL names', 'transformer'),
  dotted('diffusion_model.', 'BFL names', 'transformer'),
  dotted('text_encoder.', 'diffusers', 'clip'),
  dotted('text_encoder_2.', 'diffusers', 't5'),
  dotted('text_encoders.clip_l.transformer.', 'BFL names', 'clip'),
  dotted('text_encoders.t5xxl.transformer.', 'BFL names', 't5'),
  under('lora_unet_', 'kohya', 'transformer'),
  under('lora_te1_', 'kohya', 'clip'),
  under('lora_te_', 'kohya', 'clip'),
  // Stable Diffusion 3's scripts number T5 third, OneTrainer second.
  under('lora_te3_', 'kohya', 't5'),
  under('lora_te2_', 'OneTrainer', 't5'),
  under('lora_transformer_', 'OneTrainer', 'transformer'),
  under('lycoris_', 'LyCORIS', 'transformer', 'clip', 't5'),
  dotted('', 'no prefix', 'transformer', 'clip', 't5'),
];

export const WRAPPER = 'base_model.model.';
