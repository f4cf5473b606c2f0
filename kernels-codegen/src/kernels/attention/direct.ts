// The attention kernel for adapters that run on the CPU (lavapipe, SwiftShader): no barrier, little text.
// There a shader's compilation costs more than its run, and memory shared by a workgroup is memory like any other.

import { KontextError } from '../../../../runtime/src/errors.ts';
import type { TargetProfile } from '../../targets/types.ts';
import type { KernelSource } from '../kernel.ts';
import { elementTypes } from '../precision.ts';
import { lanesOf, subgroupEnables, subgroupFeatures } from '../subgroups.ts';
import { declareViews, endOfKeys, MASKED, scoreText } from './parts.ts';
import { type AttentionSpec, attentionBytes, attentionFlops, keysOf } from './spec.ts';

/**
 * A thread takes `queries` queries of one head, `threads` apart, and visits `keys` keys at a time. With `broadcast` the workgroup is a subgroup
 * whose threads load one of as many keys each and hand it round.
 */
export interface DirectAttention {
  variant: 'direct';
  threads: number;
  queries: number;
  keys: number;
  broadcast?: true;
}

/**
 * out[i, h] = Σⱼ softmaxⱼ(scale · q[i, h] · k[j, h] + bias) · v[j, h]
 *
 * A CPU's driver loads every value lane by lane, also what all lanes share. With `broadcast` a thread loads the key and the value of its own
 * number and takes the others' from their registers, as the rows of a direct matmul. Queries are read again for every few keys, and the output is summed in workgroup memory
 * where each thread touches its own part only: private arrays cost as much to reach, and drivers unroll the loops over
 * them. All arithmetic is f32.
 * Loops end at bounds the driver cannot know, by adding `group.z`, always 0: it would unroll them throughout, and
 * compile for seconds.
 */
export function directAttention(spec: AttentionSpec, target: TargetProfile, schedule: DirectAttention): KernelSource {
  const { heads, size, q, causal } = spec;
  const { threads, queries, keys: step, broadcast } = schedule;
  if (broadcast && (threads !== lanesOf(target) || step % threads)) {
    throw new KontextError(
      'program-invalid',
      'attention: broadcasts need a workgroup of one subgroup, and as many keys for each thread',
    );
  }
  const d4 = Math.ceil(size / 4);
  const tileQ = threads * queries;
  const types = elementTypes('attention', [q.type, spec.k.type, spec.v.type, spec.out.type], target);
  const views = declareViews(spec, 'f32', { tileQ: 1, tileK: step, d4, v4: d4 }, true);
  const each = <T>(count: number, f: (i: number) => T): T[] => Array.from({ length: count }, (_, i) => f(i));
  const pairs = (f: (i: number, j: number) => string): string =>
    each(queries, (i) => each(step, (j) => f(i, j)).join(' ')).join('\n    ');
  const raggedQueries = q.rows % tileQ !== 0;
  const raggedKeys = keysOf(spec) % step !== 0;
  const score = (i: number, j: number): string =>
    scoreText(spec, { name: `s${i}_${j}`, key: `(first_key + ${j}u)`, query: `query${i}`, raggedKeys });
  // What a thread reads of keys or values, and where it finds that of key `j`.
  const loads = broadcast ? step / threads : step;
  const load = (name: string): string =>
    each(
      loads,
      (j) =>
        `let ${name}${j} = load_${name}(first_key + ${broadcast ? `${j * threads}u + thread` : `${j}u`}, d, head);`,
    ).join(' ');
  const of = (name: string, j: number): string =>
    broadcast ? `subgroupBroadcast(${name}${Math.floor(j / threads)}, ${j % threads}u)` : `${name}${j}`;
  const sum = (i: number): string => `sums[(d * ${queries}u + ${i}u) * ${threads}u + thread]`;

  const wgsl = `${types.enable}${broadcast ? subgroupEnables(target) : ''}${views.declarations}
var<workgroup> sums: array<vec4<f32>, ${d4 * tileQ}>;
${views.functions}

@compute @workgroup_size(${threads})
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(${broadcast ? 'subgroup_invocation_id' : 'local_invocation_index'}) thread: u32) {
  let head = group.y;
  let first_query = group.x * ${tileQ}u;
  ${each(queries, (i) => `let query${i} = first_query + ${i * threads}u + thread;`).join(' ')}
  ${each(queries, (i) => `let row${i} = ${raggedQueries ? `min(query${i}, ${q.rows - 1}u)` : `query${i}`};`).join(' ')}
  ${each(queries, (i) => `var m${i} = ${MASKED}; var l${i} = 0.0;`).join(' ')}
  for (var d = 0u; d < ${d4}u + group.z; d++) { ${each(queries, (i) => `${sum(i)} = vec4<f32>();`).join(' ')} }
  for (var first_key = 0u; first_key < ${endOfKeys(spec, tileQ)} + group.z; first_key += ${step}u) {
    ${pairs((i, j) => `var s${i}_${j} = 0.0;`)}
    for (var d = 0u; d < ${d4}u + group.z; d++) {
      ${load('k')}
      ${each(queries, (i) => `let q${i} = load_q(row${i}, d, head);`).join(' ')}
      ${each(step, (j) => `{ let x = ${of('k', j)}; ${each(queries, (i) => `s${i}_${j} += dot(q${i}, x);`).join(' ')} }`).join('\n      ')}
    }
    ${pairs(score)}
    ${each(
      queries,
      (i) => `let n${i} = max(m${i}, ${each(step, (j) => `s${i}_${j}`).reduce((a, b) => `max(${a}, ${b})`)});
    let shrink${i} = exp2(m${i} - n${i});
    m${i} = n${i};
    ${each(step, (j) => `s${i}_${j} = exp2(s${i}_${j} - n${i});`).join(' ')}
    l${i} = l${i} * shrink${i} + ${each(step, (j) => `s${i}_${j}`).join(' + ')};`,
    ).join('\n    ')}
    for (var d = 0u; d < ${d4}u + group.z; d++) {
      ${load('v')}
      ${each(queries, (i) => `var o${i} = ${sum(i)} * shrink${i};`).join(' ')}
      ${each(step, (j) => `{ let x = ${of('v', j)}; ${each(queries, (i) => `o${i} += s${i}_${j} * x;`).join(' ')} }`).join('\n      ')}
      ${each(queries, (i) => `${sum(i)} = o${i};`).join(' ')}
    }
  }
  ${each(queries, (i) => `let inverse${i} = 1.0 / l${i};`).join(' ')}
  for (var d = 0u; d < ${d4}u + group.z; d++) {
    ${each(queries, (i) => `${raggedQueries ? `if (query${i} < ${q.rows}u) ` : ''}{ store_out(query${i}, d, head, ${sum(i)} * inverse${i}); }`).join('\n    ')}
  }
}
`;
  return {
    label: `attention direct ${heads}×${size} ${tileQ}×${step}${causal ? ' causal' : ''}${spec.bias ? ' bias' : ''}`,
    wgsl,
    bindings: views.bindings,
    workgroups: [Math.ceil(q.rows / tileQ), heads, 1],
    flops: attentionFlops(spec),
    bytes: attentionBytes(spec),
    needs: {
      features: [...types.features, ...(broadcast ? subgroupFeatures(target) : [])],
      invocations: threads,
      workgroupBytes: 16 * d4 * tileQ,
      ...(broadcast ? { subgroupSize: { min: threads, max: threads } } : {}),
    },
  };
}

