// The attention kernel for devices without matrix instructions: tiles in workgroup memory, products in registers.
// One text serves tiny, ragged and wide heads, with or without f16 and subgroup operations: only tile sizes differ.

import { KontextError } from '../../../../runtime/src/errors.ts';
import { hasTier, type TargetProfile } from '../../targets/types.ts';
import { sameSchedule } from '../../tune/tuned.ts';
import type { KernelSource } from '../kernel.ts';
import { elementTypes } from '../precision.ts';
import { type Copy, indexOf, rowOf, stage } from '../staging.ts';
import { subgroupEnables, subgroupFeatures, subgroupSizeAttribute } from '../subgroups.ts';
import { declareViews, endOfKeys, MASKED, scoreText } from './parts.ts';
import { type AttentionSpec, attentionBytes, attentionFlops, keysOf } from './spec.ts';

/** A workgroup is a `threadsQ × threadsK` grid. */
export interface TiledAttention {
  variant: 'tiled';
  /** Rows of threads, each with its own queries. */
  threadsQ: number;
  /** Threads that share a query: in the scores they split the keys, in the output the head's columns. */
  threadsK: number;
  /** Queries a thread; a multiple of 4. */
  queries: number;
  /** Keys a thread in one key tile. */
  keys: number;
  /** Head elements of Q and K staged at a time; a multiple of 4. */
  chunkD: number;
  /** Keys of V staged at a time; divides `keys · threadsK`. */
  chunkK: number;
  /** Stage all of Q once instead of chunk by chunk for every key tile. */
  keepQueries: boolean;
  /** How the threads that share a query agree on its maximum. */
  exchange: 'workgroup' | 'subgroup';
}

/**
 * out[i, h] = Σⱼ softmaxⱼ(scale · q[i, h] · k[j, h] + bias) · v[j, h]
 *
 * A workgroup takes `threadsQ · queries` queries of one head and steps over key tiles. For each tile: scores in
 * registers from chunks of Q and K in workgroup memory; the running maximum of each query, agreed on by the threads that
 * share it; probabilities through workgroup memory, transposed so that a thread reads four queries at once; and the
 * output, kept in registers, rescaled and added to. Each thread keeps its own part of a query's sum to the end.
 * Staged operands and probabilities are f16 where all of q, k, v are; everything else is f32.
 */
