// jax-js on WebGPU: the work traced once by `jit`. Its functions take the memory of what they are given, hence every `ref`.

import * as jaxJs from '@jax-js/jax';
import { type Arithmetic, channelsFirst, transposed } from '../arithmetic.ts';
import type { Contender } from '../contender.ts';
import type { Tensor, Work } from '../works.ts';

const { lax, nn, numpy } = jaxJs;
type Arrays = Record<string, jaxJs.Array>;

export function jax(): Contender {
  return {
    async prepare(work) {
      const devices = await jaxJs.init('webgpu');
      if (!devices.includes('webgpu')) throw new Error('jax-js finds no WebGPU');
      jaxJs.defaultDevice('webgpu');
      const filled = (of: Record<string, Tensor>, make: (value: Tensor, name: string) => jaxJs.Array): Arrays =>
        Object.fromEntries(Object.entries(of).map(([name, value]) => [name, make(value, name)]));
      const weights = filled(work.weights, (value) => weightOf(work, value));
      const compute = jaxJs.jit((weights, inputs) => work.compute(onArrays(weights), inputs));
      const image = ({ rows, columns, data }: Tensor): jaxJs.Array =>
        numpy.array(transposed(data, rows, columns), { shape: [1, columns, work.image!.height, work.image!.width] });
      const matrix = ({ rows, columns, data }: Tensor): jaxJs.Array => numpy.array(data, { shape: [rows, columns] });
      return async () => {
        const kept = Object.fromEntries(Object.entries(weights).map(([name, array]) => [name, array.ref]));
        const data = await compute(kept, filled(work.inputs, work.image ? image : matrix)).data();
        if (!work.image) return data;
        const pixels = work.image.height * work.image.width;
        return transposed(data, data.length / pixels, pixels);
      };
    },
  };
}

/** Matrices lie as `[in, out]`, which its products are fastest with; filters as `[out, in, 3, 3]`. */
function weightOf(work: Work, value: Tensor): jaxJs.Array {
  const { rows, columns, data } = value;
  if (work.image) return numpy.array(channelsFirst(value), { shape: [rows, columns / 9, 3, 3] });
  if (rows === 1) return numpy.array(data, { shape: [columns] });
  return numpy.array(transposed(data, rows, columns), { shape: [columns, rows] });
}

type Shaped = jaxJs.Array & { shape: number[] };

function onArrays(weights: Arrays): Arithmetic<jaxJs.Array> {
  const shape = (x: jaxJs.Array): [number, number] => (x as Shaped).shape as [number, number];
  const meanSquare = (x: jaxJs.Array): jaxJs.Array => numpy.square(x).mean(-1, { keepdims: true });
  const weight = (name: string): jaxJs.Array => weights[name]!.ref;
  return {
    linear(x, name) {
      const product = numpy.matmul(x.ref, weight(`${name}.weight`));
      return weights[`${name}.bias`] ? product.add(weight(`${name}.bias`)) : product;
    },
    normalise(x) {
      const centred = x.ref.sub(x.ref.mean(-1, { keepdims: true }));
      return centred.ref.div(numpy.sqrt(meanSquare(centred).add(1e-6)));
    },
    modulate: (x, scale, shift) => x.ref.mul(scale.ref.add(1)).add(shift.ref),
    gated: (x, gate, y) => x.ref.add(y.ref.mul(gate.ref)),
    gelu: (x) => nn.gelu(x.ref, { approximate: true }),
    rows: (x, first, count) => x.ref.slice([first, first + count]),
    columns: (x, first, count) => x.ref.slice([], [first, first + count]),
    below: (a, b) => numpy.concatenate([a.ref, b.ref], 0),
    beside: (a, b) => numpy.concatenate([a.ref, b.ref], 1),
    headNorm(x, scale, rope, heads) {
      const [tokens, width] = shape(x);
      const size = width / heads;
      const perHead = x.ref.reshape([tokens, heads, size]);
      const unit = perHead.ref.div(numpy.sqrt(meanSquare(perHead).add(1e-6))).mul(weight(scale));
      const pairs = (of: jaxJs.Array, count: number): [jaxJs.Array, jaxJs.Array] =>
        [0, 1].map((i) => of.ref.reshape([tokens, count, size / 2, 2]).slice([], [], [], [i, i + 1])) as [
          jaxJs.Array,
          jaxJs.Array,
        ];
      const [a, b] = pairs(unit, heads);
      const [cos, sin] = pairs(rope, 1);
      const turned = [a.ref.mul(cos.ref).sub(b.ref.mul(sin.ref)), a.mul(sin).add(b.mul(cos))];
      return numpy.concatenate(turned, 3).reshape([tokens, width]);
    },
    attend(q, k, v, heads) {
      const [queries, width] = shape(q);
      const split = (x: jaxJs.Array): jaxJs.Array => x.ref.reshape([shape(x)[0], heads, width / heads]);
      return nn.dotProductAttention(split(q), split(k), split(v)).reshape([queries, width]);
    },
    convolve: (x, name) => lax.conv(x.ref, weight(`${name}.weight`), [1, 1], 'SAME'),
  };
}
