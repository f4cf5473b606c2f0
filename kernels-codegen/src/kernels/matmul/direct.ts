// The matmul for adapters that run on the CPU (lavapipe, SwiftShader): no workgroup memory, no barrier, little text.
// There a shader's compilation costs more than its run, and memory shared by a workgroup is memory like any other.

import type { TargetProfile } from '../../targets/types.ts';
import { type Sizes, sizesFor, withSizes } from '../../wgsl/sizes.ts';
import type { KernelSource } from '../kernel.ts';
import { lanesOf, subgroupEnables, subgroupFeatures } from '../subgroups.ts';
import { emitInputs } from './inputs.ts';
import { emitOutput, type MatmulOutput } from './output.ts';
import { describeMatmul, type MatmulSpec, matmulBytes, matmulFlops, usesF16 } from './spec.ts';

/**
 * A thread computes four neighbouring columns of `rows` rows; neighbouring threads, the next columns of the same rows.
 * With `broadcast` the workgroup is a subgroup whose threads load one row each and hand it round. With `columnwise` it takes its columns one
 * after another: half the text to compile, and every row is loaded four times.
 */
export interface DirectSchedule {
  variant: 'direct';
  threads: number;
  rows: number;
  broadcast?: true;
  columnwise?: true;
}

/** Columns a thread: one vector of the output. */
export const DIRECT_COLUMNS = 4;

/**
 * y[m, n] = epilogue(Σₖ a[m, k] · b[n, k])
 *
 * A CPU's driver loads every value lane by lane with a test of its own, also what all lanes share; see {@link sumRows}.
 * f16 is read as 32-bit words, because a driver gathers 16-bit values one at a time.
 * The loop over k ends at a bound the driver cannot know, by adding `group.z`, always 0: loops of few turns, unrolled
 * throughout, took lavapipe up to 13 s to compile.
 * Products and sums are f32.
 */
export function directMatmul(spec: MatmulSpec, target: TargetProfile, s: DirectSchedule): KernelSource {
  const { m, n } = spec;
  const sizes = sizesFor(target, matmulFlops(spec));
  const inputs = emitInputs(spec, target, 'f32', 4, true, sizes);
  const output = emitOutput(spec, inputs.count, sizes);
  const split = splitDirect(m, n, target, s, sizes);
  const wgsl = `${usesF16(spec, target) ? 'enable f16;\n' : ''}${s.broadcast ? subgroupEnables(target) : ''}${inputs.declarations}
${output.declarations}

${split.head}
${each(split.loads, (i) => `let r${i} = ${split.row(i)};`).join('\n')}
${sumRows(s, split, (step) =>
  inputs.segments
    .map(
      (segment, i) => `for (var k = 0u; k < ${sizes.of(`inner${i}`, segment.cols)} + group.z; k += 4u) {
${step(
  (column) => segment.loadB(column, 'k'),
  (i) => segment.loadA(`r${i}`, 'k'),
)}
}`,
    )
    .join('\n'),
)}
${split.store(output)}
}
`;
  const made: KernelSource = {
    label: `matmul direct ${s.rows}×${s.threads * DIRECT_COLUMNS} (${describeMatmul(spec)})`,
    wgsl,
    bindings: [...each(inputs.count, () => 'read' as const), ...output.bindings],
    workgroups: split.workgroups,
    flops: matmulFlops(spec),
    bytes: matmulBytes(spec),
    needs: directNeeds(target, s, usesF16(spec, target)),
  };
  return withSizes(made, sizes);
}

const each = <T>(count: number, f: (i: number) => T): T[] => Array.from({ length: count }, (_, i) => f(i));

/** Why the target cannot run such a schedule; undefined when it can. */
export function directMisfit(target: TargetProfile, s: DirectSchedule): string | undefined {
  if (s.rows < 1) return 'needs at least one row';
  return s.broadcast && s.threads !== lanesOf(target) ? 'broadcasts need a workgroup of one subgroup' : undefined;
}

export function directNeeds(target: TargetProfile, s: DirectSchedule, usesF16: boolean): KernelSource['needs'] {
  const features = [...(usesF16 ? ['shader-f16'] : []), ...(s.broadcast ? subgroupFeatures(target) : [])];
  return {
    ...(features.length ? { features } : {}),
    invocations: s.threads,
    workgroupBytes: 0,
    ...(s.broadcast ? { subgroupSize: { min: s.threads, max: s.threads } } : {}),
  };
}

