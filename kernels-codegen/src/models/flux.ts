// The FLUX.1 transformer: Kontext conditioning, double- and single-stream blocks.
// Follows Labs et al. 2025 ("FLUX.1 Kontext", arXiv:2506.15742) and the released reference; names are its checkpoint's.

import * as e from '../expr/expr.ts';
import type { Builder } from '../graph/builder.ts';
import type { Graph, Tensor } from '../graph/graph.ts';
import { modulationLayout, modulationWidth } from './modulation-rows.ts';

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

/** Height and width in latent patches (16×16 image pixels). */
export interface PatchGrid {
  height: number;
  width: number;
}

export const tokensOf = (grid: PatchGrid): number => grid.height * grid.width;

/**
 * All adaLN rows of all steps: `modulation[s] = concat over layers of W·silu(vec_s) + b`.
 * They depend on timestep, guidance and pooled prompt only, so they are computed once, before denoising.
 */
export function buildModulation(g: Builder, spec: FluxSpec, steps: number): Graph {
  const embedder = (x: Tensor, name: string): Tensor => {
    const hidden = g.linear(x, `${name}.in_layer`, spec.hidden);
    return g.linear(g.map([hidden], e.silu(e.operand(0)), `${name} silu`), `${name}.out_layer`, spec.hidden);
  };
  const time = embedder(g.input('timesteps', steps, 256), 'time_in');
  const pooled = embedder(g.input('pooled', 1, spec.pooledWidth), 'vector_in');
  const parts = [time, pooled];
  if (spec.guidance) parts.push(embedder(g.input('guidance', 1, 256), 'guidance_in'));
  const sum = parts.map((_, i) => e.operand(i)).reduce((a, b) => e.add(a, b));
  const vec = g.map(parts, sum, 'vec');
  const active = g.map([vec], e.silu(e.operand(0)), 'silu(vec)');
  const rows = modulationLayout(spec).map(({ name, count }) => g.linear(active, name, count));
  g.output('modulation', g.concatCols(rows, 'modulation'));
  return g.finish();
}

/** Tokens of a request: text, the picture to make, references. */
export interface DenoiseShape {
  textTokens: number;
  image: PatchGrid;
  references: PatchGrid[];
}

/** Text and picture before they are joined; references lie behind the target. */
interface Streams {
  txt: Tensor;
  img: Tensor;
}

/**
 * One evaluation of the velocity field v(x_t, t, text, references).
 * Token order in attention: text, target, references. Only the target's velocity is computed at the end.
 */
export function buildDenoise(g: Builder, spec: FluxSpec, shape: DenoiseShape): Graph {
  const net = network(g, spec, shape);
  let streams = net.embed();
  for (let i = 0; i < spec.doubleBlocks; i++) streams = net.double(i, streams);
  g.output('velocity', net.last(net.target(net.singles(streams))));
  return g.finish();
}

/**
 * The first block of {@link buildDenoise} by itself, and how much it changes the picture: of |r − previous| and of |r|, with r what the
 * block adds to the image stream, the mean over all values lies in `change` and `size` as `meanIn` of `moments.ts` reads it. A step in which r is
 * nearly that of an earlier one need not compute the rest (Liu et al. 2024, https://arxiv.org/abs/2411.19108, in ParaAttention's form).
 */
export function buildDenoiseFirst(g: Builder, spec: FluxSpec, shape: DenoiseShape): Graph {
  const net = network(g, spec, shape);
  const before = net.embed();
  const after = net.double(0, before);
  const previous = g.input('previous', after.img.rows, spec.hidden);
  const ones = g.input('ones', 1, spec.hidden);
  const zeros = g.input('zeros', 1, spec.hidden);
  const residual = g.map([after.img, before.img], e.sub(e.operand(0), e.operand(1)), 'residual of the first block');
  const moved = g.map([residual, previous], e.abs(e.sub(e.operand(0), e.operand(1))), 'change of the residual');
  const extent = g.map([residual], e.abs(e.operand(0)), 'extent of the residual');
  g.output('change', g.moments(moved, ones, zeros, 'mean change'));
  g.output('size', g.moments(extent, ones, zeros, 'mean extent'));
  g.output('residual', residual);
  g.output('txt', after.txt);
  g.output('img', after.img);
  return g.finish();
}

/** All blocks but the first, on what {@link buildDenoiseFirst} gives; `saved` is what they add to the target's tokens. */
export function buildDenoiseRest(g: Builder, spec: FluxSpec, shape: DenoiseShape): Graph {
  const net = network(g, spec, shape);
  const first = net.streams();
  let streams = first;
  for (let i = 1; i < spec.doubleBlocks; i++) streams = net.double(i, streams);
  const target = net.target(net.singles(streams));
  const before = g.rows(first.img, 0, tokensOf(shape.image));
  g.output('saved', g.map([target, before], e.sub(e.operand(0), e.operand(1)), 'what the rest adds'));
  g.output('velocity', net.last(target));
  return g.finish();
}

