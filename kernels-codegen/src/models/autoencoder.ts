// FLUX's convolutional autoencoder (Rombach et al. 2022, arXiv:2112.10752): 8× spatial, 16 latent channels.
// Images are [height · width, channels] matrices; 1×1 convolutions are linear layers.

import * as e from '../expr/expr.ts';
import type { Builder } from '../graph/builder.ts';
import type { Graph, Tensor } from '../graph/graph.ts';

export interface VaeSpec {
  /** Channels of each level, finest first. */
  channels: number[];
  /** Residual blocks a level in the encoder; the decoder has one more. */
  blocks: number;
  latentChannels: number;
  groups: number;
  /** latent = (mean − shift) · scale */
  scale: number;
  shift: number;
}

/** An image while it passes through the network. */
interface Picture {
  x: Tensor;
  height: number;
  width: number;
}

/** Pixels per latent pixel along each side. */
export const vaeFactor = (spec: VaeSpec): number => 2 ** (spec.channels.length - 1);

export interface VaeEncodeOptions {
  height: number;
  width: number;
  /** `image`: port `pixels`, rgba8 words; `tensor`: port `tensor`, `[height·width, 4]` in [−1, 1], fourth channel 0. */
  input?: 'image' | 'tensor';
  /** Latents as tokens `[h/2·w/2, 4·latentChannels]` (the default) or as pixels `[h·w, latentChannels]`. */
  packed?: boolean;
  /** Draw from the posterior with the noise of port `noise` `[h·w, latentChannels]` instead of taking its mean. */
  sample?: boolean;
}

export interface VaeDecodeOptions {
  height: number;
  width: number;
  /** `image`: port `image`, rgba8 words; `tensor`: port `tensor`, `[height·width, 3]`, about [−1, 1]. */
  output?: 'image' | 'tensor';
  /** As in {@link VaeEncodeOptions}. */
  packed?: boolean;
}

/** Image to scaled latents: (z − shift) · scale. */
export function buildVaeEncode(g: Builder, spec: VaeSpec, o: VaeEncodeOptions): Graph {
  const { height, width } = o;
  const pixels =
    o.input === 'tensor'
      ? g.input('tensor', height * width, 4)
      : g.imageToTensor(g.input('pixels', 1, height * width, 'u32'), height, width);
  let p: Picture = { x: pixels, height, width };
  p = conv(g, p, 'encoder.conv_in', spec.channels[0]!, { storedChannels: 3 });
  spec.channels.forEach((channels, level) => {
    for (let i = 0; i < spec.blocks; i++) p = residual(g, spec, p, `encoder.down.${level}.block.${i}`, channels);
    const last = level === spec.channels.length - 1;
    if (!last) p = conv(g, p, `encoder.down.${level}.downsample.conv`, channels, { stride: 2 });
  });
  p = middle(g, spec, p, 'encoder.mid');
  const out = conv(g, normSilu(g, spec, p, 'encoder.norm_out'), 'encoder.conv_out', 2 * spec.latentChannels);
  const mean = g.cols(out.x, 0, spec.latentChannels);
  const logVariance = g.cols(out.x, spec.latentChannels, spec.latentChannels);
  const z = o.sample ? drawn(g, mean, logVariance, out.x.rows) : mean;
  const scaled = g.map([z], e.mul(e.sub(e.operand(0), spec.shift), spec.scale), 'scaled');
  g.output('latents', o.packed === false ? scaled : g.pack(scaled, out.height, out.width, 'packed'));
  return g.finish();
}

