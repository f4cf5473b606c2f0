// The four works that contenders compare on: their shapes, seeded inputs and weights, and what is to be computed.
// Every process and page makes them again from the seed.

import { modulationWidth } from '../../../runtime/src/program/modulation-rows.ts';
import { ropeTable } from '../../../sdk/src/kontext/rope.ts';
import { random } from '../../support/random.ts';
import type { Arithmetic } from './arithmetic.ts';
import { FLUX, GRID, TEXT_TOKENS, velocity } from './network.ts';

export interface Tensor {
  rows: number;
  columns: number;
  data: Float32Array<ArrayBuffer>;
}

/** Pixels of an image whose channels are a tensor's columns. */
export interface ImageSize {
  height: number;
  width: number;
}

export interface Work {
  name: WorkName;
  title: string;
  flops: number;
  inputs: Record<string, Tensor>;
  weights: Record<string, Tensor>;
  /** Inputs and result are images of this size, a pixel a row. */
  image?: ImageSize;
  compute<T>(a: Arithmetic<T>, inputs: Record<string, T>): T;
}

export const WORKS = ['matmul', 'attention', 'convolution', 'transformer'] as const;
export type WorkName = (typeof WORKS)[number];

export const HEADS = 3;

/** @param name one of {@link WORKS} */
export function workOf(name: WorkName): Work {
  const next = random(WORKS.indexOf(name) + 1);
  /** Uniform values of mean `mean` and standard deviation `deviation`. */
  const tensor = (rows: number, columns: number, deviation = 1, mean = 0): Tensor => {
    const data = new Float32Array(rows * columns);
    const width = Math.sqrt(12) * deviation;
    for (let i = 0; i < data.length; i++) data[i] = mean + width * (next() - 0.5);
    return { rows, columns, data };
  };
  const matrix = (rows: number, columns: number): Tensor => tensor(rows, columns, 1 / Math.sqrt(columns));
  switch (name) {
    case 'matmul': {
      const [m, n, k] = [512, 1024, 1024];
      return {
        name,
        title: `matmul ${m}×${n}×${k}`,
        flops: 2 * m * n * k,
        inputs: { x: tensor(m, k) },
        weights: { 'layer.weight': matrix(n, k) },
        compute: (a, { x }) => a.linear(x!, 'layer'),
      };
    }
    case 'attention': {
      const [tokens, width] = [1024, HEADS * 128];
      return {
        name,
        title: `attention, ${tokens} tokens, ${HEADS} heads × 128`,
        flops: 4 * tokens * tokens * width,
        inputs: { q: tensor(tokens, width), k: tensor(tokens, width), v: tensor(tokens, width) },
        weights: {},
        compute: (a, { q, k, v }) => a.attend(q!, k!, v!, HEADS),
      };
    }
    case 'convolution': {
      const [image, channels] = [{ height: 64, width: 64 }, 128];
      const pixels = image.height * image.width;
      return {
        name,
        title: `convolution 3×3, 64×64 pixels, ${channels} → ${channels}`,
        flops: 2 * 9 * channels * channels * pixels,
        inputs: { x: tensor(pixels, channels) },
        weights: { 'layer.weight': matrix(channels, 9 * channels) },
        image,
        compute: (a, { x }) => a.convolve(x!, 'layer'),
      };
    }
    case 'transformer': {
      const weights: Record<string, Tensor> = {};
      const linear = (layer: string, from: number, to: number) => {
        weights[`${layer}.weight`] = matrix(to, from);
        weights[`${layer}.bias`] = tensor(1, to, 0.1);
      };
      const norms = (layer: string) => {
        for (const part of ['query', 'key']) weights[`${layer}.${part}_norm.scale`] = tensor(1, size, 0.1, 1);
      };
      const { hidden, mlpRatio } = FLUX;
      const size = hidden / FLUX.heads;
      linear('img_in', FLUX.inChannels, hidden);
      linear('txt_in', FLUX.textWidth, hidden);
      for (let i = 0; i < FLUX.doubleBlocks; i++) {
        for (const stream of ['img', 'txt']) {
          const at = `double_blocks.${i}.${stream}`;
          linear(`${at}_attn.qkv`, hidden, 3 * hidden);
          norms(`${at}_attn.norm`);
          linear(`${at}_attn.proj`, hidden, hidden);
          linear(`${at}_mlp.0`, hidden, mlpRatio * hidden);
          linear(`${at}_mlp.2`, mlpRatio * hidden, hidden);
        }
      }
      for (let i = 0; i < FLUX.singleBlocks; i++) {
        linear(`single_blocks.${i}.linear1`, hidden, (3 + mlpRatio) * hidden);
        norms(`single_blocks.${i}.norm`);
        linear(`single_blocks.${i}.linear2`, (1 + mlpRatio) * hidden, hidden);
      }
      linear('final_layer.linear', hidden, FLUX.outChannels);
      const tokens = GRID.height * GRID.width;
      const rope = ropeTable(FLUX.axes, FLUX.theta, TEXT_TOKENS, GRID, [GRID]);
      return {
        name,
        title: `one evaluation of a FLUX-shaped transformer, ${FLUX.doubleBlocks} + ${FLUX.singleBlocks} blocks of ${hidden}, ${TEXT_TOKENS} + ${tokens} + ${tokens} tokens`,
        flops: transformerFlops(),
        inputs: {
          latents: tensor(tokens, FLUX.inChannels),
          references: tensor(tokens, FLUX.inChannels),
          text: tensor(TEXT_TOKENS, FLUX.textWidth),
          modulation: tensor(1, modulationWidth(FLUX), 0.3),
          rope: { rows: rope.length / size, columns: size, data: rope },
        },
        weights,
        compute: velocity,
      };
    }
    default:
      throw name satisfies never;
  }
}

/** Products and sums of matrices; the rest is less than a hundredth. */
function transformerFlops(): number {
  const { hidden, mlpRatio, doubleBlocks, singleBlocks, inChannels, outChannels, textWidth } = FLUX;
  const target = GRID.height * GRID.width;
  const tokens = TEXT_TOKENS + 2 * target;
  const block = 2 * tokens * hidden * hidden * (4 + 2 * mlpRatio) + 4 * tokens * tokens * hidden;
  const ends = 2 * hidden * (2 * target * inChannels + TEXT_TOKENS * textWidth + target * outChannels);
  return (doubleBlocks + singleBlocks) * block + ends;
}
