// Float64 attention and the check that all attention suites share.
// The oracle reads the rounded inputs through the same views as the kernel, so strides and offsets are tested with the numbers.

import { expect } from 'vitest';
import {
  type AttentionSchedule,
  type AttentionSpec,
  attention,
} from '../../kernels-codegen/src/kernels/attention/index.ts';
import type { TargetProfile } from '../../kernels-codegen/src/targets/types.ts';
import { runKernel, type TestDevice } from '../support/gpu.ts';
import { decode, encode, expectView, filled, gaussian, valueAt, view } from '../support/views.ts';

export interface AttentionCase {
  heads: number;
  size: number;
  queries: number;
  keys: number;
  type: 'f32' | 'f16';
  /** All three inputs are rectangles of one buffer `[rows, 3·heads·size]` with this many extra elements before it. */
  fused?: { offset: number };
  causal?: boolean;
  bias?: boolean;
  validKeys?: number;
  /** Standard deviation of the scores; 1 by default. */
  spread?: number;
  schedule?: AttentionSchedule;
}

/**
 * f32: sums of a few hundred products and WGSL's exp2, good to 3 + 2|x| units in the last place, at |x| ≤ 10.
 * f16: probabilities and the result are each rounded once, 2⁻¹¹ relative, on elements up to five times the root mean square.
 */
const LIMITS = { f32: { nmse: 1e-11, worst: 2e-5 }, f16: { nmse: 1e-6, worst: 4e-3 } };

/** Runs one case on the device and compares it with the oracle. */
export async function checkAttention(gpu: TestDevice, target: TargetProfile, c: AttentionCase): Promise<void> {
  const { heads, size, queries, keys, type } = c;
  const cols = heads * size;
  const spread = c.spread ?? 1;
  const part = (rows: number, index: number) =>
    c.fused
      ? view(type, rows, cols, { rowStride: 3 * cols, offset: c.fused.offset + index * cols })
      : view(type, rows, cols);
  const spec: AttentionSpec = {
    heads,
    size,
    q: part(queries, 0),
    k: part(keys, 1),
    v: part(keys, 2),
    out: view(type, queries, cols, { offset: c.fused?.offset ?? 0, rowStride: c.fused ? cols + 8 : cols }),
    scale: spread / Math.sqrt(size),
    causal: c.causal ?? false,
    ...(c.bias ? { bias: { length: (2 * queries - 1) * heads + 3, offset: 3, rowStride: heads, queries } } : {}),
    ...(c.validKeys ? { validKeys: c.validKeys } : {}),
  };
  const next = gaussian(3 + queries + keys);
  const shared = c.fused ? filled(spec.v, next) : undefined;
  const [q, k, v] = [spec.q, spec.k, spec.v].map((m) => shared ?? filled(m, next)) as [
    Float64Array,
    Float64Array,
    Float64Array,
  ];
  const bias = Float64Array.from({ length: spec.bias?.length ?? 0 }, () => Math.fround(next()));
  const before = filled(spec.out, next);
  const kernel = attention(spec, target, c.schedule);
  const buffers = [
    encode(type, q),
    encode(type, k),
    encode(type, v),
    ...(spec.bias ? [encode('f32', bias)] : []),
    encode(type, before),
  ];
  expect(kernel.bindings.length).toBe(buffers.length);
  expect(kernel.needs.workgroupBytes).toBeLessThanOrEqual(target.limits.maxComputeWorkgroupStorageSize);
  const result = await runKernel(gpu, kernel, buffers);
  const want = oracle(spec, q, k, v, bias);
  // The exponential's relative error grows with the size of its argument; scores of ±4·spread are seen.
  const { nmse, worst } = LIMITS[type];
  const grow = Math.max(1, spread);
  const limit = type === 'f32' ? { nmse: nmse * grow, worst: worst * grow } : { nmse, worst };
  expectView(
    spec.out,
    decode(type, result.get(buffers.length - 1)!),
    (row, col) => want[row * cols + col]!,
    limit,
    before,
  );
}

function oracle(s: AttentionSpec, q: Float64Array, k: Float64Array, v: Float64Array, bias: Float64Array) {
  const { heads, size } = s;
  const cols = heads * size;
  const out = new Float64Array(s.q.rows * cols);
  for (let i = 0; i < s.q.rows; i++) {
    const keys = Math.min(s.validKeys ?? s.k.rows, s.causal ? i + 1 : s.k.rows);
    for (let h = 0; h < heads; h++) {
      const scores = Array.from({ length: keys }, (_, j) => {
        let dot = 0;
        for (let d = h * size; d < (h + 1) * size; d++) dot += valueAt(s.q, q, i, d) * valueAt(s.k, k, j, d);
        const b = s.bias ? bias[s.bias.offset + (j - i + s.bias.queries - 1) * s.bias.rowStride + h]! : 0;
        return dot * s.scale + b;
      });
      const top = Math.max(...scores);
      const weights = scores.map((x) => Math.exp(x - top));
      const total = weights.reduce((a, b) => a + b, 0);
      for (let d = h * size; d < (h + 1) * size; d++) {
        let sum = 0;
        for (let j = 0; j < keys; j++) sum += weights[j]! * valueAt(s.v, v, j, d);
        out[i * cols + d] = sum / total;
      }
    }
  }
  return out;
}
