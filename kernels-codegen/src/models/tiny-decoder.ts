// A small decoder for previews (Bohan 2023, "Tiny AutoEncoder for Stable Diffusion"; diffusers' AutoencoderTiny): scaled latents
// straight to an image, by convolutions alone, at about 1 % of a denoising step.

import * as e from '../expr/expr.ts';
import type { Builder } from '../graph/builder.ts';
import type { Graph, Tensor } from '../graph/graph.ts';

export interface TinyDecoderSpec {
  latentChannels: number;
  /** Width of every layer. */
  channels: number;
  /** Residual blocks of each level, coarsest first; the image doubles between levels. */
  blocks: number[];
}

/** Port `latents`: scaled latents as tokens `[h/2·w/2, 4·latentChannels]`; port `image`: rgba8 words. */
export function buildTinyDecode(g: Builder, spec: TinyDecoderSpec, size: { height: number; width: number }): Graph {
  const factor = 2 ** (spec.blocks.length - 1);
  let [height, width] = [size.height / factor, size.width / factor];
  let layer = 0;
  const conv = (x: Tensor, name: string, channels: number, o: { upsample?: 2; bias?: false } = {}): Tensor =>
    g.conv2d(x, name, channels, { height, width, kernel: 3, ...o });
  const relu = (values: Tensor[], sum: e.Expr, label: string): Tensor => g.map(values, e.max(sum, 0), label);

  const packed = g.input('latents', (height * width) / 4, spec.latentChannels * 4);
  // Latents beyond three deviations are faded, as in training.
  const faded = g.map([packed], e.mul(3, e.tanh(e.div(e.operand(0), 3))), 'faded');
  let x = conv(g.unpack(faded, height, width, 'unpacked'), `decoder.layers.${layer}`, spec.channels);
  x = relu([x], e.operand(0), `decoder.layers.${layer} relu`);
  layer += 2;
  for (const [level, blocks] of spec.blocks.entries()) {
    for (let i = 0; i < blocks; i++, layer++) {
      const name = `decoder.layers.${layer}`;
      let y = x;
      for (const part of [0, 2]) {
        y = conv(y, `${name}.conv.${part}`, spec.channels);
        y = relu([y], e.operand(0), `${name}.conv.${part} relu`);
      }
      y = conv(y, `${name}.conv.4`, spec.channels);
      x = relu([x, y], e.add(e.operand(0), e.operand(1)), name);
    }
    if (level === spec.blocks.length - 1) break;
    layer++; // the enlargement, folded into the convolution after it
    x = conv(x, `decoder.layers.${layer}`, spec.channels, { upsample: 2, bias: false });
    [height, width] = [height * 2, width * 2];
    layer++;
  }
  x = conv(x, `decoder.layers.${layer}`, 3);
  // It was trained on [0, 1].
  const image = g.map([x], e.sub(e.mul(2, e.operand(0)), 1), 'image in [−1, 1]');
  g.output('image', g.tensorToImage(image, height, width));
  return g.finish();
}
