// The attention kernel on matrix instructions (subgroup matrices): both products on them, the softmax between through workgroup memory.
// WGSL gives no access to a matrix's elements, so scores are stored, weighted by plain threads and loaded again as an operand.

import { floatLiteral } from '../../expr/expr.ts';
import type { TargetProfile } from '../../targets/types.ts';
import type { KernelSource } from '../kernel.ts';
import { elementTypes } from '../precision.ts';
import { type Copy, indexOf, prefetch, stage } from '../staging.ts';
import { subgroupEnables, subgroupFeatures, subgroupSizeAttribute } from '../subgroups.ts';
import { emitBiasTile } from './matrix-bias.ts';
import { checkFits, layout, type MatrixAttention } from './matrix-layout.ts';
import { valueTile } from './matrix-values.ts';
import { declareViews, endOfKeys, MASKED, scoreText } from './parts.ts';
import { type AttentionSpec, attentionBytes, attentionFlops, keysOf } from './spec.ts';

/** Powers of two that a query's largest weight may reach beyond 1: f16 holds 65504. */
const HEADROOM = '15.9';

/**
 * out[i, h] = Σⱼ softmaxⱼ(scale · q[i, h] · k[j, h] + bias) · v[j, h]
 *
 * A workgroup takes `subgroups · blocks · m` queries of one head; Q stays in matrices, the output accumulates in f32
 * matrices. A step takes one tile of keys, between two barriers: scores to workgroup memory; then each query's threads
 * weigh their share of them (statistics in f32, weights in the component type) while this tile's V and the next one's K
 * go from registers to workgroup memory; then the loads after those are issued, and the weights multiply V.
 * Heads wider than 128 are sliced: subgroups share queries, each with a part of the columns of both products, and the softmax adds up
 * their parts of the scores.
 * Thread numbers count lanes subgroup by subgroup, so that the threads of a query are neighbours in one subgroup.
 */