/** What the matmul and the convolution do alike: who computes what of an output of `m` × `n`, and its stores. */
export function splitDirect(m: number, n: number, target: TargetProfile, s: DirectSchedule, sizes: Sizes) {
  const columns = s.threads * DIRECT_COLUMNS;
  const groupsN = Math.ceil(n / columns);
  const groupsM = Math.ceil(m / s.rows);
  const layers = Math.ceil(groupsM / target.limits.maxComputeWorkgroupsPerDimension);
  const groupsY = Math.ceil(groupsM / layers);
  const raggedM = layers * groupsY * s.rows !== m;
  const raggedN = n % DIRECT_COLUMNS !== 0;
  const raggedGroups = n % columns !== 0;
  // A thread that leaves early cannot load its row for the others, so it computes columns that it does not store.
  const idle = raggedGroups && s.broadcast;
  const id = s.broadcast ? '@builtin(subgroup_invocation_id)' : '@builtin(local_invocation_index)';
  const held = (row: string, always = false): string =>
    raggedM || always ? `min(${row}, ${sizes.of('last_row', m - 1)})` : row;
  return {
    workgroups: [groupsN * layers, groupsY, 1] as [number, number, number],
    /** Rows that a thread loads: `r0` and on, each {@link row}. */
    loads: s.broadcast ? Math.ceil(s.rows / s.threads) : s.rows,
    head: `@compute @workgroup_size(${s.threads})
fn main(@builtin(workgroup_id) group: vec3<u32>, ${id} thread: u32) {
let col = (${layers > 1 ? `(group.x % ${sizes.of('groups', groupsN)})` : 'group.x'} * ${s.threads}u + thread) * ${DIRECT_COLUMNS}u;
${raggedGroups && !s.broadcast ? `if (col >= ${sizes.of('columns', n)}) { return; }` : ''}
let rowBase = ${layers > 1 ? `(group.x / ${sizes.of('groups', groupsN)} * ${sizes.of('layer', groupsY)} + group.y)` : 'group.y'} * ${s.rows}u;`,
    row: (i: number): string =>
      s.broadcast ? held(`rowBase + ${i * s.threads}u + thread`, s.rows % s.threads !== 0) : held(`rowBase + ${i}u`),
    column: (j: number | string): string => {
      const number = typeof j === 'number' ? `${j}u` : j;
      return idle || (raggedN && j) ? `min(col + ${number}, ${sizes.of('last_column', n - 1)})` : `col + ${number}`;
    },
    /**
     * One text for all rows, in a loop: an epilogue reads and writes a value at a time for each lane, and sixteen of them took lavapipe 5 s to compile.
     */
    store(output: MatmulOutput): string {
      const ends = raggedM ? ` && rowBase + i < ${sizes.of('rows', m)}` : '';
      const text = `for (var i = 0u; i < ${s.rows}u + group.z${ends}; i++) {
let row = rowBase + i;
var sum = c0;
${each(s.rows - 1, (i) => `sum = select(sum, c${i + 1}, i == ${i + 1}u);`).join('\n')}
${output.store('sum', { raggedM: false, raggedN })}
}`;
      return idle ? `if (col < ${sizes.of('columns', n)}) {\n${text}\n}` : text;
    },
  };
}

/**
 * Statements that sum the products of every row with the four columns in `c0` and on.
 *
 * lavapipe loads by a loop over the lanes, with tests of mask and bounds for each (it sees that lanes agree only where an
 * address is made of constants), SwiftShader likewise: about 300 instructions a vector of four, ten times its products.
 * So with `broadcast` a thread loads one row of as many as there are lanes, and takes the others' from their registers, an
 * instruction each: 13 GFLOP/s a CPU instead of 4, with eight rows of f32.
 *
 * @param loops the loops over k, around a step of four: `step(loadB, loadA)`, where `loadB` gives a vector of a column, `loadA` of `r<i>`
 */
