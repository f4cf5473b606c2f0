// FLUX.1's transformer with normalised attention guidance in plain float64 loops, written from the papers and the checkpoint's names.
// Shares nothing with the compiler: what compares with it compares two readings of the same formulas.

type Matrix = Float64Array[];

export interface PlainFlux {
  hidden: number;
  heads: number;
  doubleBlocks: number;
  singleBlocks: number;
  weight: (name: string) => ArrayLike<number>;
}

export interface PlainInputs {
  /** Rows of the target and of the references. */
  latents: Matrix;
  references: Matrix;
  text: Matrix;
  textNegative: Matrix;
  /** One row of all modulation layers for each text, cut by the layer's name. */
  modulation: (layer: string) => Float64Array;
  modulationNegative: (layer: string) => Float64Array;
  /** Cosines and sines, alternating, of text, then picture. */
  rope: Matrix;
  scale: number;
  tau: number;
  alpha: number;
}

export const matrixOf = (values: ArrayLike<number>, cols: number): Matrix =>
  Array.from({ length: values.length / cols }, (_, r) =>
    Float64Array.from({ length: cols }, (_, c) => values[r * cols + c]!),
  );

const dot = (a: Float64Array, b: Float64Array): number => a.reduce((sum, v, i) => sum + v * b[i]!, 0);
const gelu = (x: number): number => 0.5 * x * (1 + Math.tanh(Math.sqrt(2 / Math.PI) * (x + 0.044715 * x ** 3)));