/** The last layer on the first block's output and what the other blocks added in an earlier step. */
export function buildDenoiseSkip(g: Builder, spec: FluxSpec, shape: DenoiseShape): Graph {
  const net = network(g, spec, shape);
  const target = tokensOf(shape.image);
  const first = g.rows(g.input('img', net.imageTokens, spec.hidden), 0, target);
  g.output('velocity', net.last(g.add(first, g.input('saved', target, spec.hidden), 'first block + saved')));
  return g.finish();
}

/**
 * {@link buildDenoise} with every block's attention as an output, or taken from outside: `attended` `[blocks · tokens, hidden]`, for
 * extrapolating attention over steps (Liu et al. 2025, TaylorSeer, https://arxiv.org/abs/2503.06923, as diffusers hooks it).
 */
export function buildDenoiseAttended(g: Builder, spec: FluxSpec, shape: DenoiseShape, given: boolean): Graph {
  const tokens = shape.textTokens + [shape.image, ...shape.references].reduce((sum, grid) => sum + tokensOf(grid), 0);
  const blocks = spec.doubleBlocks + spec.singleBlocks;
  const outside = given ? g.input('attended', blocks * tokens, spec.hidden) : undefined;
  const seen: Tensor[] = [];
  const net = network(g, spec, shape, (compute) => {
    const attended = outside ? g.rows(outside, seen.length * tokens, tokens) : compute();
    seen.push(attended);
    return attended;
  });
  let streams = net.embed();
  for (let i = 0; i < spec.doubleBlocks; i++) streams = net.double(i, streams);
  g.output('velocity', net.last(net.target(net.singles(streams))));
  if (!given) g.output('attended', g.concatRows(seen, 'attended'));
  return g.finish();
}

