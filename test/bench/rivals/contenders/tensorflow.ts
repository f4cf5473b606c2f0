// TensorFlow.js on WebGPU.

import '@tensorflow/tfjs-core/dist/public/chained_ops/register_all_chained_ops';
import * as tf from '@tensorflow/tfjs-core';
import '@tensorflow/tfjs-backend-webgpu';
import { type Arithmetic, channelsFirst, transposed } from '../arithmetic.ts';
import type { Contender } from '../contender.ts';
import type { Tensor, Work } from '../works.ts';

export function tensorflow(): Contender {
  return {
    async prepare(work) {
      if (!(await tf.setBackend('webgpu'))) throw new Error('TensorFlow.js finds no WebGPU');
      await tf.ready();
      const weights = Object.entries(work.weights).map(([name, value]) => [name, weightOf(work, value)] as const);
      const arithmetic = onTensors(work, Object.fromEntries(weights));
      const shape = ({ rows, columns }: Tensor): number[] =>
        work.image ? [1, work.image.height, work.image.width, columns] : [rows, columns];
      return async () => {
        const inputs = Object.entries(work.inputs).map(
          ([name, value]) => [name, tf.tensor(value.data, shape(value))] as const,
        );
        const result = tf.tidy(() => work.compute(arithmetic, Object.fromEntries(inputs)));
        const data = await result.data();
        for (const tensor of [result, ...inputs.map(([, tensor]) => tensor)]) tensor.dispose();
        return data;
      };
    },
  };
}

/** Filters are `[3, 3, in, out]`, matrices `[out, in]`. */
function weightOf(work: Work, value: Tensor): tf.Tensor {
  const { rows, columns, data } = value;
  if (!work.image) return tf.tensor(data, [rows, columns]);
  const byInput = transposed(channelsFirst(value), rows, columns);
  // [in, 3, 3, out] by now; taps go before the channels.
  const channels = columns / 9;
  const filter = new Float32Array(data.length);
  for (let c = 0; c < channels; c++) {
    for (let tap = 0; tap < 9; tap++) {
      filter.set(byInput.subarray((c * 9 + tap) * rows, (c * 9 + tap + 1) * rows), (tap * channels + c) * rows);
    }
  }
  return tf.tensor(filter, [3, 3, channels, rows]);
}

function onTensors({ image }: Work, weights: Record<string, tf.Tensor>): Arithmetic<tf.Tensor> {
  const width = (x: tf.Tensor): number => x.shape.at(-1)!;
  /** `[tokens, heads · size]` → `[heads, tokens, size]` */
  const split = (x: tf.Tensor, heads: number): tf.Tensor =>
    x.reshape([x.shape[0]!, heads, width(x) / heads]).transpose([1, 0, 2]);
  return {
    linear(x, name) {
      const product = tf.matMul(x, weights[`${name}.weight`]!, false, true);
      const bias = weights[`${name}.bias`];
      return bias ? product.add(bias) : product;
    },
    normalise(x) {
      const centred = x.sub(x.mean(-1, true));
      return centred.div(centred.square().mean(-1, true).add(1e-6).sqrt());
    },
    modulate: (x, scale, shift) => x.mul(scale.add(1)).add(shift),
    gated: (x, gate, y) => x.add(y.mul(gate)),
    gelu: (x) =>
      x
        .add(x.square().mul(x).mul(0.044715))
        .mul(Math.sqrt(2 / Math.PI))
        .tanh()
        .add(1)
        .mul(x)
        .mul(0.5),
    rows: (x, first, count) => tf.slice(x, [first, 0], [count, width(x)]),
    columns: (x, first, count) => tf.slice(x, [0, first], [x.shape[0]!, count]),
    below: (a, b) => tf.concat([a, b], 0),
    beside: (a, b) => tf.concat([a, b], 1),
    headNorm(x, scale, rope, heads) {
      const [tokens, size] = [x.shape[0]!, width(x) / heads];
      const perHead = x.reshape([tokens, heads, size]);
      const unit = perHead.div(perHead.square().mean(-1, true).add(1e-6).sqrt()).mul(weights[scale]!);
      const pairs = (t: tf.Tensor, of: number): [tf.Tensor, tf.Tensor] =>
        [0, 1].map((i) => tf.slice(t.reshape([tokens, of, size / 2, 2]), [0, 0, 0, i], [tokens, of, size / 2, 1])) as [
          tf.Tensor,
          tf.Tensor,
        ];
      const [a, b] = pairs(unit, heads);
      const [cos, sin] = pairs(rope, 1);
      return tf.concat([a.mul(cos).sub(b.mul(sin)), a.mul(sin).add(b.mul(cos))], 3).reshape([tokens, heads * size]);
    },
    attend(q, k, v, heads) {
      const size = width(q) / heads;
      const scores = tf.matMul(split(q, heads), split(k, heads), false, true).mul(1 / Math.sqrt(size));
      const attended = tf.matMul(scores.softmax(), split(v, heads));
      return attended.transpose([1, 0, 2]).reshape([q.shape[0]!, width(q)]);
    },
    convolve: (x, name) =>
      tf.conv2d(x, weights[`${name}.weight`]!, 1, 'same').reshape([image!.height * image!.width, -1]),
  };
}
