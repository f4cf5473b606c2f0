// The attention kernel on matrix instructions (subgroup matrices): both products on them, the softmax between through workgroup memory.
// WGSL gives no access to a matrix's elements, so scores are stored, weighted by plain threads and loaded again as an operand.

import { KontextError } from '../../../../runtime/src/errors.ts';
import type { SubgroupMatrixConfig } from '../../../../runtime/src/program/types.ts';
import { hasTier, type TargetProfile } from '../../targets/types.ts';
import type { KernelSource } from '../kernel.ts';
import { elementTypes } from '../precision.ts';
import { stage } from '../staging.ts';
import { subgroupEnables, subgroupFeatures, subgroupSizeAttribute } from '../subgroups.ts';
import { declareViews, endOfKeys, MASKED, scoreText } from './parts.ts';
import { type AttentionSpec, attentionBytes, attentionFlops, keysOf } from './spec.ts';

export interface MatrixAttention {
  variant: 'matrix';
  config: SubgroupMatrixConfig;
  /** Subgroups in a workgroup, each with its own queries. */
  subgroups: number;
  /** Matrices of `config.m` queries a subgroup. */
  blocks: number;
  /** Keys in a tile; a multiple of the config's m, n and k. */
  tileK: number;
}

/**
 * A query's reference maximum is raised only when a score exceeds it by this many powers of two: until then its weights
 * grow to 2⁸, far from f16's 65504. Raising it means moving the accumulators through workgroup memory, because WGSL
 * cannot scale a matrix's rows; after the first tiles it hardly ever happens. The result is the same softmax.
 */
const HEADROOM = '8.0';

/** Elements between rows in workgroup memory beyond the row's own: shifts rows by four banks. */
const PAD_BYTES = 16;

/**
 * out[i, h] = Σⱼ softmaxⱼ(scale · q[i, h] · k[j, h] + bias) · v[j, h]
 *
 * A workgroup takes `subgroups · blocks · m` queries of one head; Q stays in matrices, the output accumulates in f32
 * matrices. For each key tile: K staged, scores to workgroup memory, then each query's threads weigh their share of them
 * (statistics in f32, weights in the component type) while V replaces K, then the weights times V.
 * Thread numbers count lanes subgroup by subgroup, so that the threads of a query are neighbours in one subgroup.
 */