/** Scaled latents to an image. */
export function buildVaeDecode(g: Builder, spec: VaeSpec, o: VaeDecodeOptions): Graph {
  const { height, width } = o;
  const factor = vaeFactor(spec);
  const [h, w] = [height / factor, width / factor];
  const pixels = (latents: Tensor): Tensor =>
    g.map([latents], e.add(e.mul(e.operand(0), 1 / spec.scale), spec.shift), 'z');
  const x =
    o.packed === false
      ? pixels(g.input('latents', h * w, spec.latentChannels))
      : g.unpack(pixels(g.input('latents', (h * w) / 4, spec.latentChannels * 4)), h, w, 'unpacked');
  let p: Picture = { x, height: h, width: w };
  p = conv(g, p, 'decoder.conv_in', spec.channels.at(-1)!);
  p = middle(g, spec, p, 'decoder.mid');
  for (let level = spec.channels.length - 1; level >= 0; level--) {
    const channels = spec.channels[level]!;
    for (let i = 0; i <= spec.blocks; i++) p = residual(g, spec, p, `decoder.up.${level}.block.${i}`, channels);
    if (level > 0) p = conv(g, p, `decoder.up.${level}.upsample.conv`, channels, { upsample: 2 });
  }
  p = conv(g, normSilu(g, spec, p, 'decoder.norm_out'), 'decoder.conv_out', 3);
  if (o.output === 'tensor') g.output('tensor', p.x);
  else g.output('image', g.tensorToImage(p.x, height, width));
  return g.finish();
}

/** z = mean + exp(logVariance / 2) · noise, the log variance clamped to [−30, 20] as in the reference. */
function drawn(g: Builder, mean: Tensor, logVariance: Tensor, pixels: number): Tensor {
  const noise = g.input('noise', pixels, mean.cols);
  const deviation = e.exp(e.mul(0.5, e.min(e.max(e.operand(1), -30), 20)));
  return g.map([mean, logVariance, noise], e.add(e.operand(0), e.mul(deviation, e.operand(2))), 'sample');
}

function conv(
  g: Builder,
  p: Picture,
  name: string,
  channels: number,
  o: { stride?: 2; upsample?: 2; storedChannels?: number } = {},
): Picture {
  const x = g.conv2d(p.x, name, channels, { height: p.height, width: p.width, kernel: 3, ...o });
  const scale = (o.upsample ?? 1) / (o.stride ?? 1);
  return { x, height: p.height * scale, width: p.width * scale };
}

/** silu(GroupNorm(x)) */
function normSilu(g: Builder, spec: VaeSpec, p: Picture, name: string): Picture {
  return { ...p, x: g.map([groupNormed(g, spec, p.x, name)], e.silu(e.operand(0)), `${name} silu`) };
}

function groupNormed(g: Builder, spec: VaeSpec, x: Tensor, name: string): Tensor {
  const affine = g.groupNorm(x, name, spec.groups, 1e-6);
  const [scale, shift] = [g.rows(affine, 0, 1), g.rows(affine, 1, 1)];
  return g.map([x, scale, shift], e.add(e.mul(e.operand(0), e.operand(1)), e.operand(2)), name);
}

/** x + conv(silu(norm(conv(silu(norm(x)))))), with a 1×1 shortcut where the width changes. */
function residual(g: Builder, spec: VaeSpec, p: Picture, name: string, channels: number): Picture {
  const h = conv(g, normSilu(g, spec, p, `${name}.norm1`), `${name}.conv1`, channels);
  const y = conv(g, normSilu(g, spec, h, `${name}.norm2`), `${name}.conv2`, channels);
  const x = p.x.cols === channels ? p.x : g.linear(p.x, `${name}.nin_shortcut`, channels);
  return { ...p, x: g.add(x, y.x, name) };
}

function middle(g: Builder, spec: VaeSpec, p: Picture, name: string): Picture {
  const channels = p.x.cols;
  const first = residual(g, spec, p, `${name}.block_1`, channels);
  const h = groupNormed(g, spec, first.x, `${name}.attn_1.norm`);
  const [q, k, v] = ['q', 'k', 'v'].map((part) => g.linear(h, `${name}.attn_1.${part}`, channels)) as [
    Tensor,
    Tensor,
    Tensor,
  ];
  const attended = g.attention(q, k, v, { heads: 1, scale: 1 / Math.sqrt(channels), label: `${name}.attn_1` });
  const x = g.add(first.x, g.linear(attended, `${name}.attn_1.proj_out`, channels), `${name}.attn_1`);
  return residual(g, spec, { ...p, x }, `${name}.block_2`, channels);
}
