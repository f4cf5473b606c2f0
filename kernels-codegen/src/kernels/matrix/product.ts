// What a product on matrix instructions emits once its operands are staged: the matrices, the multiplication, the way out.
// WGSL gives a matrix no element access, so results pass through workgroup memory to the epilogue: where the tiles lay.

import type { SubgroupMatrixConfig } from '../../../../runtime/src/program/types.ts';
import type { MatmulOutput } from '../matmul/output.ts';
import { indexOf, type Place, type Prefetch } from '../staging.ts';
import { type MatrixSchedule, matrixElements, matrixTile, rowUnits, tileElements, unitOf } from './schedule.ts';

export interface MatrixProduct {
  /** Edges of the workgroup's block. */
  tileM: number;
  tileN: number;
  /** Module-scope text: the memory of both tiles and of the results after them. */
  declarations: string;
  /**
   * Statement that stores 16 bytes of a tile: `a` is [m][k], `b` [n][k]. With two buffers `filling` is in scope, see {@link twoBuffers}.
   * @param at the row, and the number of the 16 bytes in it
   * @param value `vec4<u32>`, eight values, of f16 tiles; `vec4<f32>` of others
   */
  store(tile: 'a' | 'b', at: Place, value: string): string;
  /** Statements before the loop over k: where the subgroup's part lies, and its sums. `subgroup` in scope. */
  before: string;
  /** Statements that multiply what is staged, between barriers of the caller. */
  multiply: string;
  /** Statements that pass the sums to the epilogue; `rowBase` and `colBase` in scope. */
  after: string;
}