export function matrixAttention(spec: AttentionSpec, target: TargetProfile, schedule: MatrixAttention): KernelSource {
  const { heads, size, q, causal } = spec;
  const { config, subgroups, blocks, tileK } = schedule;
  const { m, n, k, componentType: element } = config;
  const l = layout(spec, target, schedule);
  checkFits(l, schedule, target);
  const { tileQ, padded, threads, share, stageStride, scoreStride, weightStride } = l;
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
  const kSteps = padded / k;
  const outTiles = padded / n;
  const scoreTiles = tileK / n;
  const left = `subgroup_matrix_left<${element}, ${k}, ${m}>`;
  const right = `subgroup_matrix_right<${element}, ${n}, ${k}>`;
  const result = `subgroup_matrix_result<f32, ${n}, ${m}>`;

  const stageRows = (load: string, rows: number, first: string): string =>
    stage(
      [
        {
          count: (rows * padded) / 4,
          item: (i) => ({
            values: [`${load}(${first} + ${i} / ${padded / 4}u, ${i} % ${padded / 4}u, head)`],
            store: ([v]) => `stage[${i} / ${padded / 4}u * ${stageStride}u + ${i} % ${padded / 4}u] = ${v};`,
          }),
        },
      ],
      threads,
      open,
    );
  // Device subgroups may be smaller than the largest: the surplus subgroups only stage and weigh.
  const exact = target.subgroupSize?.min === target.subgroupSize?.max;
  const matrices = (text: string): string => (exact ? text : `if (subgroup < ${subgroups}u) {\n    ${text}\n    }`);
  const row = (b: number): string => `(subgroup * ${blocks}u + ${b}u) * ${m}u`;

  const passRows = Math.min(tileK, tileQ);
  const loadQueries = each(
    Math.ceil(tileQ / passRows),
    (p) => `workgroupBarrier();
  ${stageRows('load_q', passRows, `first_query + ${p * passRows}u`)}
  workgroupBarrier();
  ${each(
    blocks,
    (b) => `if (${row(b)} / ${passRows}u == ${p}u) {
    ${lines(each(kSteps, (s) => `q${b}_${s} = subgroupMatrixLoad<${left}, row_major>(&stage, (${row(b)} % ${passRows}u) * ${stageStride}u + ${(s * k) / 4}u, ${stageStride}u);`))}
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
            `{ let b = subgroupMatrixLoad<${right}, col_major>(&stage, ${t * n * stageStride + (s * k) / 4}u, ${stageStride}u); ${each(blocks, (b) => `s${b} = subgroupMatrixMultiplyAccumulate(q${b}_${s}, b, s${b});`).join(' ')} }`,
        ),
        '      ',
      )}
      ${each(blocks, (b) => `subgroupMatrixStore<row_major>(&scores, ${row(b)} * ${scoreStride}u + ${t * n}u, s${b}, ${scoreStride}u);`).join(' ')}
    }`,
    ),
  );
  const valueProducts = lines(
    each(
      tileK / k,
      (s) => `{
      ${each(blocks, (b) => `let a${b} = subgroupMatrixLoad<${left}, row_major>(&weights, ${row(b)} * ${weightStride}u + ${s * k}u, ${weightStride}u);`).join(' ')}
      ${lines(
        each(
          outTiles,
          (t) =>
            `{ let b = subgroupMatrixLoad<${right}, row_major>(&stage, ${s * k * stageStride + (t * n) / 4}u, ${stageStride}u); ${each(blocks, (b) => `o${b}_${t} = subgroupMatrixMultiplyAccumulate(a${b}, b, o${b}_${t});`).join(' ')} }`,
        ),
        '      ',
      )}
    }`,
    ),
  );

  // The accumulators visit the score array, as many columns at a time as it has, and the query's threads see them there.
  const throughScores = (visit: (tiles: number, first: number) => string, back: boolean): string => {
    const moves = (first: number, tiles: number, f: (b: number, t: number, at: string) => string): string =>
      matrices(
        lines(
          each(blocks, (b) =>
            each(tiles, (t) => f(b, first + t, `${row(b)} * ${scoreStride}u + ${t * n}u`)).join('\n    '),
          ),
        ),
      );
    return each(Math.ceil(outTiles / scoreTiles), (p) => {
      const first = p * scoreTiles;
      const tiles = Math.min(scoreTiles, outTiles - first);
      return `${moves(first, tiles, (b, t, at) => `subgroupMatrixStore<row_major>(&scores, ${at}, o${b}_${t}, ${scoreStride}u);`)}
    workgroupBarrier();
    ${visit(tiles, first)}
    workgroupBarrier();
    ${back ? moves(first, tiles, (b, t, at) => `o${b}_${t} = subgroupMatrixLoad<${result}, row_major>(&scores, ${at}, ${scoreStride}u);`) : ''}`;
    }).join('\n    ');
  };
  const rescale = throughScores(
    (tiles) =>
      `for (var c = part; c < ${tiles * n}u${open}; c += ${share}u) { scores[query_row * ${scoreStride}u + c] *= shrink; }`,
    true,
  );
  const finish = throughScores(
    (tiles, first) => `for (var c = part; c < ${(tiles * n) / 4}u${open}; c += ${share}u) {
      let at = query_row * ${scoreStride}u + c * 4u;
      let value = vec4<f32>(scores[at], scores[at + 1u], scores[at + 2u], scores[at + 3u]);
      let d = c + ${(first * n) / 4}u;
      ${q.rows % tileQ || padded > size ? `if (query < ${q.rows}u && d < ${Math.ceil(size / 4)}u) ` : ''}{ store_out(query, d, head, value * inverse); }
    }`,
    false,
  );

  const perThread = tileK / share;
  const raggedKeys = keys % tileK !== 0;
  const shuffled = (name: string, op: 'max' | 'add'): string => {
    const steps: string[] = [];
    for (let mask = 1; mask < share; mask *= 2) {
      const other = `subgroupShuffleXor(${name}, ${mask}u)`;
      steps.push(`${name} = ${op === 'max' ? `max(${name}, ${other})` : `${name} + ${other}`};`);
    }
    return steps.join(' ');
  };
  const score = (i: number): string => `let key${i} = first_key + part + ${i * share}u;
    var s${i} = scores[query_row * ${scoreStride}u + part + ${i * share}u];
    ${scoreText(spec, { name: `s${i}`, key: `key${i}`, query: 'query', raggedKeys })}`;

  const wgsl = `${element === 'f16' ? 'enable f16;\n' : types.enable}${subgroupEnables(target)}enable chromium_experimental_subgroup_matrix;