export function matrixAttention(spec: AttentionSpec, target: TargetProfile, schedule: MatrixAttention): KernelSource {
  const { heads, size, q, causal } = spec;
  const { config, subgroups, blocks, tileK, turned } = schedule;
  const { m, n, k, componentType: element } = config;
  const l = layout(spec, target, schedule);
  checkFits(l, schedule, target);
  const { slices, tileQ, padded, threads, share, unit, keyStride, scoreStride, weightStride } = l;
  const keys = keysOf(spec);
  const bias = emitBiasTile(spec, tileQ, tileK, threads);
  const types = elementTypes(
    'attention',
    [q.type, spec.k.type, spec.v.type, spec.out.type, element as 'f32' | 'f16'],
    target,
  );
  const views = declareViews(spec, element, { tileQ, tileK, d4: padded / 4, v4: padded / 4 }, false, true);
  const each = <T>(count: number, f: (i: number) => T): T[] => Array.from({ length: count }, (_, i) => f(i));
  const lines = (texts: string[], indent = '    '): string => texts.join(`\n${indent}`);
  // A CPU's driver unrolls loops of known length throughout and compiles for seconds; `group.z` is always 0.
  const open = target.software ? ' + group.z' : '';
  const half = element === 'f16';
  // Sixteen bytes, as operands lie in workgroup memory.
  const vector = half ? 'vec4<u32>' : 'vec4<f32>';
  const rowVectors = padded / unit;
  // Of the head, what one subgroup multiplies and accumulates.
  const own = padded / slices;
  const kSteps = own / k;
  const outTiles = own / n;
  const sliced = slices > 1;
  const scoreTiles = tileK / n;
  const left = `subgroup_matrix_left<${element}, ${k}, ${m}>`;
  const right = `subgroup_matrix_right<${element}, ${n}, ${k}>`;
  const result = `subgroup_matrix_result<f32, ${n}, ${m}>`;
  // Scores are Q·Kᵀ or, turned, K·Qᵀ stored by columns: the same values in the same places.
  const [queryMatrix, keyMatrix, scoreOrder] = turned
    ? [`${right}, col_major`, `${left}, row_major`, 'col_major']
    : [`${left}, row_major`, `${right}, col_major`, 'row_major'];

  const keyRows: Copy = {
    count: tileK * rowVectors,
    width: rowVectors,
    item: (at) => ({
      values: [`read_k(${at.row}, key_base + ${at.more}u, ${at.col}, head)`],
      store: ([v]) => `key_tile[${indexOf(at, keyStride)}] = ${v};`,
    }),
  };
  const v = valueTile(l, tileK);
  const nextKeys = prefetch(keyRows, threads, 'next_k', vector);
  const values = prefetch(v.copy, threads, 'next_v', vector);
  const lastTile = Math.floor((keys - 1) / tileK) * tileK;
  // Tiles beyond the last are loaded like the last and not used.
  const tileAt = (ahead: number): string => `min((t + ${ahead}u) * step, ${lastTile}u)`;

  // Device subgroups may be smaller than the largest: the surplus subgroups only stage and weigh.
  const exact = target.subgroupSize?.min === target.subgroupSize?.max;
  const matrices = (text: string): string => (exact ? text : `if (subgroup < ${subgroups}u) {\n    ${text}\n    }`);
  const folded = (r: string, half: number): string =>
    l.folded
      ? `${r} % ${half}u * ${(scoreStride * tileQ) / 2 / half}u + ${r} / ${half}u * ${tileK / 4}u`
      : `${r} * ${scoreStride}u`;

  // All queries, as many columns at a time as the scores' memory holds: every subgroup takes its matrices at once, without a branch.
  const { queryVectors, queryStride } = l;
  const loadQueries = each(Math.ceil(rowVectors / slices / queryVectors), (p) => {
    const first = p * queryVectors;
    const width = Math.min(queryVectors, rowVectors / slices - first);
    const vectorAt = (col: string): string =>
      sliced ? `${col} / ${width}u * ${rowVectors / slices}u + ${col} % ${width}u + ${first}u` : `${col} + ${first}u`;
    const copy: Copy = {
      count: tileQ * slices * width,
      width: slices * width,
      item: (at) => ({
        values: [`read_q(${at.row}, first_query + ${at.more}u, ${vectorAt(at.col)}, head)`],
        store: ([v]) => `scores[${indexOf(at, queryStride)}] = ${half ? v : `bitcast<vec4<u32>>(${v})`};`,
      }),
    };
    const loads = each(blocks, (b) =>
      each((width * unit) / k, (i) => {
        const at = `team * ${blocks * m * queryStride}u + ${sliced ? `slice * ${width}u + ` : ''}${b * m * queryStride + (i * k) / unit}u`;
        return `q${b}_${(first * unit) / k + i} = subgroupMatrixLoad<${queryMatrix}>(&scores, ${at}, ${queryStride}u);`;
      }),
    ).flat();
    return `workgroupBarrier();
  ${stage([copy], threads, open)}
  workgroupBarrier();
  ${matrices(lines(loads, '  '))}`;
  }).join('\n  ');

  const scoreProducts = lines(
    each(
      scoreTiles,
      (t) => `{
      ${each(blocks, (b) => `var s${b} = ${result}();`).join(' ')}
      ${lines(
        each(
          kSteps,
          (s) =>
            `{ let b = subgroupMatrixLoad<${keyMatrix}>(&key_tile, ${sliced ? 'key_slice + ' : ''}${t * n * keyStride + (s * k) / unit}u, ${keyStride}u); ${each(blocks, (b) => `s${b} = subgroupMatrixMultiplyAccumulate(${turned ? `b, q${b}_${s}` : `q${b}_${s}, b`}, s${b});`).join(' ')} }`,
        ),
        '      ',
      )}
      ${each(blocks, (b) => `subgroupMatrixStore<${scoreOrder}>(&scores, scores_at + ${b * m * scoreStride + (t * n) / 4}u, s${b}, ${scoreStride}u);`).join(' ')}
    }`,
    ),
  );
  const valueProducts = lines(
    each(
      tileK / k,
      (s) => `{
      ${each(blocks, (b) => `let a${b} = subgroupMatrixLoad<${left}, row_major>(&weights, weights_at + ${b * m * weightStride + (s * k) / 4}u, ${weightStride}u);`).join(' ')}
      ${lines(
        each(
          outTiles,
          (t) =>
            `{ let b = subgroupMatrixLoad<${right}, col_major>(&value_tile, ${sliced ? 'value_slice + ' : ''}${v.at(t * n, s * k)}u, ${v.stride}u); ${each(blocks, (b) => `o${b}_${t} = subgroupMatrixMultiplyAccumulate(a${b}, b, o${b}_${t});`).join(' ')} }`,
        ),
        '      ',
      )}
    }`,
    ),
  );

  const sliceOfScores = tileQ * scoreStride;
  // The results leave through the score array, as many columns at a time as it has.
  const finish = each(Math.ceil(outTiles / scoreTiles), (p) => {
    const first = p * scoreTiles;
    const tiles = Math.min(scoreTiles, outTiles - first);
    const stores = each(blocks, (b) =>
      each(
        tiles,
        (t) =>
          `subgroupMatrixStore<row_major>(&scores, scores_at + ${b * m * scoreStride + (t * n) / 4}u, o${b}_${first + t}, ${scoreStride}u);`,
      ),
    ).flat();
    const column = `${sliced ? `part_slice * ${own / 4}u + ` : ''}part + c + ${(first * n) / 4}u`;
    const value = `scores[score_at + c${sliced ? ` + part_slice * ${sliceOfScores}u` : ''}]`;
    const inside = [
      sliced ? `thread < ${tileQ * share}u` : '',
      // A slice may be narrower than a query's threads are many.
      ((tiles * n) / 4) % share !== 0 ? `part + c < ${(tiles * n) / 4}u` : '',
      q.rows % tileQ || padded > size ? `query < ${q.rows}u && d < ${Math.ceil(size / 4)}u` : '',
    ].filter(Boolean);
    const write = `for (var c = 0u; c < ${(tiles * n) / 4}u${open}; c += ${share}u) {
      let d = ${half ? `(${column}) % ${rowVectors}u * 2u + (${column}) / ${rowVectors}u` : column};
      ${inside.length ? `if (${inside.join(' && ')}) ` : ''}{ store_out(query, d, head, bitcast<vec4<f32>>(${value}) * inverse); }
    }`;
    return `workgroupBarrier();
    ${matrices(lines(stores))}
    workgroupBarrier();
    ${sliced ? `for (var part_slice = 0u; part_slice < ${slices}u; part_slice++) { ${write} }` : write}`;
  }).join('\n    ');

  const perThread = tileK / 4 / share;
  const raggedKeys = keys % tileK !== 0;
  const plain = !spec.bias && !causal && !raggedKeys && spec.scale > 0;
  const shuffled = (name: string, op: 'max' | 'add'): string => {
    const steps: string[] = [];
    for (let mask = 1; mask < share; mask *= 2) {
      const other = `subgroupShuffleXor(${name}, ${mask}u)`;
      steps.push(`${name} = ${op === 'max' ? `max(${name}, ${other})` : `${name} + ${other}`};`);
    }
    return steps.join(' ');
  };
  // Vectors of four keys; without masks and bias, scores stay as the product leaves them and their scale goes into the exponent.
  const exponent = floatLiteral(spec.scale * Math.LOG2E);
  const score = (i: number): string => {
    const at = (value: string, e: number): string =>
      scoreText(spec, {
        ...{ name: value, key: `(key + ${e}u)`, query: 'query', raggedKeys },
        ...(bias ? { bias: bias.at(i * share * 4 + e) } : {}),
      });
    // Of slices each has a part of the sum.
    const parts = each(slices, (part) => `bitcast<vec4<f32>>(scores[score_at + ${i * share + part * sliceOfScores}u])`);
    const load = `var s${i} = ${parts.join(' + ')};`;
    if (plain) return `${load} let p${i} = exp2(fma(s${i}, vec4<f32>(${exponent}), vec4<f32>(-m)));`;
    return `${load} { let key = first_key + (part + ${i * share}u) * 4u;
    ${[...'xyzw'].map((c, e) => at(`s${i}.${c}`, e)).join(' ')} }
    let p${i} = exp2(s${i} - m);`;
  };
  const weigh = (i: number): string =>
    `weights[weight_at + ${i * share}u] = ${half ? `vec2<u32>(pack2x16float(p${i}.xy), pack2x16float(p${i}.zw))` : `p${i}`};`;

  const wgsl = `${element === 'f16' ? 'enable f16;\n' : types.enable}${subgroupEnables(target)}enable chromium_experimental_subgroup_matrix;
// Conditions around matrix operations depend on subgroup_id or on values equal in all lanes, which the analysis cannot see.
diagnostic(off, chromium.subgroup_matrix_uniformity);
diagnostic(off, subgroup_uniformity);
${views.declarations}
var<workgroup> scores: array<vec4<u32>, ${l.scoreRows * scoreStride}>;
var<workgroup> key_tile: array<${vector}, ${tileK * keyStride}>;
var<workgroup> value_tile: array<${v.type}, ${v.length}>;
var<workgroup> weights: array<${half ? 'vec2<u32>' : 'vec4<f32>'}, ${tileQ * weightStride}>;
var<workgroup> again: u32;
${bias ? `${bias.declaration}\n` : ''}${half ? HALVES : ''}
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
  let score_at = ${folded('query_row', tileQ / 2)} + part;
  let weight_at = query_row * ${weightStride}u + part;
  ${bias ? `${bias.place}\n  ` : ''}// Subgroups with the same queries are a team; each has its slice of the head.
  let team = subgroup${sliced ? ` / ${slices}u` : ''};
  ${
    sliced
      ? `let slice = subgroup % ${slices}u;
  let key_slice = slice * ${own / unit}u;
  let value_slice = ${v.slice(own)};`
      : ''
  }
  let scores_at = ${l.folded ? folded('subgroup', subgroups / 2) : `${sliced ? `slice * ${sliceOfScores}u + ` : ''}team * ${blocks * m * scoreStride}u`};
  let weights_at = team * ${blocks * m * weightStride}u;
  // Of the weights, in powers of two.
  var m = 0.0;
  var l = 0.0;
  ${each(blocks, (b) => each(kSteps, (s) => `var q${b}_${s}: ${turned ? right : left};`).join(' ')).join('\n  ')}
  ${each(blocks, (b) => each(outTiles, (t) => `var o${b}_${t}: ${result};`).join(' ')).join('\n  ')}
  ${loadQueries}
  // Two tiles to find the reference, then all; and once more with the true maxima where a score was far above it.
  var step = min(first_query / ${tileK}u * ${tileK}u, ${lastTile}u);
  var count = 2u;
  var looking = true;
  loop {
  var highest = ${MASKED};
  l = 0.0;
  ${lines(each(blocks, (b) => each(outTiles, (t) => `o${b}_${t} = ${result}();`).join(' ')))}
  ${bias ? `${bias.declare} { let bias_base = 0u; ${bias.load} }\n  ` : ''}workgroupBarrier();
  { let key_base = 0u;
  ${stage([keyRows], threads, open)} }
  workgroupBarrier();
  for (var t = 0u; t < count${open}; t++) {
    let first_key = t * step;
    let key_base = ${tileAt(1)};
    let value_base = first_key;
    ${open ? '' : `${nextKeys.declare} ${nextKeys.load}`}
    ${bias ? `${bias.store}\n    ` : ''}${matrices(scoreProducts)}
    workgroupBarrier();
    ${open ? stage([v.copy, keyRows], threads, open) : `${nextKeys.store}\n    ${values.declare} ${values.load}`}
    ${bias ? `{ let bias_base = key_base; ${bias.load} }\n    ` : ''}var sum4 = vec4<f32>();
    var most4 = vec4<f32>(${MASKED});
    ${sliced ? `if (thread < ${tileQ * share}u) {` : ''}
    ${lines(each(perThread, (i) => `${score(i)} sum4 += p${i}; most4 = max(most4, s${i}); ${weigh(i)}`))}
    ${sliced ? '}' : ''}
    l += (sum4.x + sum4.y) + (sum4.z + sum4.w);
    highest = max(highest, max(max(most4.x, most4.y), max(most4.z, most4.w)));
    ${open ? '' : values.store}
    workgroupBarrier();
    ${matrices(valueProducts)}
  }
  ${plain ? `highest *= ${exponent};` : ''}
  ${shuffled('highest', 'max')}
  if (looking || highest > m + ${HEADROOM}) { again = 1u; }
  if (workgroupUniformLoad(&again) == 0u) { break; }
  if (thread == 0u) { again = 0u; }
  looking = false;
  m = highest;
  step = ${tileK}u;
  count = (${endOfKeys(spec, tileQ)} + ${tileK - 1}u) / ${tileK}u;
  }
  var total = l;
  ${shuffled('total', 'add')}
  let inverse = 1.0 / total;
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

/** The lower and upper halves of two words as one. */
const HALVES = `fn low(a: u32, b: u32) -> u32 { return bitcast<u32>(vec2<f16>(bitcast<vec2<f16>>(a).x, bitcast<vec2<f16>>(b).x)); }
fn high(a: u32, b: u32) -> u32 { return bitcast<u32>(vec2<f16>(bitcast<vec2<f16>>(a).y, bitcast<vec2<f16>>(b).y)); }
`;