/**
 * Eight lanes are a vector of most CPUs. On lavapipe, 512 tokens of 2 × 128 in f16: two queries and sixteen keys handed
 * round run at 15 to 17 GFLOP/s a CPU and compile for 0.4 s, eight keys at 11 and 0.3 s, four queries and eight keys at 14
 * and 0.6 s. Without broadcasts four queries and keys run at 7 and compile for 1.3 s, two of each at 3 and 0.4 s, which is
 * better for little work; eight keys compile for minutes.
 */
export function chooseDirect(spec: AttentionSpec, target: TargetProfile): DirectAttention {
  const lanes = lanesOf(target);
  const threads = lanes ?? 8;
  const little = attentionFlops(spec) < LITTLE_WORK;
  const bytes = 16 * Math.ceil(spec.size / 4) * threads;
  const room = Math.floor(target.limits.maxComputeWorkgroupStorageSize / bytes);
  const queries = [lanes || little ? 2 : 4, 2].find((n) => n <= room) ?? 1;
  if (lanes) return { variant: 'direct', threads, queries, keys: little ? lanes : 2 * lanes, broadcast: true };
  return { variant: 'direct', threads, queries, keys: little ? 2 : 4 };
}

/** Operations that take a CPU about 20 ms, well below the time that a larger text takes longer to compile. */
const LITTLE_WORK = 2 ** 27;

/** What measuring may choose from. Eight keys without broadcasts are left out: they compile for minutes. */
export function directAttentions(spec: AttentionSpec, target: TargetProfile): DirectAttention[] {
  const lanes = lanesOf(target);
  const room = target.limits.maxComputeWorkgroupStorageSize;
  const bytes = 16 * Math.ceil(spec.size / 4);
  const fitting = (threads: number): number[] => [1, 2, 4].filter((queries) => bytes * threads * queries <= room);
  const shared = lanes
    ? fitting(lanes).flatMap((queries) =>
        [lanes, 2 * lanes].map(
          (keys): DirectAttention => ({ variant: 'direct', threads: lanes, queries, keys, broadcast: true }),
        ),
      )
    : [];
  const alone = [8, 4, 16].flatMap((threads) =>
    fitting(threads).flatMap((queries) =>
      [2, 4].map((keys): DirectAttention => ({ variant: 'direct', threads, queries, keys })),
    ),
  );
  return [...shared, ...alone];
}