// Conditions around matrix operations depend on subgroup_id or on values equal in all lanes, which the analysis cannot see.
diagnostic(off, chromium.subgroup_matrix_uniformity);
diagnostic(off, subgroup_uniformity);
${views.declarations}
var<workgroup> stage: array<vec4<${element}>, ${tileK * stageStride}>;
var<workgroup> scores: array<f32, ${tileQ * scoreStride}>;
var<workgroup> weights: array<${element}, ${tileQ * weightStride}>;
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
  var l = 0.0;
  ${each(blocks, (b) => each(kSteps, (s) => `var q${b}_${s}: ${left};`).join(' ')).join('\n  ')}
  ${each(blocks, (b) => each(outTiles, (t) => `var o${b}_${t}: ${result};`).join(' ')).join('\n  ')}
  ${loadQueries}

  for (var first_key = 0u; first_key < ${endOfKeys(spec, tileQ)}${open}; first_key += ${tileK}u) {
    workgroupBarrier();
    ${stageRows('load_k', tileK, 'first_key')}
    workgroupBarrier();
    ${matrices(scoreProducts)}
    workgroupBarrier();
    ${stageRows('load_v', tileK, 'first_key')}
    ${lines(each(perThread, score))}
    var highest = ${each(perThread, (i) => `s${i}`).reduce((a, b) => `max(${a}, ${b})`)};
    ${shuffled('highest', 'max')}
    let raise = highest > m + ${HEADROOM};
    let reference = select(m, highest, raise);
    let shrink = exp2(m - reference);
    m = reference;
    l *= shrink;
    ${lines(each(perThread, (i) => `{ let p = exp2(s${i} - m); l += p; weights[query_row * ${weightStride}u + part + ${i * share}u] = ${element}(p); }`))}
    // Nothing to rescale before the first product.
    let any_raised = subgroupAny(raise && first_key > 0u);
    if (lane == 0u) { raised[subgroup] = select(0u, 1u, any_raised); }
    let flags = workgroupUniformLoad(&raised);
    if ((${each(l.flags, (i) => `flags[${i}]`).join(' | ')}) != 0u) {
    ${rescale}
    }
    ${matrices(valueProducts)}
  }
  ${shuffled('l', 'add')}
  let inverse = 1.0 / l;
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

