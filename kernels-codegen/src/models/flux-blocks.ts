// The layers of FLUX.1's blocks for one kind of tokens at a time; which tokens attend to which is said elsewhere.
// Names are the released checkpoint's; shared by the plain network and by those that treat attention otherwise.

import { modulationLayout } from '../../../runtime/src/program/modulation-rows.ts';
import * as e from '../expr/expr.ts';
import type { Builder } from '../graph/builder.ts';
import type { Tensor } from '../graph/graph.ts';

export interface FluxSpec {
  /** Channels of a latent token: latent channels × 2 × 2. */
  inChannels: number;
  outChannels: number;
  hidden: number;
  heads: number;
  doubleBlocks: number;
  singleBlocks: number;
  /** Width of the MLPs, in multiples of `hidden`. */
  mlpRatio: number;
  /** Channels of the T5 states. */
  textWidth: number;
  /** Channels of the pooled CLIP vector. */
  pooledWidth: number;
  /** Rotary channels of each position axis (t, y, x); they sum to the head size. */
  axes: number[];
  theta: number;
  guidance: boolean;
  qkvBias: boolean;
}

/** Shift and scale before a layer, and the gate after it. */
interface Modulation {
  shift: Tensor;
  scale: Tensor;
  gate: () => Tensor;
}

/** Which of a double block's two sets of weights. */
export type Stream = 'txt' | 'img';

export function fluxBlocks(g: Builder, spec: FluxSpec) {
  const { hidden } = spec;
  const size = hidden / spec.heads;
  const columns = new Map(modulationLayout(spec).map((m) => [m.name, m.first]));
  /** (shift, scale, gate) triples of a modulation layer, in a row of the table. */
  const modulation = (row: Tensor, layer: string, index: number): Modulation => {
    const at = (chunk: number): Tensor => g.cols(row, columns.get(layer)! + (3 * index + chunk) * hidden, hidden);
    return { shift: at(0), scale: at(1), gate: () => at(2) };
  };
  const headNorm = (qkv: Tensor, norm: string, rope: Tensor): Tensor =>
    g.headNorm(qkv, {
      heads: spec.heads,
      size,
      query: g.vector(`${norm}.query_norm.scale`, size),
      key: g.vector(`${norm}.key_norm.scale`, size),
      rope,
      label: norm,
    });
  return {
    /** Normalised and rotated `[tokens, 3·hidden]` q, k and v of a double block. */
    doubleQkv(i: number, s: Stream, x: Tensor, row: Tensor, rope: Tensor): Tensor {
      const name = `double_blocks.${i}`;
      const at = `${name}.${s}_attn`;
      const h = modulate(g, x, modulation(row, `${name}.${s}_mod.lin`, 0), `${name}.${s}_norm1`);
      const qkv = g.linear(h, `${at}.qkv`, 3 * hidden, { bias: spec.qkvBias, stacked: 3 });
      return headNorm(qkv, `${at}.norm`, rope);
    },
    /** What follows a double block's attention. */
    doubleRest(i: number, s: Stream, before: Tensor, attended: Tensor, row: Tensor): Tensor {
      const name = `double_blocks.${i}`;
      const mod = `${name}.${s}_mod.lin`;
      const projected = g.linear(attended, `${name}.${s}_attn.proj`, hidden);
      const x = gated(g, before, modulation(row, mod, 0).gate(), projected, `${name}.${s} + attention`);
      const h = modulate(g, x, modulation(row, mod, 1), `${name}.${s}_norm2`);
      const wide = g.linear(h, `${name}.${s}_mlp.0`, hidden * spec.mlpRatio);
      const active = g.map([wide], e.geluTanh(e.operand(0)), `${name}.${s}_mlp.1`);
      const narrow = g.linear(active, `${name}.${s}_mlp.2`, hidden);
      return gated(g, x, modulation(row, mod, 1).gate(), narrow, `${name}.${s}`);
    },
    /** The modulated input of a single block. */
    singleNorm(i: number, x: Tensor, row: Tensor): Tensor {
      const name = `single_blocks.${i}`;
      return modulate(g, x, modulation(row, `${name}.modulation.lin`, 0), `${name}.pre_norm`);
    },
    /** Normalised and rotated `[tokens, 3·hidden]` q, k and v of what `singleNorm` gives. */
    singleQkv(i: number, h: Tensor, rope: Tensor): Tensor {
      return headNorm(linear1(i, h, [0, 3 * hidden], 'qkv'), `single_blocks.${i}.norm`, rope);
    },
    /** The MLP beside a single block's attention, and what follows both. */
    singleRest(i: number, before: Tensor, h: Tensor, attended: Tensor, row: Tensor): Tensor {
      const name = `single_blocks.${i}`;
      const mlp = linear1(i, h, [3 * hidden, (3 + spec.mlpRatio) * hidden], 'mlp');
      const active = g.map([mlp], e.geluTanh(e.operand(0)), `${name}.mlp_act`);
      const y = g.linear([attended, active], `${name}.linear2`, hidden);
      return gated(g, before, modulation(row, `${name}.modulation.lin`, 0).gate(), y, name);
    },
    /** Velocity of the target's tokens. */
    last(x: Tensor, row: Tensor): Tensor {
      const at = columns.get('final_layer.adaLN_modulation.1')!;
      const final = { shift: g.cols(row, at, hidden), scale: g.cols(row, at + hidden, hidden) };
      return g.linear(modulate(g, x, final, 'final_layer.norm'), 'final_layer.linear', spec.outChannels);
    },
    /** Attention of rows of `[tokens, 3·hidden]` matrices of normalised q, k and v; every query sees all keys. */
    attend(queries: Tensor, keys: Tensor, label: string): Tensor {
      const [q, k, v] = [queries, keys, keys].map((t, i) => g.cols(t, i * hidden, hidden)) as [Tensor, Tensor, Tensor];
      return g.attention(q, k, v, { heads: spec.heads, scale: 1 / Math.sqrt(size), label });
    },
  };

  /** The checkpoint stacks both layers of a single block's norm's output; their results go different ways. */
  function linear1(i: number, h: Tensor, rows: [number, number], label: string): Tensor {
    const name = `single_blocks.${i}.linear1`;
    return g.linear(h, name, rows[1] - rows[0], { rows, label: `${name}.${label}`, stacked: 4 });
  }
}

/** (1 + scale) · LayerNorm(x) + shift; the norm has no parameters of its own. */
function modulate(g: Builder, x: Tensor, m: Pick<Modulation, 'shift' | 'scale'>, label: string): Tensor {
  const normed = g.layerNorm(x, 1e-6, `${label} unmodulated`);
  const expr = e.add(e.mul(e.add(1, e.operand(1)), e.operand(0)), e.operand(2));
  return g.map([normed, m.scale, m.shift], expr, label);
}

/** x + gate · y */
function gated(g: Builder, x: Tensor, gate: Tensor, y: Tensor, label: string): Tensor {
  return g.map([x, gate, y], e.add(e.operand(0), e.mul(e.operand(1), e.operand(2))), label);
}