export function tiledAttention(spec: AttentionSpec, target: TargetProfile, schedule: TiledAttention): KernelSource {
  const { heads, size, q, causal } = spec;
  const { threadsQ, threadsK, queries: rq, keys: rk, keepQueries, chunkK } = schedule;
  const l = layout(spec, target, schedule);
  checkFits(l, schedule, target);
  const { tileQ, tileK, d4, chunk4, columns, quads, half } = l;
  const staged = half ? 'f16' : 'f32';
  const types = elementTypes('attention', [q.type, spec.k.type, spec.v.type, spec.out.type], target);
  const keys = keysOf(spec);
  const threads = threadsQ * threadsK;
  const subgroups = schedule.exchange === 'subgroup';
  const each = <T>(n: number, f: (i: number) => T): T[] => Array.from({ length: n }, (_, i) => f(i));
  const component = (r: number): string => `${r >> 2}.${'xyzw'[r & 3]}`;

  // A CPU's driver unrolls loops of known length throughout and compiles for seconds; `group.z` is always 0.
  const open = target.software ? ' + group.z' : '';
  const chunks = Math.ceil(d4 / chunk4);
  const qStride = tileQ + 1;
  const kStride = tileK + 1;
  const kAt = keepQueries ? 0 : chunk4 * qStride;
  const views = declareViews(spec, staged, { tileQ, tileK, d4: chunks * chunk4, v4: threadsK * columns });

  const rowsOf = (rows: number, name: string, array: string, at: number, stride: number, first: string): Copy => ({
    count: rows * chunk4,
    width: chunk4,
    item: (place) => ({
      values: [`load_${name}(${first} + ${rowOf(place)}, chunk + ${place.col}, head)`],
      store: ([v]) => `${array}[${at}u + ${place.col} * ${stride}u + ${rowOf(place)}] = ${v};`,
    }),
  });
  const stageAllQueries: Copy = {
    count: tileQ * chunk4 * chunks,
    width: chunk4 * chunks,
    item: (place) => ({
      values: [`load_q(first_query + ${rowOf(place)}, ${place.col}, head)`],
      store: ([v]) => `queries[${place.col} * ${qStride}u + ${rowOf(place)}] = ${v};`,
    }),
  };
  const stageValues: Copy = {
    count: chunkK * threadsK * columns,
    width: threadsK * columns,
    item: (place) => ({
      values: [`load_v(first_key + part + ${rowOf(place)}, ${place.col}, head)`],
      store: ([v]) => `stage[${indexOf(place, threadsK * columns)}] = ${v};`,
    }),
  };
  const qArray = keepQueries ? `queries[(chunk + d) * ${qStride}u` : `stage[d * ${qStride}u`;
  const scoreStep = `for (var d = 0u; d < ${chunk4}u${open}; d++) {
        ${each(rk, (j) => `let k${j} = vec4<f32>(stage[${kAt}u + d * ${kStride}u + tx + ${j * threadsK}u]);`).join(' ')}
        ${each(rq, (r) => `{ let a = vec4<f32>(${qArray} + ty * ${rq}u + ${r}u]); ${each(rk, (j) => `s${j}_${r} += dot(a, k${j});`).join(' ')} }`).join('\n        ')}
      }`;

  const vectorOfScores = (j: number, i: number): string =>
    `vec4<f32>(${each(4, (c) => `s${j}_${4 * i + c}`).join(', ')})`;
  // Combines a value of every thread that shares a query; all of them get the result.
  const exchange = (name: string, op: 'max' | 'add', result: string): string => {
    const combine = (a: string, b: string): string => (op === 'max' ? `max(${a}, ${b})` : `${a} + ${b}`);
    if (subgroups) {
      const steps: string[] = [];
      for (let mask = 1; mask < threadsK; mask *= 2) {
        steps.push(
          each(
            quads,
            (i) => `${name}${i} = ${combine(`${name}${i}`, `subgroupShuffleXor(${name}${i}, ${mask}u)`)};`,
          ).join(' '),
        );
      }
      return `${steps.join('\n    ')}\n    ${each(quads, (i) => `let ${result}${i} = ${name}${i};`).join(' ')}`;
    }
    return `${half ? '' : 'workgroupBarrier();'}
    ${each(quads, (i) => `${l.shared}[tx * ${tileQ / 4}u + ty * ${quads}u + ${i}u] = ${name}${i};`).join(' ')}
    workgroupBarrier();
    ${each(quads, (i) => `var ${result}${i} = ${op === 'max' ? `${name}${i}` : 'vec4<f32>()'};`).join(' ')}
    for (var t = 0u; t < ${threadsK}u${open}; t++) {
      ${each(quads, (i) => `${result}${i} = ${combine(`${result}${i}`, `${l.shared}[t * ${tileQ / 4}u + ty * ${quads}u + ${i}u]`)};`).join(' ')}
    }`;
  };

  const raggedKeys = keys % tileK !== 0;
  const score = (j: number, r: number): string =>
    scoreText(spec, { name: `s${j}_${r}`, key: `key${j}`, query: `query + ${r}u`, raggedKeys });

  const pStride = tileQ / 4 + 1;
  const out4 = threadsK * columns > d4;
  const wgsl = `${types.enable}${subgroups ? subgroupEnables(target) : ''}${views.declarations}
${keepQueries ? `var<workgroup> queries: array<vec4<${staged}>, ${chunks * chunk4 * qStride}>;` : ''}
var<workgroup> stage: array<vec4<${staged}>, ${l.stageLength}>;
var<workgroup> probabilities: array<vec4<${staged}>, ${tileK * pStride}>;
${l.sharedLength ? `var<workgroup> shared_rows: array<vec4<f32>, ${l.sharedLength}>;` : ''}

${views.functions}

@compute ${subgroups ? subgroupSizeAttribute(target) : ''}@workgroup_size(${threads})
fn main(@builtin(workgroup_id) group: vec3<u32>, ${
    subgroups
      ? '@builtin(subgroup_id) subgroup: u32, @builtin(subgroup_size) lanes: u32, @builtin(subgroup_invocation_id) lane: u32) {\n  // Numbered by subgroup, so that neighbours by this number are lanes of one subgroup.\n  let thread = subgroup * lanes + lane;'
      : '@builtin(local_invocation_index) thread: u32) {'
  }
  let tx = thread % ${threadsK}u;
  let ty = thread / ${threadsK}u;
  let head = group.y;
  let first_query = group.x * ${tileQ}u;
  let query = first_query + ty * ${rq}u;
  ${each(quads, (i) => `var m${i} = vec4<f32>(${MASKED}); var l${i} = vec4<f32>();`).join(' ')}
  ${each(rq, (r) => each(columns, (c) => `var o${r}_${c} = vec4<f32>();`).join(' ')).join('\n  ')}
  ${keepQueries ? stage([stageAllQueries], threads, open) : ''}

  for (var first_key = 0u; first_key < ${endOfKeys(spec, tileQ)}${open}; first_key += ${tileK}u) {
    ${each(rk, (j) => each(rq, (r) => `var s${j}_${r} = 0.0;`).join(' ')).join('\n    ')}
    for (var chunk = 0u; chunk < ${chunks * chunk4}u${open}; chunk += ${chunk4}u) {
      workgroupBarrier();
      ${stage([...(keepQueries ? [] : [rowsOf(tileQ, 'q', 'stage', 0, qStride, 'first_query')]), rowsOf(tileK, 'k', 'stage', kAt, kStride, 'first_key')], threads, open)}
      workgroupBarrier();
      ${scoreStep}
    }
    // Scores in units of log2 e, so that the exponential is exp2.
    ${each(rk, (j) => `let key${j} = first_key + tx + ${j * threadsK}u;`).join(' ')}
    ${each(rk, (j) => each(rq, (r) => score(j, r)).join('\n    ')).join('\n    ')}
    ${each(quads, (i) => `var highest${i} = ${each(rk, (j) => vectorOfScores(j, i)).reduce((a, b) => `max(${a}, ${b})`)};`).join('\n    ')}
    ${exchange('highest', 'max', 'top')}
    ${each(quads, (i) => `let n${i} = max(m${i}, top${i}); let shrink${i} = exp2(m${i} - n${i}); m${i} = n${i}; l${i} *= shrink${i};`).join('\n    ')}
    ${each(rk, (j) => each(quads, (i) => `{ let p = exp2(${vectorOfScores(j, i)} - n${i}); l${i} += p; probabilities[(tx + ${j * threadsK}u) * ${pStride}u + ty * ${quads}u + ${i}u] = vec4<${staged}>(p); }`).join('\n    ')).join('\n    ')}
    ${each(rq, (r) => each(columns, (c) => `o${r}_${c} *= shrink${component(r)};`).join(' ')).join(' ')}
    for (var part = 0u; part < ${tileK}u${open}; part += ${chunkK}u) {
      workgroupBarrier();
      ${stage([stageValues], threads, open)}
      workgroupBarrier();
      for (var j = 0u; j < ${chunkK}u${open}; j++) {
        ${each(quads, (i) => `let p${i} = vec4<f32>(probabilities[(part + j) * ${pStride}u + ty * ${quads}u + ${i}u]);`).join(' ')}
        ${each(columns, (c) => `{ let v = vec4<f32>(stage[j * ${threadsK * columns}u + tx + ${c * threadsK}u]); ${each(rq, (r) => `o${r}_${c} += p${component(r)} * v;`).join(' ')} }`).join('\n        ')}
      }
    }
  }
  ${exchange('l', 'add', 'total')}
  ${each(rq, (r) => {
    const stores = each(columns, (c) => {
      const store = `store_out(query + ${r}u, tx + ${c * threadsK}u, head, o${r}_${c} / total${component(r)});`;
      return out4 ? `if (tx + ${c * threadsK}u < ${d4}u) { ${store} }` : store;
    }).join(' ');
    return q.rows % tileQ ? `if (query + ${r}u < ${q.rows}u) { ${stores} }` : stores;
  }).join('\n  ')}
}
`;
  const features = [...types.features, ...(subgroups ? subgroupFeatures(target) : [])];
  return {
    label: `attention ${staged}${subgroups ? ' subgroups' : ''} ${heads}×${size} ${tileQ}×${tileK}${causal ? ' causal' : ''}${spec.bias ? ' bias' : ''}`,
    wgsl,
    bindings: views.bindings,
    workgroups: [Math.ceil(q.rows / tileQ), heads, 1],
    flops: attentionFlops(spec),
    bytes: attentionBytes(spec),
    needs: {
      features,
      invocations: threads,
      workgroupBytes: l.bytes,
      ...(subgroups ? { subgroupSize: { min: threadsK, max: threads } } : {}),
    },
  };
}