/** A schedule for the matrix variant, or nothing where another variant serves the shape better or more exactly. */
export function chooseMatrix(spec: AttentionSpec, target: TargetProfile): MatrixAttention | undefined {
  // Wider heads need more accumulators than a subgroup has registers: 16 queries × 128 are 64 a lane of 32.
  if (!hasTier(target, 'subgroup-matrix') || !target.subgroupSize || spec.size > 128) return undefined;
  const inputs = [spec.q, spec.k, spec.v];
  // f16 operands only for f16 inputs, and f32 results always: sums of thousands of values do not survive in f16.
  const usable = (target.subgroupMatrix ?? []).filter(
    (c) => c.resultType === 'f32' && (c.componentType === 'f32' || inputs.every((v) => v.type === 'f16')),
  );
  const rank = (c: SubgroupMatrixConfig): number => (c.componentType === 'f16' ? 4096 : 0) + c.m * c.n;
  for (const config of usable.sort((a, b) => rank(b) - rank(a))) {
    if (spec.q.rows < config.m) continue;
    const { max } = target.subgroupSize;
    const blocks = Math.max(1, Math.min(Math.floor(16 / config.m), Math.floor(max / config.m)));
    for (const subgroups of [4, 2, 1]) {
      for (const tileK of [64, 32, 16]) {
        const schedule: MatrixAttention = { variant: 'matrix', config, subgroups, blocks, tileK };
        if (problemOf(layout(spec, target, schedule), schedule, target)) continue;
        return schedule;
      }
    }
  }
  return undefined;
}

interface Layout {
  tileQ: number;
  /** Head size, filled with zeros to whole matrices. */
  padded: number;
  threads: number;
  /** Threads that share a query in the softmax. */
  share: number;
  /** Vectors of four between rows. */
  stageStride: number;
  scoreStride: number;
  weightStride: number;
  /** Subgroups there may be. */
  flags: number;
  lanes: { min: number; max: number };
  bytes: number;
}

function layout(spec: AttentionSpec, target: TargetProfile, s: MatrixAttention): Layout {
  const { m, n, k, componentType } = s.config;
  const lanes = target.subgroupSize ?? { min: 0, max: 0 };
  const element = componentType === 'f16' ? 2 : 4;
  const unit = Math.max(n, k);
  const padded = Math.ceil(spec.size / unit) * unit;
  const tileQ = s.subgroups * s.blocks * m;
  const threads = s.subgroups * lanes.max;
  const stageStride = (padded * element + PAD_BYTES) / (4 * element);
  const scoreStride = s.tileK + PAD_BYTES / 4;
  const weightStride = s.tileK + PAD_BYTES / element;
  const flags = threads / lanes.min;
  return {
    tileQ,
    padded,
    threads,
    share: threads / tileQ,
    stageStride,
    scoreStride,
    weightStride,
    flags,
    lanes,
    bytes: 4 * element * s.tileK * stageStride + tileQ * (4 * scoreStride + element * weightStride) + 4 * flags,
  };
}

function problemOf(l: Layout, s: MatrixAttention, target: TargetProfile): string | undefined {
  const { maxComputeInvocationsPerWorkgroup: most, maxComputeWorkgroupStorageSize: room } = target.limits;
  const { m, n, k, resultType } = s.config;
  if (l.lanes.min < 1) return 'the target names no subgroup size.';
  if (resultType !== 'f32') return 'the matrix configuration must have f32 results.';
  if (l.threads > most) return `${l.threads} threads; the target allows ${most}.`;
  if (l.bytes > room) return `${l.bytes} bytes of workgroup memory; the target has ${room}. Use a smaller tileK.`;
  if ([m, n, k].some((d) => s.tileK % d !== 0)) return `tileK ${s.tileK} is no multiple of the matrix ${m}×${n}×${k}.`;
  if (l.share < 1 || l.lanes.min % l.share !== 0 || s.tileK % (4 * l.share) !== 0) {
    return `${l.threads} threads cannot share ${l.tileQ} queries evenly within subgroups of ${l.lanes.min}.`;
  }
  return undefined;
}

function checkFits(l: Layout, s: MatrixAttention, target: TargetProfile): void {
  const problem = problemOf(l, s, target);
  if (problem) throw new KontextError('program-invalid', `attention schedule for ${target.name}: ${problem}`);
}