export function sumRows(
  s: DirectSchedule,
  split: { column(j: number | string): string },
  loops: (step: (loadB: (column: string) => string, loadA: (i: number) => string) => string) => string,
): string {
  const sums = each(s.rows, (i) => `var c${i} = vec4<f32>();`);
  if (!s.columnwise) {
    const columns = each(DIRECT_COLUMNS, (j) => `w${j}`);
    const text = loops((loadB, loadA) => {
      const loads = columns.map((w, j) => `let ${w} = ${loadB(split.column(j))};`);
      return [...loads, shareRows(s, loadA, (i) => multiplyAdd(`c${i}`, 'x', columns))].join('\n');
    });
    return [...sums, text].join('\n');
  }
  const text = loops(
    (loadB, loadA) => `let w = ${loadB('column')};\n${shareRows(s, loadA, (i) => `d${i} += dot(x, w);`)}`,
  );
  return `${sums.join('\n')}
for (var j = 0u; j < ${DIRECT_COLUMNS}u + group.z; j++) {
let column = ${split.column('j')};
${each(s.rows, (i) => `var d${i} = 0.0;`).join('\n')}
${text}
let place = vec4<u32>(j) == vec4<u32>(0u, 1u, 2u, 3u);
${each(s.rows, (i) => `c${i} = select(c${i}, vec4<f32>(d${i}), place);`).join('\n')}
}`;
}

/** Statements that run `use(i)`, where `x` is a vector of row `i`, for each row. */
function shareRows(s: DirectSchedule, load: (i: number) => string, use: (i: number) => string): string {
  if (!s.broadcast) return each(s.rows, (i) => `{ let x = ${load(i)};\n${use(i)} }`).join('\n');
  const loads = each(Math.ceil(s.rows / s.threads), (i) => `let x${i} = ${load(i)};`);
  const uses = each(s.rows, (i) => {
    const [load, lane] = [Math.floor(i / s.threads), i % s.threads];
    return `{ let x = subgroupBroadcast(x${load}, ${lane}u);\n${use(i)} }`;
  });
  return [...loads, ...uses].join('\n');
}

/** Statement that adds to each component of `sum` the dot product of `x` with one of the four vectors `w`. */
export const multiplyAdd = (sum: string, x: string, w: readonly string[]): string =>
  `${sum} += vec4<f32>(${w.map((v) => `dot(${x}, ${v})`).join(', ')});`;

/**
 * The split of a product of `m` × `n` × `k`. Eight lanes are a vector of most CPUs. Rows share the gathers of the right
 * operand, but a text of sixteen takes lavapipe longer to compile than one of eight (0.4 and 0.2 s; columnwise 0.1 s), so
 * they must have work: sixteen run at 19 GFLOP/s a CPU, eight at 14, columnwise at 9; 32 are no faster.
 */
export function directSchedule(m: number, n: number, k: number, target: TargetProfile): DirectSchedule {
  const work = 2 * m * n * k;
  const lanes = lanesOf(target);
  // Of one or two rows there is nothing to hand round.
  if (lanes && m > 2) {
    const rows = Math.min(work < 2 ** 27 ? 8 : 16, m);
    const columnwise = work < 2 ** 24 ? ({ columnwise: true } as const) : {};
    return { variant: 'direct', threads: lanes, rows, broadcast: true, ...columnwise };
  }
  const rows = work < 2 ** 26 ? 2 : work < 2 ** 29 ? 4 : 8;
  return { variant: 'direct', threads: 8, rows: Math.min(rows, m) };
}

/** What measuring may choose from: more lanes, texts of one row to sixteen, and those whose rows are handed round. */
export function directCandidates(m: number, target: TargetProfile): DirectSchedule[] {
  const lanes = lanesOf(target);
  const rows = (most: number[]): number[] => most.filter((count) => count <= m);
  const shared = lanes
    ? rows([8, 16, 4, 32]).flatMap((r): DirectSchedule[] => {
        const whole = { variant: 'direct', threads: lanes, rows: r, broadcast: true } as const;
        return [whole, { ...whole, columnwise: true }];
      })
    : [];
  const alone = [8, 4, 16, 32].flatMap((threads) =>
    rows([1, 2, 4, 8, 16]).map((r): DirectSchedule => ({ variant: 'direct', threads, rows: r })),
  );
  return [...shared, ...alone];
}