interface Layout {
  tileQ: number;
  tileK: number;
  /** Vectors of four in a head, the last perhaps part empty. */
  d4: number;
  chunk4: number;
  /** Vectors of the output's columns that one thread holds. */
  columns: number;
  /** Vectors of four queries that one thread holds. */
  quads: number;
  /** Staged as f16. */
  half: boolean;
  stageLength: number;
  /** Where threads exchange row values: with f32 staging the stage itself, free at those moments. */
  shared: 'stage' | 'shared_rows';
  sharedLength: number;
  bytes: number;
}

function layout(spec: AttentionSpec, target: TargetProfile, s: TiledAttention): Layout {
  const tileQ = s.threadsQ * s.queries;
  const tileK = s.threadsK * s.keys;
  const d4 = Math.ceil(spec.size / 4);
  const chunk4 = s.chunkD / 4;
  const columns = Math.ceil(d4 / s.threadsK);
  const half = !target.wideTiles && [spec.q, spec.k, spec.v].every((m) => m.type === 'f16');
  const exchanged = s.exchange === 'workgroup' ? (s.threadsK * tileQ) / 4 : 0;
  // One vector of padding a row spreads the staging stores over the memory's banks.
  const rows = tileK + 1 + (s.keepQueries ? 0 : tileQ + 1);
  const stageLength = Math.max(chunk4 * rows, s.chunkK * s.threadsK * columns, half ? 0 : exchanged);
  const sharedLength = half ? exchanged : 0;
  const kept = s.keepQueries ? Math.ceil(d4 / chunk4) * chunk4 * (tileQ + 1) : 0;
  const bytes = (half ? 8 : 16) * (stageLength + kept + tileK * (tileQ / 4 + 1)) + 16 * sharedLength;
  return {
    tileQ,
    tileK,
    d4,
    chunk4,
    columns,
    quads: s.queries / 4,
    half,
    stageLength,
    shared: half ? 'shared_rows' : 'stage',
    sharedLength,
    bytes,
  };
}

