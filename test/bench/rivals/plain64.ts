// The float64 result that every contender is compared with: plain loops, four sums at a time so that it takes seconds.

import { type Arithmetic, weightOf } from './arithmetic.ts';
import type { Work } from './works.ts';

interface Matrix {
  rows: number;
  columns: number;
  data: Float64Array;
}

/** The work's result, row by row. */
export function inFloat64(work: Work): Float64Array {
  const inputs = Object.entries(work.inputs).map(([name, { rows, columns, data }]) => [
    name,
    { rows, columns, data: Float64Array.from(data) },
  ]);
  return work.compute(float64(work), Object.fromEntries(inputs)).data;
}

function float64(work: Work): Arithmetic<Matrix> {
  const make = (rows: number, columns: number, value: (r: number, c: number) => number): Matrix => {
    const data = new Float64Array(rows * columns);
    for (let r = 0, at = 0; r < rows; r++) for (let c = 0; c < columns; c++) data[at++] = value(r, c);
    return { rows, columns, data };
  };
  const at = (m: Matrix, r: number, c: number): number => m.data[r * m.columns + c]!;
  const columns = (x: Matrix, first: number, count: number) => make(x.rows, count, (r, c) => at(x, r, first + c));
  return {
    linear(x, name) {
      const { rows: n, data } = weightOf(work, `${name}.weight`);
      const bias = work.weights[`${name}.bias`]?.data;
      const y = product(x, { rows: n, columns: x.columns, data: Float64Array.from(data) });
      return bias ? make(y.rows, n, (r, c) => at(y, r, c) + bias[c]!) : y;
    },
    normalise(x) {
      const out = make(x.rows, x.columns, () => 0);
      for (let r = 0; r < x.rows; r++) {
        const row = x.data.subarray(r * x.columns, (r + 1) * x.columns);
        const mean = row.reduce((sum, v) => sum + v, 0) / row.length;
        const deviation = Math.sqrt(row.reduce((sum, v) => sum + (v - mean) ** 2, 0) / row.length + 1e-6);
        for (let c = 0; c < row.length; c++) out.data[r * x.columns + c] = (row[c]! - mean) / deviation;
      }
      return out;
    },
    modulate: (x, scale, shift) =>
      make(x.rows, x.columns, (r, c) => (1 + scale.data[c]!) * at(x, r, c) + shift.data[c]!),
    gated: (x, gate, y) => make(x.rows, x.columns, (r, c) => at(x, r, c) + gate.data[c]! * at(y, r, c)),
    gelu: (x) =>
      make(x.rows, x.columns, (r, c) => {
        const v = at(x, r, c);
        return 0.5 * v * (1 + Math.tanh(Math.sqrt(2 / Math.PI) * (v + 0.044715 * v ** 3)));
      }),
    rows: (x, first, count) => make(count, x.columns, (r, c) => at(x, first + r, c)),
    columns,
    below: (a, b) => make(a.rows + b.rows, a.columns, (r, c) => (r < a.rows ? at(a, r, c) : at(b, r - a.rows, c))),
    beside: (a, b) =>
      make(a.rows, a.columns + b.columns, (r, c) => (c < a.columns ? at(a, r, c) : at(b, r, c - a.columns))),
    headNorm(x, scaleName, rope, heads) {
      const scale = weightOf(work, scaleName).data;
      const size = x.columns / heads;
      const unit = make(x.rows, x.columns, () => 0);
      for (let at = 0; at < x.data.length; at += size) {
        let squares = 0;
        for (let i = 0; i < size; i++) squares += x.data[at + i]! ** 2;
        const rms = Math.sqrt(squares / size + 1e-6);
        for (let i = 0; i < size; i++) unit.data[at + i] = (x.data[at + i]! / rms) * scale[i]!;
      }
      return make(x.rows, x.columns, (r, c) => {
        const pair = (c % size) & ~1;
        const [cos, sin] = [at(rope, r, pair), at(rope, r, pair + 1)];
        return c & 1
          ? at(unit, r, c - 1) * sin + at(unit, r, c) * cos
          : at(unit, r, c) * cos - at(unit, r, c + 1) * sin;
      });
    },
    attend(q, k, v, heads) {
      const size = q.columns / heads;
      const out = make(q.rows, q.columns, () => 0);
      for (let h = 0; h < heads; h++) {
        const [ofQ, ofK, ofV] = [q, k, v].map((m) => columns(m, h * size, size)) as [Matrix, Matrix, Matrix];
        const weights = product(ofQ, ofK);
        for (let r = 0; r < q.rows; r++) {
          const row = weights.data.subarray(r * k.rows, (r + 1) * k.rows);
          const top = row.reduce((a, b) => Math.max(a, b));
          let sum = 0;
          for (let i = 0; i < row.length; i++) sum += row[i] = Math.exp((row[i]! - top) / Math.sqrt(size));
          for (let i = 0; i < row.length; i++) row[i]! /= sum;
        }
        const turned = make(size, v.rows, (r, c) => at(ofV, c, r));
        const part = product(weights, turned);
        for (let r = 0; r < q.rows; r++) {
          out.data.set(part.data.subarray(r * size, (r + 1) * size), r * q.columns + h * size);
        }
      }
      return out;
    },
    convolve(x, name) {
      const { rows: n, columns: taps, data } = weightOf(work, `${name}.weight`);
      const { height, width } = work.image!;
      const around = make(x.rows, taps, (pixel, i) => {
        const [tap, c] = [Math.floor(i / x.columns), i % x.columns];
        const row = Math.floor(pixel / width) + Math.floor(tap / 3) - 1;
        const column = (pixel % width) + (tap % 3) - 1;
        return row < 0 || column < 0 || row >= height || column >= width ? 0 : at(x, row * width + column, c);
      });
      return product(around, { rows: n, columns: taps, data: Float64Array.from(data) });
    },
  };
}

/** a · bᵀ */
function product(a: Matrix, b: Matrix): Matrix {
  const { columns: k } = a;
  const data = new Float64Array(a.rows * b.rows);
  const padded = b.rows % 4 === 0 ? b.data : new Float64Array(Math.ceil(b.rows / 4) * 4 * k);
  if (padded !== b.data) padded.set(b.data);
  for (let r = 0; r < a.rows; r++) {
    const row = a.data.subarray(r * k, (r + 1) * k);
    for (let c = 0; c < b.rows; c += 4) {
      let [s0, s1, s2, s3] = [0, 0, 0, 0];
      for (let i = 0, p = c * k; i < k; i++, p++) {
        const v = row[i]!;
        s0 += v * padded[p]!;
        s1 += v * padded[p + k]!;
        s2 += v * padded[p + 2 * k]!;
        s3 += v * padded[p + 3 * k]!;
      }
      const at = r * b.rows + c;
      data[at] = s0;
      if (c + 1 < b.rows) data[at + 1] = s1;
      if (c + 2 < b.rows) data[at + 2] = s2;
      if (c + 3 < b.rows) data[at + 3] = s3;
    }
  }
  return { rows: a.rows, columns: b.rows, data };
}
