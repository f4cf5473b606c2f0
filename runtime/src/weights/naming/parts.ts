// Finds the networks in a file, whatever stands before their names, and shows each under its original names.
// A network is known by a tensor that no other has; what precedes that name is the prefix.

import type { WeightSource } from '../source.ts';
import { transformerTargets, vaeTargets } from './diffusers.ts';
import { renamed, type Target } from './views.ts';

/** The four networks of a FLUX model. */
export type NetworkName = 'clip' | 't5' | 'transformer' | 'vae';

interface Naming {
  /** A tensor's name, without prefix, that tells the naming. */
  signature: string;
  /** Names of the file (without prefix) to targets. */
  targets(names: string[]): Target[];
}

const same = (names: string[]): Target[] => names.map((name) => ({ name, from: [name] }));
const renaming =
  (rename: (name: string) => string) =>
  (names: string[]): Target[] =>
    names.map((name) => ({ name: rename(name), from: [name] }));

/** llama.cpp's names of a T5 encoder. */
const LLAMA_T5: readonly [from: RegExp, to: string][] = [
  [/^token_embd\./, 'shared.'],
  [/^enc\.output_norm\./, 'encoder.final_layer_norm.'],
  [/^enc\.blk\.(\d+)\.attn_([qkvo])\./, 'encoder.block.$1.layer.0.SelfAttention.$2.'],
  [/^enc\.blk\.(\d+)\.attn_rel_b\./, 'encoder.block.$1.layer.0.SelfAttention.relative_attention_bias.'],
  [/^enc\.blk\.(\d+)\.attn_norm\./, 'encoder.block.$1.layer.0.layer_norm.'],
  [/^enc\.blk\.(\d+)\.ffn_gate\./, 'encoder.block.$1.layer.1.DenseReluDense.wi_0.'],
  [/^enc\.blk\.(\d+)\.ffn_up\./, 'encoder.block.$1.layer.1.DenseReluDense.wi_1.'],
  [/^enc\.blk\.(\d+)\.ffn_down\./, 'encoder.block.$1.layer.1.DenseReluDense.wo.'],
  [/^enc\.blk\.(\d+)\.ffn_norm\./, 'encoder.block.$1.layer.1.layer_norm.'],
];

const fromLlama = (name: string): string => {
  const rule = LLAMA_T5.find(([from]) => from.test(name));
  return rule ? name.replace(...rule) : name;
};

/** T5's one table has two names; one of them is enough. */
function t5Targets(names: string[]): Target[] {
  const targets = same(names);
  if (!names.includes('shared.weight') && names.includes('encoder.embed_tokens.weight')) {
    targets.push({ name: 'shared.weight', from: ['encoder.embed_tokens.weight'] });
  }
  return targets;
}

/** The namings of each network, most usual first. */
const NAMINGS: Record<NetworkName, readonly Naming[]> = {
  transformer: [
    { signature: 'double_blocks.0.img_attn.proj.weight', targets: same },
    { signature: 'transformer_blocks.0.attn.to_q.weight', targets: transformerTargets },
  ],
  vae: [
    { signature: 'decoder.mid.attn_1.q.weight', targets: same },
    { signature: 'decoder.mid_block.attentions.0.to_q.weight', targets: vaeTargets },
  ],
  t5: [
    { signature: 'encoder.block.0.layer.0.SelfAttention.q.weight', targets: t5Targets },
    { signature: 'enc.blk.0.attn_q.weight', targets: renaming(fromLlama) },
  ],
  clip: [
    { signature: 'text_model.encoder.layers.0.self_attn.q_proj.weight', targets: same },
    {
      signature: 'encoder.layers.0.self_attn.q_proj.weight',
      targets: renaming((name) => (name.startsWith('text_model.') ? name : `text_model.${name}`)),
    },
  ],
};

/** Where a network is in a file. */
export interface FoundNetwork {
  prefix: string;
  naming: Naming;
}

/** Prefixes of other encoders of the same kind, which are not FLUX's. */
const OTHERS =
  /clip_g|clip_h|clip_vision|vision_model|image_encoder|conditioner\.embedders\.1|text_encoder_3|umt5|gemma|qwen/;

/** All networks in a file, with what precedes their names there. */
export function findNetworks(names: Iterable<string>): Map<NetworkName, FoundNetwork> {
  const found = new Map<NetworkName, FoundNetwork>();
  const all = [...names];
  for (const network of Object.keys(NAMINGS) as NetworkName[]) {
    for (const naming of NAMINGS[network]) {
      const prefixes = all
        .filter((name) => name === naming.signature || name.endsWith(`.${naming.signature}`))
        .map((name) => name.slice(0, -naming.signature.length))
        .filter((prefix) => !OTHERS.test(prefix));
      // The plainest: a file that is one network has no prefix.
      const prefix = prefixes.sort((a, b) => a.length - b.length)[0];
      if (prefix === undefined) continue;
      found.set(network, { prefix, naming });
      break;
    }
  }
  return found;
}

/** A network of a file under its original names; everything else in the file is left out. */
export function networkView(source: WeightSource, { prefix, naming }: FoundNetwork): WeightSource {
  const names = [...source.tensors.keys()].filter((name) => name.startsWith(prefix));
  const targets = naming.targets(names.map((name) => name.slice(prefix.length)));
  if (prefix === '' && targets.every(({ name, from }) => from.length === 1 && from[0] === name)) return source;
  return renamed(
    source,
    targets.map((target) => ({ ...target, from: target.from.map((name) => prefix + name) })),
  );
}