function checkFits(l: Layout, s: TiledAttention, target: TargetProfile): void {
  const fail = (what: string): never => {
    throw new KontextError('program-invalid', `attention schedule for ${target.name}: ${what}`);
  };
  const threads = s.threadsQ * s.threadsK;
  const { maxComputeInvocationsPerWorkgroup: most, maxComputeWorkgroupStorageSize: room } = target.limits;
  if (threads > most) fail(`${threads} threads; the target allows ${most}.`);
  if (l.bytes > room) fail(`${l.bytes} bytes of workgroup memory; the target has ${room}. Use smaller tiles.`);
  if (s.queries % 4 !== 0 || s.chunkD % 4 !== 0 || l.tileK % s.chunkK !== 0) {
    fail('queries and chunkD must be multiples of 4, and chunkK must divide the key tile.');
  }
  if (s.exchange === 'subgroup' && s.threadsK > (target.subgroupSize?.min ?? 0)) {
    fail(`${s.threadsK} threads share a query; the smallest subgroup has ${target.subgroupSize?.min ?? 0}.`);
  }
}

/** What measuring may choose from: the estimate's tiles with more or fewer rows of threads, chunks of other lengths, Q kept or not. */
export function tiledAttentions(spec: AttentionSpec, target: TargetProfile): TiledAttention[] {
  const base = chooseTiled(spec, target);
  const fits = (s: TiledAttention): boolean =>
    layout(spec, target, s).bytes <= target.limits.maxComputeWorkgroupStorageSize &&
    s.threadsQ * s.threadsK <= target.limits.maxComputeInvocationsPerWorkgroup;
  return [base.threadsQ, 2 * base.threadsQ, base.threadsQ / 2]
    .filter((threadsQ) => threadsQ >= 1)
    .flatMap((threadsQ) => [true, false].map((keepQueries) => ({ ...base, threadsQ, keepQueries })))
    .flatMap((s) => [32, 16, 8].map((chunkD) => ({ ...s, chunkD: Math.min(chunkD, 4 * Math.ceil(spec.size / 4)) })))
    .flatMap((s) => [16, 8].map((chunkK) => ({ ...s, chunkK: Math.min(chunkK, s.threadsK * s.keys) })))
    .filter((s, i, all) => fits(s) && all.findIndex((other) => sameSchedule(s, other)) === i);
}