/** @param open text that adds zero to a loop's bound and hides it from drivers, which would unroll the epilogue; may be empty */
export function emitMatrixProduct(
  s: MatrixSchedule,
  config: SubgroupMatrixConfig,
  threads: number,
  output: MatmulOutput,
  edges: { raggedM: boolean; raggedN: boolean },
  open: string,
): MatrixProduct {
  const element = config.componentType;
  const { tileM, tileN } = matrixTile(s, config);
  const stride = rowUnits(s, element);
  const unit = unitOf(element);
  const subgroups = s.subgroupsM * s.subgroupsN;
  const each = <T>(count: number, f: (i: number) => T): T[] => Array.from({ length: count }, (_, i) => f(i));
  const left = `subgroup_matrix_left<${element}, ${config.k}, ${config.m}>`;
  const right = `subgroup_matrix_right<${element}, ${config.n}, ${config.k}>`;
  const result = `subgroup_matrix_result<f32, ${config.n}, ${config.m}>`;

  const [ready, filling] = s.buffers ? ['ready + ', ' + filling'] : ['', ''];
  // Offsets and strides count the array's elements, here 16 bytes. Rows of `a` are row-major left matrices, rows
  // of `b`, k contiguous as well, column-major right ones.
  const at = (row: string, base = 0): string =>
    `${ready}${base ? `${base}u + ` : ''}(${row}) * ${stride}u + kk * ${config.k / unit}u, ${stride}u`;
  const multiply = [
    ...each(
      s.tilesN,
      (j) =>
        `let b${j} = subgroupMatrixLoad<${right}, col_major>(&tiles, ${at(`subCol + ${j * config.n}u`, tileM * stride)});`,
    ),
    ...each(s.tilesM, (i) => [
      `let a${i} = subgroupMatrixLoad<${left}, row_major>(&tiles, ${at(`subRow + ${i * config.m}u`)});`,
      ...each(s.tilesN, (j) => `c${i}_${j} = subgroupMatrixMultiplyAccumulate(a${i}, b${j}, c${i}_${j});`),
    ]).flat(),
  ];

  const width = s.storeTiles * config.n;
  // Vectors in a row of results, and in a subgroup's share of them.
  const rowOf = width / 4;
  const region = config.m * rowOf;
  const parts = s.tilesN / s.storeTiles;
  // Of the rows that lie there at a time; they have all columns of the block where `parts` is 1.
  const rowNumber = `owner / ${s.subgroupsN}u * ${config.m}u + i % ${region}u / ${rowOf}u`;
  const results = {
    open,
    at: (row: string, col4: string): string =>
      `((${row}) / ${config.m}u * ${s.subgroupsN}u + (${col4}) / ${rowOf}u) * ${region}u + (${row}) % ${config.m}u * ${rowOf}u + (${col4}) % ${rowOf}u`,
  };
  const passes = each(s.tilesM * parts, (pass) => {
    const stores = each(s.storeTiles, (j) => {
      const value = `c${Math.floor(pass / parts)}_${(pass % parts) * s.storeTiles + j}`;
      return `subgroupMatrixStore<row_major>(&tiles, subgroup * ${region}u + ${(j * config.n) / 4}u, ${value}, ${rowOf}u);`;
    });
    return `if (turn == ${pass}u) {\n${stores.join('\n')}\n}`;
  });
  // One text for all passes: the epilogue's, unrolled, was most of what a driver compiled.
  const store = `for (var turn = 0u; turn < ${passes.length}u${open}; turn++) {
${passes.join(' else ')}
workgroupBarrier();
${output.prepare ? `${output.prepare(results, edges)}\n` : ''}for (var i = thread; i < ${subgroups * region}u${open}; i += ${threads}u) {
let owner = i / ${region}u;
let row = rowBase + owner / ${s.subgroupsN}u * ${s.tilesM * config.m}u + turn / ${parts}u * ${config.m}u + i % ${region}u / ${rowOf}u;
let col = colBase + owner % ${s.subgroupsN}u * ${s.tilesN * config.n}u + turn % ${parts}u * ${width}u + i % ${rowOf}u * 4u;
let value = bitcast<vec4<f32>>(tiles[i]);
${output.prepare ? `let resultRow = ${rowNumber};\n` : ''}${output.store('value', edges)}
}
workgroupBarrier();
}`;

  return {
    tileM,
    tileN,
    declarations: `var<workgroup> tiles: array<${element === 'f16' ? 'vec4<u32>' : 'vec4<f32>'}, ${matrixElements(s, config)}>;`,
    store: (tile, at, value) =>
      `tiles[${indexOf(at, stride)}${tile === 'b' ? ` + ${tileM * stride}u` : ''}${filling}] = ${value};`,
    before: `let subRow = subgroup / ${s.subgroupsN}u * ${s.tilesM * config.m}u;
let subCol = subgroup % ${s.subgroupsN}u * ${s.tilesN * config.n}u;
${each(s.tilesM, (i) => each(s.tilesN, (j) => `var c${i}_${j} = ${result}();`).join('\n')).join('\n')}`,
    multiply: `for (var kk = 0u; kk < ${s.tileK / config.k}u; kk++) {\n${multiply.join('\n')}\n}`,
    after: store,
  };
}

/**
 * The loop over k of a schedule with two buffers: one barrier a step, and a step's loads are on their way while the step before it multiplies.
 * @param steps of the loop
 * @param tiles statements as {@link Prefetch} has them; `load` reads the step `t`
 */
export function twoBuffers(
  s: MatrixSchedule,
  config: SubgroupMatrixConfig,
  steps: number,
  tiles: Prefetch,
  multiply: string,
): string {
  const size = tileElements(s, config);
  // The step beyond the last is the last one again, and not used.
  return `${tiles.declare}
{
let t = 0u;
let filling = 0u;
${tiles.load}
${tiles.store}
}
var ready = 0u;
for (var turn = 1u; turn <= ${steps}u; turn++) {
workgroupBarrier();
let t = min(turn, ${steps - 1}u);
${tiles.load}
${multiply}
let filling = ${size}u - ready;
${tiles.store}
ready = filling;
}
workgroupBarrier();`;
}
