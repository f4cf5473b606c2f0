// The products that everybody computes, all in float32: their sizes, their operands, and single results in float64.

export type Task =
  | { kind: 'matmul'; m: number; n: number; k: number }
  | { kind: 'attention'; tokens: number; heads: number; size: number }
  | { kind: 'conv'; side: number; cin: number; cout: number };

/** A linear layer of the transformer, its attention and a layer of the autoencoder, scaled to what a CPU computes in a second. */
export const TASKS: readonly Task[] = [
  { kind: 'matmul', m: 512, n: 1024, k: 1024 },
  { kind: 'attention', tokens: 512, heads: 4, size: 128 },
  { kind: 'conv', side: 64, cin: 64, cout: 64 },
];

export const nameOf = (t: Task): string =>
  t.kind === 'matmul'
    ? `matmul ${t.m}×${t.n}×${t.k}`
    : t.kind === 'attention'
      ? `attention ${t.tokens} tokens of ${t.heads}×${t.size}`
      : `convolution 3×3 ${t.side}×${t.side}, ${t.cin} → ${t.cout}`;

export const flopsOf = (t: Task): number =>
  t.kind === 'matmul'
    ? 2 * t.m * t.n * t.k
    : t.kind === 'attention'
      ? 4 * t.tokens ** 2 * t.heads * t.size
      : 2 * t.side ** 2 * 9 * t.cin * t.cout;

/** Deterministic values of about one. */
export function values(count: number, seed: number, scale = 1): Float32Array<ArrayBuffer> {
  let state = seed;
  return Float32Array.from({ length: count }, () => {
    state = (Math.imul(state, 1664525) + 1013904223) | 0;
    return (scale * state) / 2 ** 31;
  });
}

/** Matmul: a `[m, k]`, b `[n, k]`. Attention: q, k, v `[tokens, heads·size]`. Convolution: x `[y, x, cin]`, w `[cout, 3, 3, cin]`. */
export function operandsOf(t: Task): Float32Array<ArrayBuffer>[] {
  if (t.kind === 'matmul') return [values(t.m * t.k, 1), values(t.n * t.k, 2, 1 / Math.sqrt(t.k))];
  if (t.kind === 'attention') return [1, 2, 3].map((seed) => values(t.tokens * t.heads * t.size, seed));
  return [values(t.side ** 2 * t.cin, 1), values(t.cout * 9 * t.cin, 2, 1 / Math.sqrt(9 * t.cin))];
}

/** Values of the result `[rows, columns]` that are compared: a few rows, from edge to edge. */
export function expected(t: Task, operands: readonly Float32Array[]): Map<number, number> {
  const results = new Map<number, number>();
  const [a, b, c] = operands as [Float32Array, Float32Array, Float32Array];
  if (t.kind === 'matmul') {
    for (const row of [0, 1, t.m >> 1, t.m - 1]) {
      for (let col = 0; col < t.n; col++) {
        let sum = 0;
        for (let i = 0; i < t.k; i++) sum += a[row * t.k + i]! * b[col * t.k + i]!;
        results.set(row * t.n + col, sum);
      }
    }
    return results;
  }
  if (t.kind === 'attention') {
    const width = t.heads * t.size;
    for (const row of [0, t.tokens >> 1, t.tokens - 1]) {
      for (let head = 0; head < t.heads; head++) {
        const at = (token: number, d: number) => token * width + head * t.size + d;
        const weights = Float64Array.from({ length: t.tokens }, (_, key) => {
          let score = 0;
          for (let d = 0; d < t.size; d++) score += a[at(row, d)]! * b[at(key, d)]!;
          return Math.exp(score / Math.sqrt(t.size));
        });
        const total = weights.reduce((x, y) => x + y);
        for (let d = 0; d < t.size; d++) {
          const sum = weights.reduce((x, weight, key) => x + weight * c[at(key, d)]!, 0);
          results.set(at(row, d), sum / total);
        }
      }
    }
    return results;
  }
  for (const [y, x] of [
    [0, 0],
    [5, t.side - 1],
    [t.side >> 1, t.side >> 1],
    [t.side - 1, 3],
  ] as const) {
    for (let n = 0; n < t.cout; n++) {
      let sum = 0;
      for (let tap = 0; tap < 9; tap++) {
        const [iy, ix] = [y + Math.floor(tap / 3) - 1, x + (tap % 3) - 1];
        if (iy < 0 || ix < 0 || iy >= t.side || ix >= t.side) continue;
        for (let i = 0; i < t.cin; i++) {
          sum += a[(iy * t.side + ix) * t.cin + i]! * b[(n * 9 + tap) * t.cin + i]!;
        }
      }
      results.set((y * t.side + x) * t.cout + n, sum);
    }
  }
  return results;
}

/** Relative distance from the float64 results. */
export function errorOf(got: ArrayLike<number>, want: ReadonlyMap<number, number>): number {
  let [error, power] = [0, 0];
  for (const [at, value] of want) {
    error += (got[at]! - value) ** 2;
    power += value ** 2;
  }
  return Math.sqrt(error / power);
}

/** `[rows, cols]` to `[cols, rows]`. */
export function transposed(list: Float32Array, rows: number, cols: number): Float32Array<ArrayBuffer> {
  return Float32Array.from({ length: rows * cols }, (_, i) => list[(i % rows) * cols + Math.floor(i / rows)]!);
}
