// The T5 v1.1 encoder (Raffel et al. 2020, arXiv:1910.10683; gated GELU: Shazeer 2020, arXiv:2002.05202).
// FLUX passes 512 tokens without a mask: pads are ordinary tokens.

import * as e from '../expr/expr.ts';
import type { Builder } from '../graph/builder.ts';
import type { Graph, Tensor } from '../graph/graph.ts';

export interface T5Spec {
  vocabulary: number;
  width: number;
  /** Channels of one head; heads · headSize may differ from the width. */
  headSize: number;
  heads: number;
  mlpWidth: number;
  layers: number;
  buckets: number;
  maxDistance: number;
  eps: number;
}

/**
 * @param tokens sequence length, pads included
 * @param validTokens tokens the others may attend to (an attention mask of leading ones); all by default
 */
export function buildT5(g: Builder, spec: T5Spec, tokens: number, validTokens?: number): Graph {
  const inner = spec.heads * spec.headSize;
  const norm = (x: Tensor, name: string): Tensor => {
    const scale = g.vector(`${name}.weight`, spec.width);
    return g.map([g.rmsNorm(x, spec.eps, `${name} without scale`), scale], e.mul(e.operand(0), e.operand(1)), name);
  };
  let x = g.input('embeddings', tokens, spec.width);
  // One bias per relative position and head, learned in the first layer and shared by all.
  const table = g.table(
    'encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight',
    spec.buckets,
    spec.heads,
  );
  const bias = g.gather(table, relativeBuckets(tokens, spec.buckets, spec.maxDistance), 'relative bias');

  for (let i = 0; i < spec.layers; i++) {
    const attention = `encoder.block.${i}.layer.0`;
    const h = norm(x, `${attention}.layer_norm`);
    const [q, k, v] = ['q', 'k', 'v'].map((p) =>
      g.linear(h, `${attention}.SelfAttention.${p}`, inner, { bias: false }),
    ) as [Tensor, Tensor, Tensor];
    // T5 does not scale its scores; the initialisation absorbs 1/√d.
    const attended = g.attention(q, k, v, {
      heads: spec.heads,
      scale: 1,
      bias,
      validKeys: validTokens,
      label: `${attention}.SelfAttention`,
    });
    const projected = g.linear(attended, `${attention}.SelfAttention.o`, spec.width, { bias: false });
    x = g.add(x, projected, `${attention} + residual`);

    const dense = `encoder.block.${i}.layer.1.DenseReluDense`;
    const m = norm(x, `encoder.block.${i}.layer.1.layer_norm`);
    const gate = g.linear(m, `${dense}.wi_0`, spec.mlpWidth, { bias: false });
    const active = g.map([gate], e.geluTanh(e.operand(0)), `${dense}.act`);
    const linear = g.linear(m, `${dense}.wi_1`, spec.mlpWidth, { bias: false });
    const product = g.map([active, linear], e.mul(e.operand(0), e.operand(1)), `${dense}.gated`);
    // Smaller on the way into f16, exactly undone in f32 behind the product.
    const smaller = g.map([product], e.mul(e.operand(0), 1 / GATED_SCALE), `${dense}.gated / ${GATED_SCALE}`);
    const output = g.linear(smaller, `${dense}.wo`, spec.width, { bias: false });
    x = g.add(
      x,
      g.map([output], e.mul(e.operand(0), GATED_SCALE), `${dense}.wo · ${GATED_SCALE}`),
      `encoder.block.${i}`,
    );
  }
  g.output('hidden', norm(x, 'encoder.final_layer_norm'));
  return g.finish();
}

/**
 * The published encoder's gated products are known to leave f16's range, where the reference's f16 runs saturate and
 * repair infinities. Divided by this, they have room up to 4.2 million; a power of two costs no precision in f32, and in
 * f16 only what lies below 0.004, which the sums do not see.
 */
const GATED_SCALE = 64;

/** Bucket of each relative position key − query = −(n−1) … n−1, bidirectional (T5, section 2.1). */
export function relativeBuckets(tokens: number, buckets: number, maxDistance: number): Uint32Array {
  const half = buckets / 2;
  const exact = half / 2;
  return Uint32Array.from({ length: 2 * tokens - 1 }, (_, i) => {
    const distance = i - (tokens - 1);
    const side = distance > 0 ? half : 0;
    const d = Math.abs(distance);
    if (d < exact) return side + d;
    // The reference evaluates the logarithms in float32; at exact powers only the truncation matters.
    const log = Math.fround(Math.fround(Math.log(Math.fround(d / exact))) / Math.fround(Math.log(maxDistance / exact)));
    return side + Math.min(half - 1, exact + Math.trunc(Math.fround(log * (half - exact))));
  });
}