/** The network's pieces; inputs exist for the pieces that are used. */
function network(
  g: Builder,
  spec: FluxSpec,
  shape: DenoiseShape,
  attention: (compute: () => Tensor) => Tensor = (compute) => compute(),
) {
  const { hidden } = spec;
  const text = shape.textTokens;
  const target = tokensOf(shape.image);
  const context = shape.references.reduce((sum, r) => sum + tokensOf(r), 0);
  const imageTokens = target + context;
  const tokens = text + imageTokens;
  const size = hidden / spec.heads;
  const once = (make: () => Tensor): (() => Tensor) => {
    let made: Tensor | undefined;
    return () => (made ??= make());
  };
  const row = once(() => g.input('modulation', 1, modulationWidth(spec)));
  const rope = once(() => g.input('rope', tokens, size));
  const columns = new Map(modulationLayout(spec).map((m) => [m.name, m.first]));
  /** (shift, scale, gate) triples of a modulation layer. */
  const modulation = (layer: string, index: number): Modulation => {
    const at = (chunk: number): Tensor => g.cols(row(), columns.get(layer)! + (3 * index + chunk) * hidden, hidden);
    return { shift: at(0), scale: at(1), gate: () => at(2) };
  };

  /** Embedders. Target and references share img_in; their rows lie one after the other. */
  const embed = (): Streams => {
    const latents = g.input('latents', target, spec.outChannels);
    // FLUX.1 Fill, Canny and Depth see a picture of the target's size as further channels of each of its tokens.
    const extra = spec.inChannels - spec.outChannels;
    const control = extra ? [g.input('control', target, extra)] : [];
    const references = context ? g.input('references', context, spec.inChannels) : undefined;
    const states = g.input('text', text, spec.textWidth);
    row();
    rope();
    const embedded = [g.linear([latents, ...control], 'img_in', hidden)];
    if (references) embedded.push(g.linear(references, 'img_in', hidden));
    return { img: g.concatRows(embedded, 'img_in'), txt: g.linear(states, 'txt_in', hidden) };
  };

  /** Text and picture have weights of their own and attend to each other. */
  const double = (i: number, streams: Streams): Streams => {
    const name = `double_blocks.${i}`;
    const ropeOf = { txt: g.rows(rope(), 0, text), img: g.rows(rope(), text, imageTokens) };
    const qkvOf = (s: 'txt' | 'img'): Tensor => {
      const at = `${name}.${s}_attn`;
      const h = modulate(g, streams[s], modulation(`${name}.${s}_mod.lin`, 0), `${name}.${s}_norm1`);
      const qkv = g.linear(h, `${at}.qkv`, 3 * hidden, { bias: spec.qkvBias, stacked: 3 });
      return g.headNorm(qkv, {
        heads: spec.heads,
        size,
        query: g.vector(`${at}.norm.query_norm.scale`, size),
        key: g.vector(`${at}.norm.key_norm.scale`, size),
        rope: ropeOf[s],
        label: `${at}.norm`,
      });
    };
    const attended = attention(() =>
      attend(g, g.concatRows([qkvOf('txt'), qkvOf('img')], `${name}.qkv`), spec, `${name}.attention`),
    );
    const finish = (s: 'txt' | 'img', mine: Tensor): Tensor => {
      const mod = `${name}.${s}_mod.lin`;
      const projected = g.linear(mine, `${name}.${s}_attn.proj`, hidden);
      const x = gated(g, streams[s], modulation(mod, 0).gate(), projected, `${name}.${s} + attention`);
      const h = modulate(g, x, modulation(mod, 1), `${name}.${s}_norm2`);
      const wide = g.linear(h, `${name}.${s}_mlp.0`, hidden * spec.mlpRatio);
      const active = g.map([wide], e.geluTanh(e.operand(0)), `${name}.${s}_mlp.1`);
      const narrow = g.linear(active, `${name}.${s}_mlp.2`, hidden);
      return gated(g, x, modulation(mod, 1).gate(), narrow, `${name}.${s}`);
    };
    return { txt: finish('txt', g.rows(attended, 0, text)), img: finish('img', g.rows(attended, text, imageTokens)) };
  };

  /** All single-stream blocks on text and picture joined. */
  const singles = ({ txt, img }: Streams): Tensor => {
    let x = g.concatRows([txt, img], 'stream');
    for (let i = 0; i < spec.singleBlocks; i++) x = single(i, x);
    return x;
  };

  const single = (i: number, x: Tensor): Tensor => {
    const name = `single_blocks.${i}`;
    const mod = modulation(`${name}.modulation.lin`, 0);
    const wide = hidden * spec.mlpRatio;
    const h = modulate(g, x, mod, `${name}.pre_norm`);
    // The checkpoint stacks both layers of the norm's output; their results go different ways.
    const [first, all] = [3 * hidden, 3 * hidden + wide];
    const linear1 = (rows: [number, number], label: string): Tensor =>
      g.linear(h, `${name}.linear1`, rows[1] - rows[0], { rows, label: `${name}.linear1.${label}`, stacked: 4 });
    const attended = attention(() => {
      const projected = linear1([0, first], 'qkv');
      const qkv = g.headNorm(projected, {
        heads: spec.heads,
        size,
        query: g.vector(`${name}.norm.query_norm.scale`, size),
        key: g.vector(`${name}.norm.key_norm.scale`, size),
        rope: rope(),
        label: `${name}.norm`,
      });
      return attend(g, qkv, spec, `${name}.attention`);
    });
    const mlp = linear1([first, all], 'mlp');
    const active = g.map([mlp], e.geluTanh(e.operand(0)), `${name}.mlp_act`);
    const y = g.linear([attended, active], `${name}.linear2`, hidden);
    return gated(g, x, mod.gate(), y, name);
  };

  /** Velocity of the target's tokens. */
  const last = (x: Tensor): Tensor => {
    const at = columns.get('final_layer.adaLN_modulation.1')!;
    const final = { shift: g.cols(row(), at, hidden), scale: g.cols(row(), at + hidden, hidden), gate: noGate };
    return g.linear(modulate(g, x, final, 'final_layer.norm'), 'final_layer.linear', spec.outChannels);
  };

  return {
    imageTokens,
    embed,
    double,
    singles,
    last,
    streams: (): Streams => ({ txt: g.input('txt', text, hidden), img: g.input('img', imageTokens, hidden) }),
    target: (x: Tensor): Tensor => g.rows(x, text, target),
  };
}

interface Modulation {
  shift: Tensor;
  scale: Tensor;
  gate: () => Tensor;
}

const noGate = (): never => {
  throw new Error('flux: the final layer has no gate');
};

/** (1 + scale) · LayerNorm(x) + shift; the norm has no parameters of its own. */
function modulate(g: Builder, x: Tensor, m: Modulation, label: string): Tensor {
  const normed = g.layerNorm(x, 1e-6, `${label} unmodulated`);
  const expr = e.add(e.mul(e.add(1, e.operand(1)), e.operand(0)), e.operand(2));
  return g.map([normed, m.scale, m.shift], expr, label);
}

/** x + gate · y */
function gated(g: Builder, x: Tensor, gate: Tensor, y: Tensor, label: string): Tensor {
  return g.map([x, gate, y], e.add(e.operand(0), e.mul(e.operand(1), e.operand(2))), label);
}

/** Joint attention over all tokens of a `[tokens, 3·hidden]` matrix of normalised q, k and v. */
function attend(g: Builder, qkv: Tensor, spec: FluxSpec, label: string): Tensor {
  const [q, k, v] = [0, 1, 2].map((i) => g.cols(qkv, i * spec.hidden, spec.hidden)) as [Tensor, Tensor, Tensor];
  return g.attention(q, k, v, { heads: spec.heads, scale: 1 / Math.sqrt(spec.hidden / spec.heads), label });
}
