// The CLIP text encoder (Radford et al. 2021, arXiv:2103.00020): a causal pre-norm transformer.
// FLUX uses only its pooled output: the final norm's row at the end-of-text token.

import * as e from '../expr/expr.ts';
import type { Builder } from '../graph/builder.ts';
import type { Graph, Tensor } from '../graph/graph.ts';

export interface ClipSpec {
  vocabulary: number;
  width: number;
  heads: number;
  mlpWidth: number;
  layers: number;
  positions: number;
  eps: number;
  activation: 'quick_gelu' | 'gelu_tanh';
}

export function buildClip(g: Builder, spec: ClipSpec, tokens: number): Graph {
  const norm = (x: Tensor, name: string): Tensor => {
    const [scale, shift] = [g.vector(`${name}.weight`, spec.width), g.vector(`${name}.bias`, spec.width)];
    const expr = e.add(e.mul(e.operand(0), e.operand(1)), e.operand(2));
    return g.map([g.layerNorm(x, spec.eps, `${name} without scale`), scale, shift], expr, name);
  };
  const activation = spec.activation === 'quick_gelu' ? e.quickGelu : e.geluTanh;
  const positions = 'text_model.embeddings.position_embedding.weight';
  const table = g.table(positions, tokens, spec.width, tokens === spec.positions ? undefined : [0, tokens]);
  let x = g.add(g.input('embeddings', tokens, spec.width), table, 'embeddings + positions');

  for (let i = 0; i < spec.layers; i++) {
    const name = `text_model.encoder.layers.${i}`;
    const h = norm(x, `${name}.layer_norm1`);
    const [q, k, v] = ['q', 'k', 'v'].map((p) => g.linear(h, `${name}.self_attn.${p}_proj`, spec.width)) as [
      Tensor,
      Tensor,
      Tensor,
    ];
    const attended = g.attention(q, k, v, {
      heads: spec.heads,
      scale: 1 / Math.sqrt(spec.width / spec.heads),
      causal: true,
      label: `${name}.self_attn`,
    });
    x = g.add(x, g.linear(attended, `${name}.self_attn.out_proj`, spec.width), `${name} + attention`);
    const wide = g.linear(norm(x, `${name}.layer_norm2`), `${name}.mlp.fc1`, spec.mlpWidth);
    const active = g.map([wide], activation(e.operand(0)), `${name}.mlp.activation`);
    x = g.add(x, g.linear(active, `${name}.mlp.fc2`, spec.width), name);
  }
  g.output('hidden', norm(x, 'text_model.final_layer_norm'));
  return g.finish();
}