/** Tile sizes from the head's size and what fits the target's workgroup memory. */
export function chooseTiled(spec: AttentionSpec, target: TargetProfile): TiledAttention {
  const d4 = Math.ceil(spec.size / 4);
  // Wide heads (the VAE's 512): twice the threads share a query, so that 64 accumulators a thread still hold the output.
  const wide = d4 > 64;
  const floor = (n: number, most: number): number => {
    let p = 4;
    while (p * 2 <= n && p * 2 <= most) p *= 2;
    return p;
  };
  const lanes = hasTier(target, 'subgroups') ? (target.subgroupSize?.min ?? 0) : 0;
  let threadsK = wide ? 32 : floor(d4, 16);
  // Subgroup exchange saves two barriers a tile, but not at the price of more accumulators than 64 a thread.
  const narrowed = lanes >= 4 ? floor(lanes, threadsK) : threadsK;
  const exchange = lanes >= 4 && Math.ceil(d4 / narrowed) <= 4 ? 'subgroup' : 'workgroup';
  if (exchange === 'subgroup') threadsK = narrowed;
  // Eight spill on Apple's GPUs and leave Adreno two waves; four keep the arithmetic as busy.
  const queries = 4;
  const tileQ = wide ? 32 : 64;
  const useful = Math.ceil(spec.q.rows / queries);
  let threadsQ = tileQ / queries;
  // Few queries: no rows of idle threads. Whole subgroups remain, for the exchange.
  while (threadsQ > 1 && threadsQ / 2 >= useful && (threadsQ / 2) * threadsK >= 32) threadsQ /= 2;
  const base = { variant: 'tiled', threadsQ, threadsK, queries, keys: 32 / threadsK, exchange } as const;
  const fits = (s: TiledAttention): boolean =>
    layout(spec, target, s).bytes <= target.limits.maxComputeWorkgroupStorageSize;
  for (const keepQueries of [true, false]) {
    for (const chunkD of [32, 16, 8, 4]) {
      for (const chunkK of [16, 8, 4, 2, 1]) {
        const schedule: TiledAttention = { ...base, chunkD: Math.min(chunkD, 4 * d4), chunkK, keepQueries };
        // Kept queries are worth their memory only with chunks that are still long.
        if (fits(schedule) && (!keepQueries || chunkD >= 16)) return schedule;
      }
    }
  }
  throw new KontextError(
    'limit-too-small',
    `attention needs more workgroup memory than the ${target.limits.maxComputeWorkgroupStorageSize} bytes of ${target.name}; WebGPU's baseline of 16384 is enough.`,
  );
}
