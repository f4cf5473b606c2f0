// The FLUX.1 transformer: Kontext conditioning, double- and single-stream blocks.
// Follows Labs et al. 2025 ("FLUX.1 Kontext", arXiv:2506.15742) and the released reference; names are its checkpoint's.

import { modulationLayout, modulationWidth } from '../../../runtime/src/program/modulation-rows.ts';
import * as e from '../expr/expr.ts';
import type { Builder } from '../graph/builder.ts';
import type { Graph, Tensor } from '../graph/graph.ts';
import { type FluxSpec, fluxBlocks, type Stream } from './flux-blocks.ts';
import { momentGroups } from './moments.ts';

export type { FluxSpec } from './flux-blocks.ts';

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
  const groups = momentGroups(spec.hidden);
  g.output('change', g.moments(moved, ones, zeros, groups, 'mean change'));
  g.output('size', g.moments(extent, ones, zeros, groups, 'mean extent'));
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
  const blocks = fluxBlocks(g, spec);
  const once = (make: () => Tensor): (() => Tensor) => {
    let made: Tensor | undefined;
    return () => (made ??= make());
  };
  const row = once(() => g.input('modulation', 1, modulationWidth(spec)));
  const rope = once(() => g.input('rope', tokens, hidden / spec.heads));

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
    const qkvOf = (s: Stream): Tensor => blocks.doubleQkv(i, s, streams[s], row(), ropeOf[s]);
    const attended = attention(() => {
      const qkv = g.concatRows([qkvOf('txt'), qkvOf('img')], `${name}.qkv`);
      return blocks.attend(qkv, qkv, `${name}.attention`);
    });
    const finish = (s: Stream, mine: Tensor): Tensor => blocks.doubleRest(i, s, streams[s], mine, row());
    return { txt: finish('txt', g.rows(attended, 0, text)), img: finish('img', g.rows(attended, text, imageTokens)) };
  };

  /** All single-stream blocks on text and picture joined. */
  const singles = ({ txt, img }: Streams): Tensor => {
    let x = g.concatRows([txt, img], 'stream');
    for (let i = 0; i < spec.singleBlocks; i++) x = single(i, x);
    return x;
  };

  const single = (i: number, x: Tensor): Tensor => {
    const h = blocks.singleNorm(i, x, row());
    const attended = attention(() => {
      const qkv = blocks.singleQkv(i, h, rope());
      return blocks.attend(qkv, qkv, `single_blocks.${i}.attention`);
    });
    return blocks.singleRest(i, x, h, attended, row());
  };

  return {
    imageTokens,
    embed,
    double,
    singles,
    last: (x: Tensor): Tensor => blocks.last(x, row()),
    streams: (): Streams => ({ txt: g.input('txt', text, hidden), img: g.input('img', imageTokens, hidden) }),
    target: (x: Tensor): Tensor => g.rows(x, text, target),
  };
}
