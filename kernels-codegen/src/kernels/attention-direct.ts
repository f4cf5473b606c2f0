// The attention kernel for adapters that run on the CPU (lavapipe, SwiftShader): no workgroup memory, no barrier, little text.
// There a shader's compilation costs more than its run, and memory shared by a workgroup is memory like any other.

import type { TargetProfile } from '../targets/types.ts';
import { declareViews, endOfKeys, MASKED, scoreText } from './attention-parts.ts';
import { type AttentionSpec, attentionBytes, attentionFlops, keysOf } from './attention-spec.ts';
import type { KernelSource } from './kernel.ts';
import { elementTypes } from './precision.ts';

/** A thread takes one query of one head and visits `keys` keys at a time. */
export interface DirectAttention {
  variant: 'direct';
  threads: number;
  keys: number;
}

/**
 * out[i, h] = Σⱼ softmaxⱼ(scale · q[i, h] · k[j, h] + bias) · v[j, h]
 *
 * Keys and values follow from the workgroup alone, so a CPU's driver loads them once for all lanes. The query
 * and the output are private arrays: lanes hold different rows, which a CPU must gather one element at a time. All arithmetic is f32.
 * Loops end at bounds the driver cannot know, by adding `group.z`, always 0: it would unroll them throughout, and
 * compile for seconds.
 */
export function directAttention(spec: AttentionSpec, target: TargetProfile, schedule: DirectAttention): KernelSource {
  const { heads, size, q, causal } = spec;
  const { threads, keys: step } = schedule;
  const d4 = Math.ceil(size / 4);
  const types = elementTypes('attention', [q.type, spec.k.type, spec.v.type, spec.out.type], target);
  const views = declareViews(spec, 'f32', { tileQ: 1, tileK: step, d4, v4: d4 });
  const keys = Array.from({ length: step }, (_, j) => j);
  const raggedKeys = keysOf(spec) % step !== 0;
  const score = (j: number): string =>
    scoreText(spec, { name: `s${j}`, key: `(first_key + ${j}u)`, query: 'query', raggedKeys });

  const wgsl = `${types.enable}${views.declarations}
${views.functions}

@compute @workgroup_size(${threads})
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
  let head = group.y;
  let first_query = group.x * ${threads}u;
  let query = first_query + thread;
  ${q.rows % threads ? `if (query >= ${q.rows}u) { return; }` : ''}
  var m = ${MASKED};
  var l = 0.0;
  var a: array<vec4<f32>, ${d4}>;
  var o: array<vec4<f32>, ${d4}>;
  for (var d = 0u; d < ${d4}u + group.z; d++) { a[d] = load_q(query, d, head); }
  for (var first_key = 0u; first_key < ${endOfKeys(spec, threads)} + group.z; first_key += ${step}u) {
    ${keys.map((j) => `var s${j} = 0.0;`).join(' ')}
    for (var d = 0u; d < ${d4}u + group.z; d++) {
      ${keys.map((j) => `s${j} += dot(a[d], load_k(first_key + ${j}u, d, head));`).join('\n      ')}
    }
    ${keys.map(score).join('\n    ')}
    let n = max(m, ${keys.map((j) => `s${j}`).reduce((a, b) => `max(${a}, ${b})`)});
    let shrink = exp2(m - n);
    m = n;
    ${keys.map((j) => `let p${j} = exp2(s${j} - n);`).join(' ')}
    l = l * shrink + ${keys.map((j) => `p${j}`).join(' + ')};
    for (var d = 0u; d < ${d4}u + group.z; d++) {
      o[d] = o[d] * shrink + ${keys.map((j) => `p${j} * load_v(first_key + ${j}u, d, head)`).join(' + ')};
    }
  }
  let inverse = 1.0 / l;
  for (var d = 0u; d < ${d4}u + group.z; d++) { store_out(query, d, head, o[d] * inverse); }
}
`;
  return {
    label: `attention direct ${heads}×${size}${causal ? ' causal' : ''}${spec.bias ? ' bias' : ''}`,
    wgsl,
    bindings: views.bindings,
    workgroups: [Math.ceil(q.rows / threads), heads, 1],
    flops: attentionFlops(spec),
    bytes: attentionBytes(spec),
    needs: { features: types.features, invocations: threads, workgroupBytes: 0 },
  };
}

/** Workgroups small enough that a few queries still occupy every core. */
export const chooseDirect = (): DirectAttention => ({ variant: 'direct', threads: 32, keys: 8 });
