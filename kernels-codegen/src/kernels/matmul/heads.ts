// The end of a projection to q, k and v that normalises and rotates q's and k's heads before anything is stored.
// What `head-norm.ts` does in a pass over memory, where results lie in workgroup memory by whole heads anyway.

import type { SubgroupMatrixConfig } from '../../../../runtime/src/program/types.ts';
import { floatLiteral } from '../../expr/expr.ts';
import type { TargetProfile } from '../../targets/types.ts';
import type { Sizes } from '../../wgsl/sizes.ts';
import { emitEpilogue, epilogueWidth } from '../epilogue.ts';
import { type MatrixSchedule, matrixElements, matrixTile, resultElements } from '../matrix/schedule.ts';
import { type NormedHeads, rotated } from '../normed-heads.ts';
import { insideOnly, type MatmulOutput } from './output.ts';
import type { MatmulSpec } from './spec.ts';

/** How the pairs of a row and a head that pass to the epilogue together are spread over threads. */
interface Split {
  /** Heads beside each other in a workgroup's block. */
  heads: number;
  /** Pairs at a time; each has an element of the tiles' memory for its norm, behind the results. */
  pairs: number;
  /** Neighbouring threads that share a pair; where there are more threads, the last have none. */
  share: number;
  threads: number;
}

/** More threads would need more room for the parts of sums than eight subgroups' tiles leave. */
const MOST_SHARED = 4;

function splitOf({ size }: NormedHeads, target: TargetProfile, s: MatrixSchedule, c: SubgroupMatrixConfig): Split {
  const heads = matrixTile(s, c).tileN / size;
  const pairs = s.subgroupsM * c.m * heads;
  const threads = s.subgroupsM * s.subgroupsN * target.subgroupSize!.max;
  return { heads, pairs, share: Math.min(threads / pairs, MOST_SHARED), threads };
}

/** Why a schedule cannot normalise the heads of a spec; undefined where it can. */
export function headsMisfit(
  spec: MatmulSpec,
  target: TargetProfile,
  s: MatrixSchedule,
  c: SubgroupMatrixConfig,
): string | undefined {
  const { size, rope } = spec.heads!;
  const { heads, pairs, share } = splitOf(spec.heads!, target, s, c);
  if (!Number.isInteger(heads)) return `heads of ${size} columns straddle blocks of ${matrixTile(s, c).tileN}`;
  if (s.storeTiles !== s.tilesN) return 'a row of the block does not pass to the epilogue at once';
  if (share < 1 || !Number.isInteger(Math.log2(share)) || (size / 4) % share) {
    return `the threads cannot share ${pairs} rows of heads evenly`;
  }
  if (resultElements(s, c) + pairs * (share > 1 ? 1 + share : 1) > matrixElements(s, c))
    return 'the tiles leave no room for the norms behind the results';
  if (epilogueWidth(spec.epilogue, spec.out) !== 4 || (rope && (rope.offset % 4 || rope.rowStride % 4))) {
    return 'rows do not start on multiples of four elements';
  }
  if (spec.epilogue.operands.some((o) => o.strideRow)) return 'the epilogue reads a value for each row';
  return undefined;
}

/** @param firstBinding of the scales of q and of k and of the table, if any; then come the epilogue's */
export function emitNormedOutput(
  spec: MatmulSpec,
  target: TargetProfile,
  s: MatrixSchedule,
  c: SubgroupMatrixConfig,
  firstBinding: number,
  sizes: Sizes,
): MatmulOutput {
  const { heads: count, size, eps, rope } = spec.heads!;
  const { heads, pairs, share, threads } = splitOf(spec.heads!, target, s, c);
  const { tileN } = matrixTile(s, c);
  const width = count * size;
  // Norms lie behind the results, and behind the norms the parts of their sums. Not exchanged with shuffles: a thread's place in its subgroup,
  // which they need, was a register through the whole loop over k.
  const free = resultElements(s, c);
  const normOf = (sum: string): string =>
    `vec4<u32>(bitcast<u32>(inverseSqrt((${sum}) * ${floatLiteral(1 / size)} + ${floatLiteral(eps)})), 0u, 0u, 0u)`;
  const part = (i: number): string => `bitcast<f32>(tiles[thread * ${share}u + ${free + pairs + i}u].x)`;
  const exchanged = `
workgroupBarrier();
if (thread < ${pairs}u) { tiles[thread + ${free}u] = ${normOf(Array.from({ length: share }, (_, i) => part(i)).join(' + '))}; }`;
  const vectors = size / 4;
  const tables: [string, string][] = [
    ['query_scale', `vec4<f32>, ${vectors}`],
    ['key_scale', `vec4<f32>, ${vectors}`],
  ];
  if (rope) tables.push(['rope', `vec4<f32>${sizes.length(Math.ceil(rope.length / 4), true)}`]);
  const epilogue = emitEpilogue(spec.epilogue, spec.out, firstBinding + tables.length, 4, sizes);
  // Of eight threads that read together two rows start in the same bank: every other row begins with its second piece.
  const turned = share > 1 && vectors % (2 * share) === 0 ? `(piece ^ (pair % 2u * ${share}u))` : 'piece';
  return {
    declarations: [
      ...tables.map(
        ([name, type], i) => `@group(0) @binding(${firstBinding + i}) var<storage, read> ${name}: array<${type}>;`,
      ),
      epilogue.declarations,
    ].join('\n'),
    bindings: [...tables.map(() => 'read' as const), ...epilogue.bindings],
    prepare(results, { raggedN }) {
      const value = epilogue.evaluate(
        '0u',
        'col',
        `bitcast<vec4<f32>>(tiles[${results.at(`pair / ${heads}u`, 'at')}])`,
      );
      const sum = `${value.before.join('\n')}\nlet y = ${value.text};\nsum += dot(y, y);`;
      const some = threads > pairs * share;
      return `if (colBase < ${2 * width}u) {
${some ? `if (thread < ${pairs * share}u) {\n` : ''}let pair = thread / ${share}u;
var sum = 0.0;
for (var piece = thread % ${share}u; piece < ${vectors}u${results.open}; piece += ${share}u) {
let at = pair % ${heads}u * ${vectors}u + ${turned};
let col = colBase + at * 4u;
${insideOnly(raggedN ? [`col < ${spec.n}u`] : [], sum)}
}
tiles[thread + ${share > 1 ? free + pairs : free}u] = ${share > 1 ? 'vec4<u32>(bitcast<u32>(sum), 0u, 0u, 0u)' : normOf('sum')};${some ? '\n}' : ''}${share > 1 ? exchanged : ''}
workgroupBarrier();
}`;
    },
    store(value, { raggedM, raggedN }) {
      const { before, text } = epilogue.evaluate('row', 'col', value);
      const conditions = [...(raggedM ? [`row < ${spec.m}u`] : []), ...(raggedN ? [`col < ${spec.n}u`] : [])];
      const body = `${before.join('\n')}
var y = ${text};
if (col < ${2 * width}u) {
let d = col % ${size}u / 4u;
let norm = bitcast<f32>(tiles[resultRow * ${heads}u + col % ${tileN}u / ${size}u + ${free}u].x);
let n = y * norm * select(key_scale[d], query_scale[d], col < ${width}u);
${rope ? `let t = rope[row * ${rope.rowStride / 4}u + d + ${rope.offset / 4}u];\ny = ${rotated(4)};` : 'y = n;'}
}
${epilogue.write('row', 'col', 'y')}`;
      return insideOnly(conditions, `{\n${body}\n}`);
    },
  };
}