/** Velocity of the target's rows. */
export function plainNagVelocity(net: PlainFlux, inputs: PlainInputs): Matrix {
  const { hidden, heads, weight } = net;
  const size = hidden / heads;
  const linear = (x: Matrix, name: string, bias = true): Matrix => {
    const w = matrixOf(weight(`${name}.weight`), x[0]!.length);
    const b = bias ? weight(`${name}.bias`) : undefined;
    return x.map((row) => Float64Array.from(w, (of, i) => dot(row, of) + (b ? b[i]! : 0)));
  };
  const chunk = (row: Float64Array, i: number): Float64Array => row.subarray(i * hidden, (i + 1) * hidden);
  const normed = (x: Matrix, row: Float64Array, first: number): Matrix =>
    x.map((values) => {
      const mean = values.reduce((a, b) => a + b, 0) / hidden;
      const deviation = Math.sqrt(values.reduce((a, b) => a + (b - mean) ** 2, 0) / hidden + 1e-6);
      const [shift, scale] = [chunk(row, first), chunk(row, first + 1)];
      return values.map((v, i) => (1 + scale[i]!) * ((v - mean) / deviation) + shift[i]!);
    });
  const added = (x: Matrix, gate: Float64Array, y: Matrix): Matrix =>
    x.map((row, r) => row.map((v, i) => v + gate[i]! * y[r]![i]!));
  /** q or k: each head to root mean square 1, scaled, turned. */
  const turned = (x: Matrix, name: string, rope: Matrix): Matrix => {
    const scale = weight(name);
    return x.map((row, r) => {
      const out = new Float64Array(hidden);
      for (let head = 0; head < heads; head++) {
        const of = row.subarray(head * size, (head + 1) * size);
        const rms = Math.sqrt(of.reduce((a, b) => a + b * b, 0) / size + 1e-6);
        const unit = of.map((v, i) => (v / rms) * scale[i]!);
        for (let i = 0; i < size; i += 2) {
          const [cos, sin] = [rope[r]![i]!, rope[r]![i + 1]!];
          out[head * size + i] = unit[i]! * cos - unit[i + 1]! * sin;
          out[head * size + i + 1] = unit[i]! * sin + unit[i + 1]! * cos;
        }
      }
      return out;
    });
  };
  interface Qkv {
    q: Matrix;
    k: Matrix;
    v: Matrix;
  }
  const split = (x: Matrix, norm: string, rope: Matrix): Qkv => {
    const part = (i: number): Matrix => x.map((row) => row.slice(i * hidden, (i + 1) * hidden));
    return {
      q: turned(part(0), `${norm}.query_norm.scale`, rope),
      k: turned(part(1), `${norm}.key_norm.scale`, rope),
      v: part(2),
    };
  };
  const joined = (a: Qkv, b: Qkv): Qkv => ({ q: [...a.q, ...b.q], k: [...a.k, ...b.k], v: [...a.v, ...b.v] });
  const attention = ({ q, k, v }: Qkv): Matrix =>
    q.map((query) => {
      const out = new Float64Array(hidden);
      for (let head = 0; head < heads; head++) {
        const cut = (row: Float64Array): Float64Array => row.subarray(head * size, (head + 1) * size);
        const scores = k.map((key) => dot(cut(query), cut(key)) / Math.sqrt(size));
        const top = Math.max(...scores);
        const weights = scores.map((score) => Math.exp(score - top));
        const sum = weights.reduce((a, b) => a + b, 0);
        for (const [j, value] of v.entries()) {
          for (let i = 0; i < size; i++) out[head * size + i]! += (weights[j]! / sum) * cut(value)[i]!;
        }
      }
      return out;
    });
  const guide = (positive: Matrix, negative: Matrix): Matrix =>
    positive.map((z, r) => {
      const { scale, tau, alpha } = inputs;
      const guided = z.map((v, i) => v * scale - negative[r]![i]! * (scale - 1));
      const length = (values: Float64Array): number => values.reduce((sum, v) => sum + Math.abs(v), 0);
      const ratio = length(guided) / length(z);
      return z.map((v, i) => alpha * guided[i]! * (Math.min(ratio, tau) / ratio) + (1 - alpha) * v);
    });

  const text = inputs.text.length;
  const [ropeText, ropePicture] = [inputs.rope.slice(0, text), inputs.rope.slice(text)];
  let img = linear([...inputs.latents, ...inputs.references], 'img_in');
  let txt = linear(inputs.text, 'txt_in');
  let neg = linear(inputs.textNegative, 'txt_in');
  for (let i = 0; i < net.doubleBlocks; i++) {
    const name = `double_blocks.${i}`;
    const qkv = (x: Matrix, s: 'img' | 'txt', row: Float64Array, rope: Matrix): Qkv =>
      split(linear(normed(x, row, 0), `${name}.${s}_attn.qkv`), `${name}.${s}_attn.norm`, rope);
    const rest = (x: Matrix, s: 'img' | 'txt', row: Float64Array, attended: Matrix): Matrix => {
      const after = added(x, chunk(row, 2), linear(attended, `${name}.${s}_attn.proj`));
      const wide = linear(normed(after, row, 3), `${name}.${s}_mlp.0`).map((values) => values.map(gelu));
      return added(after, chunk(row, 5), linear(wide, `${name}.${s}_mlp.2`));
    };
    const rows = {
      img: inputs.modulation(`${name}.img_mod.lin`),
      txt: inputs.modulation(`${name}.txt_mod.lin`),
      neg: inputs.modulationNegative(`${name}.txt_mod.lin`),
    };
    const picture = qkv(img, 'img', rows.img, ropePicture);
    const withText = attention(joined(qkv(txt, 'txt', rows.txt, ropeText), picture));
    const withNegative = attention(joined(qkv(neg, 'txt', rows.neg, ropeText), picture));
    img = rest(img, 'img', rows.img, guide(withText.slice(text), withNegative.slice(text)));
    txt = rest(txt, 'txt', rows.txt, withText.slice(0, text));
    neg = rest(neg, 'txt', rows.neg, withNegative.slice(0, text));
  }
  for (let i = 0; i < net.singleBlocks; i++) {
    const name = `single_blocks.${i}`;
    const [row, rowNegative] = [inputs.modulation, inputs.modulationNegative].map((of) =>
      of(`${name}.modulation.lin`),
    ) as [Float64Array, Float64Array];
    const rest = (x: Matrix, wide: Matrix, of: Float64Array, attended: Matrix): Matrix => {
      const both = attended.map((values, r) => Float64Array.of(...values, ...wide[r]!.slice(3 * hidden).map(gelu)));
      return added(x, chunk(of, 2), linear(both, `${name}.linear2`));
    };
    const wide = linear(normed([...txt, ...img], row, 0), `${name}.linear1`);
    const wideNegative = linear(normed(neg, rowNegative, 0), `${name}.linear1`);
    const cut = (x: Matrix): Matrix => x.map((values) => values.slice(0, 3 * hidden));
    const positive = split(cut(wide), `${name}.norm`, inputs.rope);
    const negative = split(cut(wideNegative), `${name}.norm`, ropeText);
    const from = ({ q, k, v }: Qkv, at: number): Qkv => ({ q: q.slice(at), k: k.slice(at), v: v.slice(at) });
    const withText = attention(positive);
    const withNegative = attention(joined(negative, from(positive, text)));
    const attended = [...withText.slice(0, text), ...guide(withText.slice(text), withNegative.slice(text))];
    const x = rest([...txt, ...img], wide, row, attended);
    neg = rest(neg, wideNegative, rowNegative, withNegative.slice(0, text));
    [txt, img] = [x.slice(0, text), x.slice(text)];
  }
  const final = inputs.modulation('final_layer.adaLN_modulation.1');
  return linear(normed(img.slice(0, inputs.latents.length), final, 0), 'final_layer.linear');
}
