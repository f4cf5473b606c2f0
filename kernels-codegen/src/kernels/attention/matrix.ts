// The attention kernel on matrix instructions (subgroup matrices): both products on them, the softmax between through workgroup memory.
// WGSL gives no access to a matrix's elements, so scores are stored, weighted by plain threads and loaded again as an operand.

import type { TargetProfile } from '../../targets/types.ts';
import type { KernelSource } from '../kernel.ts';
import { elementTypes } from '../precision.ts';
import { type Copy, prefetch, stage, storeTransposed } from '../staging.ts';
import { subgroupEnables, subgroupFeatures, subgroupSizeAttribute } from '../subgroups.ts';
import { checkFits, layout, type MatrixAttention } from './matrix-layout.ts';
import { declareViews, endOfKeys, MASKED, scoreText } from './parts.ts';
import { type AttentionSpec, attentionBytes, attentionFlops, keysOf } from './spec.ts';

/**
 * A query's reference maximum is raised only when a score exceeds it by this many powers of two: until then its weights
 * grow to 2⁸, far from f16's 65504. Raising it means moving the accumulators through workgroup memory, because WGSL
 * cannot scale a matrix's rows; after the first tiles it hardly ever happens. The result is the same softmax.
 */
const HEADROOM = '8.0';

/**
 * out[i, h] = Σⱼ softmaxⱼ(scale · q[i, h] · k[j, h] + bias) · v[j, h]
 *
 * A workgroup takes `subgroups · blocks · m` queries of one head; Q stays in matrices, the output accumulates in f32
 * matrices. A step takes one tile of keys, between two barriers: scores to workgroup memory; then each query's threads
 * weigh their share of them (statistics in f32, weights in the component type) while this tile's V and the next one's K
 * go from registers to workgroup memory; then the loads after those are issued, and the weights multiply V.
 * V is transposed in 4×4 blocks on its way, because AMD's matrices read it along the keys, else 16 bits at a time.
 * Thread numbers count lanes subgroup by subgroup, so that the threads of a query are neighbours in one subgroup.
 */
export function matrixAttention(spec: AttentionSpec, target: TargetProfile, schedule: MatrixAttention): KernelSource {
  const { heads, size, q, causal } = spec;
  const { config, subgroups, blocks, tileK } = schedule;
  const { m, n, k, componentType: element } = config;
  const l = layout(spec, target, schedule);
  checkFits(l, schedule, target);
  const { tileQ, padded, threads, share, keyStride, valueStride, scoreStride } = l;
  const keys = keysOf(spec);
  const types = elementTypes(
    'attention',
    [q.type, spec.k.type, spec.v.type, spec.out.type, element as 'f32' | 'f16'],
    target,
  );
  const views = declareViews(spec, element, { tileQ, tileK, d4: padded / 4, v4: padded / 4 });
  const each = <T>(count: number, f: (i: number) => T): T[] => Array.from({ length: count }, (_, i) => f(i));
  const lines = (texts: string[], indent = '    '): string => texts.join(`\n${indent}`);
  // A CPU's driver unrolls loops of known length throughout and compiles for seconds; `group.z` is always 0.
  const open = target.software ? ' + group.z' : '';
  const vector = `vec4<${element}>`;
  const rowVectors = padded / 4;
  const kSteps = padded / k;
  const outTiles = padded / n;
  const scoreTiles = tileK / n;
  const left = `subgroup_matrix_left<${element}, ${k}, ${m}>`;
  const right = `subgroup_matrix_right<${element}, ${n}, ${k}>`;
  const result = `subgroup_matrix_result<f32, ${n}, ${m}>`;

  const rows = (load: string, count: number, first: string): Copy => ({
    count: count * rowVectors,
    item: (i) => ({
      values: [`${load}(${first} + ${i} / ${rowVectors}u, ${i} % ${rowVectors}u, head)`],
      store: ([v]) => `key_tile[${i} / ${rowVectors}u * ${keyStride}u + ${i} % ${rowVectors}u] = ${v};`,
    }),
  });
  // Neighbouring threads take the same columns of neighbouring keys: their stores meet no bank twice.
  const valueBlocks: Copy = {
    count: (tileK / 4) * rowVectors,
    item: (i) => ({
      values: each(4, (j) => `load_v(value_base + ${i} % ${tileK / 4}u * 4u + ${j}u, ${i} / ${tileK / 4}u, head)`),
      store: (v) =>
        storeTransposed(
          'value_tile',
          `${i} / ${tileK / 4}u * ${4 * valueStride}u + ${i} % ${tileK / 4}u`,
          valueStride,
          vector,
          v,
        ),
    }),
  };
  const keyRows = rows('load_k', tileK, 'key_base');
  const next = schedule.prefetch
    ? { k: prefetch(keyRows, threads, 'next_k', vector), v: prefetch(valueBlocks, threads, 'next_v', vector) }
    : undefined;
  const lastTile = Math.floor((keys - 1) / tileK) * tileK;
  // Tiles beyond the last are loaded like the last and not used.
  const tileAt = (steps: number): string => `min(first_key + ${steps * tileK}u, ${lastTile}u)`;

  // Device subgroups may be smaller than the largest: the surplus subgroups only stage and weigh.
  const exact = target.subgroupSize?.min === target.subgroupSize?.max;
  const matrices = (text: string): string => (exact ? text : `if (subgroup < ${subgroups}u) {\n    ${text}\n    }`);
  const row = (b: number): string => `(subgroup * ${blocks}u + ${b}u) * ${m}u`;

  const passRows = Math.min(tileK, tileQ);
  const loadQueries = each(
    Math.ceil(tileQ / passRows),
    (p) => `workgroupBarrier();
  ${stage([rows('load_q', passRows, `first_query + ${p * passRows}u`)], threads, open)}
  workgroupBarrier();
  ${each(
    blocks,
    (b) => `if (${row(b)} / ${passRows}u == ${p}u) {
    ${lines(each(kSteps, (s) => `q${b}_${s} = subgroupMatrixLoad<${left}, row_major>(&key_tile, (${row(b)} % ${passRows}u) * ${keyStride}u + ${(s * k) / 4}u, ${keyStride}u);`))}
  }`,
  ).join('\n  ')}`,
  ).join('\n  ');

  const scoreProducts = lines(
    each(
      scoreTiles,
      (t) => `{
      ${each(blocks, (b) => `var s${b} = ${result}();`).join(' ')}
      ${lines(
        each(
          kSteps,
          (s) =>
            `{ let b = subgroupMatrixLoad<${right}, col_major>(&key_tile, ${t * n * keyStride + (s * k) / 4}u, ${keyStride}u); ${each(blocks, (b) => `s${b} = subgroupMatrixMultiplyAccumulate(q${b}_${s}, b, s${b});`).join(' ')} }`,
        ),
        '      ',
      )}
      ${each(blocks, (b) => `subgroupMatrixStore<row_major>(&scores, ${row(b)} * ${scoreStride}u + ${(t * n) / 4}u, s${b}, ${scoreStride}u);`).join(' ')}
    }`,
    ),
  );
  const valueProducts = lines(
    each(
      tileK / k,
      (s) => `{
      ${each(blocks, (b) => `let a${b} = subgroupMatrixLoad<${left}, row_major>(&weights, ${row(b)} * ${valueStride}u + ${(s * k) / 4}u, ${valueStride}u);`).join(' ')}
      ${lines(
        each(
          outTiles,
          (t) =>
            `{ let b = subgroupMatrixLoad<${right}, col_major>(&value_tile, ${t * n * valueStride + (s * k) / 4}u, ${valueStride}u); ${each(blocks, (b) => `o${b}_${t} = subgroupMatrixMultiplyAccumulate(a${b}, b, o${b}_${t});`).join(' ')} }`,
        ),
        '      ',
      )}
    }`,
    ),
  );

  // The accumulators visit the score array, as many columns at a time as it has, and the query's threads see them there.
  const throughScores = (visit: (vectors: number, first: number) => string, back: boolean): string => {
    const moves = (first: number, tiles: number, f: (b: number, t: number, at: string) => string): string =>
      matrices(
        lines(
          each(blocks, (b) =>
            each(tiles, (t) => f(b, first + t, `${row(b)} * ${scoreStride}u + ${(t * n) / 4}u`)).join('\n    '),
          ),
        ),
      );
    return each(Math.ceil(outTiles / scoreTiles), (p) => {
      const first = p * scoreTiles;
      const tiles = Math.min(scoreTiles, outTiles - first);
      return `${moves(first, tiles, (b, t, at) => `subgroupMatrixStore<row_major>(&scores, ${at}, o${b}_${t}, ${scoreStride}u);`)}
    workgroupBarrier();
    ${visit((tiles * n) / 4, (first * n) / 4)}
    workgroupBarrier();
    ${back ? moves(first, tiles, (b, t, at) => `o${b}_${t} = subgroupMatrixLoad<${result}, row_major>(&scores, ${at}, ${scoreStride}u);`) : ''}`;
    }).join('\n    ');
  };
  const rescale = throughScores(
    (vectors) =>
      `for (var c = part; c < ${vectors}u${open}; c += ${share}u) { scores[query_row * ${scoreStride}u + c] *= shrink; }`,
    true,
  );
  const finish = throughScores(
    (vectors, first) => `for (var c = part; c < ${vectors}u${open}; c += ${share}u) {
      let d = c + ${first}u;
      ${q.rows % tileQ || padded > size ? `if (query < ${q.rows}u && d < ${Math.ceil(size / 4)}u) ` : ''}{ store_out(query, d, head, scores[query_row * ${scoreStride}u + c] * inverse); }
    }`,
    false,
  );

  const perThread = tileK / 4 / share;
  const raggedKeys = keys % tileK !== 0;
  const plain = !spec.bias && !causal && !raggedKeys;
  const shuffled = (name: string, op: 'max' | 'add'): string => {
    const steps: string[] = [];
    for (let mask = 1; mask < share; mask *= 2) {
      const other = `subgroupShuffleXor(${name}, ${mask}u)`;
      steps.push(`${name} = ${op === 'max' ? `max(${name}, ${other})` : `${name} + ${other}`};`);
    }
    return steps.join(' ');
  };
  // Vectors of four keys; without masks and bias, scaled as vectors too.
  const score = (i: number): string => {
    const at = (name: string, key: string): string => scoreText(spec, { name, key, query: 'query', raggedKeys });
    const load = `var s${i} = scores[query_row * ${scoreStride}u + part + ${i * share}u];`;
    if (plain) return `${load} ${at(`s${i}`, '')}`;
    return `${load} let key${i} = first_key + (part + ${i * share}u) * 4u;
    ${[...'xyzw'].map((c, e) => at(`s${i}.${c}`, `(key${i} + ${e}u)`)).join(' ')}`;
  };
  const weigh = (i: number): string =>
    `{ let p = exp2(s${i} - m); l += p; weights[query_row * ${valueStride}u + part + ${i * share}u] = ${vector}(p); }`;

  const wgsl = `${element === 'f16' ? 'enable f16;\n' : types.enable}${subgroupEnables(target)}enable chromium_experimental_subgroup_matrix;
// Conditions around matrix operations depend on subgroup_id or on values equal in all lanes, which the analysis cannot see.
diagnostic(off, chromium.subgroup_matrix_uniformity);
diagnostic(off, subgroup_uniformity);
${views.declarations}
var<workgroup> key_tile: array<${vector}, ${tileK * keyStride}>;
var<workgroup> value_tile: array<${vector}, ${padded * valueStride}>;
var<workgroup> scores: array<vec4<f32>, ${tileQ * scoreStride}>;
var<workgroup> weights: array<${vector}, ${tileQ * valueStride}>;
var<workgroup> raised: array<u32, ${l.flags}>;

${views.functions}

@compute ${subgroupSizeAttribute(target)}@workgroup_size(${threads})
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(subgroup_id) subgroup: u32, @builtin(subgroup_size) lanes: u32,
        @builtin(subgroup_invocation_id) lane: u32) {
  let thread = subgroup * lanes + lane;
  let head = group.y;
  let first_query = group.x * ${tileQ}u;
  let query_row = thread / ${share}u;
  let query = first_query + query_row;
  let part = thread % ${share}u;
  var m = ${MASKED};
  var l = vec4<f32>();
  ${each(blocks, (b) => each(kSteps, (s) => `var q${b}_${s}: ${left};`).join(' ')).join('\n  ')}
  ${each(blocks, (b) => each(outTiles, (t) => `var o${b}_${t}: ${result};`).join(' ')).join('\n  ')}
  ${loadQueries}
  workgroupBarrier();
  { let key_base = 0u;
  ${stage([keyRows], threads, open)} }
  ${next ? `${next.k.declare}\n  ${next.v.declare}\n  { let key_base = ${Math.min(tileK, lastTile)}u; let value_base = 0u;\n  ${next.k.load}\n  ${next.v.load} }` : ''}
  workgroupBarrier();

  for (var first_key = 0u; first_key < ${endOfKeys(spec, tileQ)}${open}; first_key += ${tileK}u) {
    ${matrices(scoreProducts)}
    workgroupBarrier();
    ${
      next
        ? `${next.v.store}\n    ${next.k.store}`
        : `{ let key_base = ${tileAt(1)}; let value_base = first_key;\n    ${stage([valueBlocks, keyRows], threads, open)} }`
    }
    ${lines(each(perThread, score))}
    var highest4 = ${each(perThread, (i) => `s${i}`).reduce((a, b) => `max(${a}, ${b})`)};
    var highest = max(max(highest4.x, highest4.y), max(highest4.z, highest4.w));
    ${shuffled('highest', 'max')}
    let raise = highest > m + ${HEADROOM};
    let reference = select(m, highest, raise);
    let shrink = exp2(m - reference);
    m = reference;
    l *= shrink;
    ${lines(each(perThread, weigh))}
    // Nothing to rescale before the first product.
    let any_raised = subgroupAny(raise && first_key > 0u);
    if (lane == 0u) { raised[subgroup] = select(0u, 1u, any_raised); }
    let flags = workgroupUniformLoad(&raised);
    ${next ? `{ let key_base = ${tileAt(2)}; let value_base = ${tileAt(1)};\n    ${next.k.load}\n    ${next.v.load} }` : ''}
    if ((${each(l.flags, (i) => `flags[${i}]`).join(' | ')}) != 0u) {
    ${rescale}
    }
    ${matrices(valueProducts)}
  }
  var total = l.x + l.y + l.z + l.w;
  ${shuffled('total', 'add')}
  let inverse = 1.0 / total;
  workgroupBarrier();
  ${finish}
}
`;
  return {
    label: `attention matrix ${element} ${m}×${n}×${k} ${heads}×${size} ${tileQ}×${tileK}${causal ? ' causal' : ''}${spec.bias ? ' bias' : ''}`,
    wgsl,
    bindings: views.bindings,
    workgroups: [Math.ceil(q.rows / tileQ), heads, 1],
    flops: attentionFlops(spec),
    bytes: attentionBytes(spec),
    needs: {
      features: [...types.features, ...subgroupFeatures(target), 'chromium-experimental-subgroup-matrix'],
      invocations: threads,
      workgroupBytes: l.bytes,
      subgroupSize: l.lanes,
      subgroupMatrix: config,
    },
  };
}
