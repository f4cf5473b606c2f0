// What a product on matrix instructions emits once its operands are staged: the matrices, the multiplication, the way out.
// WGSL gives a matrix no element access, so results pass through workgroup memory to the epilogue.

import type { SubgroupMatrixConfig } from '../../../../runtime/src/program/types.ts';
import type { MatmulOutput } from '../matmul/output.ts';
import { type MatrixSchedule, matrixTile, rowVectors } from './schedule.ts';

export interface MatrixProduct {
  /** Edges of the workgroup's block. */
  tileM: number;
  tileN: number;
  /** Vectors of four from row to row in both tiles; `tileA` is [m][k], `tileB` [n][k]. */
  stride: number;
  /** Module-scope text: the tiles and the results. */
  declarations: string;
  /** Statements before the loop over k: where the subgroup's part lies, and its sums. `subgroup` in scope. */
  before: string;
  /** Statements that multiply what is staged, between barriers of the caller. */
  multiply: string;
  /** Statements that pass the sums to the epilogue; `rowBase` and `colBase` in scope. */
  after: string;
}

export function emitMatrixProduct(
  s: MatrixSchedule,
  config: SubgroupMatrixConfig,
  threads: number,
  output: MatmulOutput,
  edges: { raggedM: boolean; raggedN: boolean },
): MatrixProduct {
  const element = config.componentType;
  const { tileM, tileN } = matrixTile(s, config);
  const stride = rowVectors(s, element);
  const subgroups = s.subgroupsM * s.subgroupsN;
  const each = <T>(count: number, f: (i: number) => T): T[] => Array.from({ length: count }, (_, i) => f(i));
  const left = `subgroup_matrix_left<${element}, ${config.k}, ${config.m}>`;
  const right = `subgroup_matrix_right<${element}, ${config.n}, ${config.k}>`;
  const result = `subgroup_matrix_result<f32, ${config.n}, ${config.m}>`;

  // Offsets and strides count the array's elements, here vectors of four. Rows of `a` are row-major left matrices, rows
  // of `b`, k contiguous as well, column-major right ones.
  const at = (row: string): string => `(${row}) * ${stride}u + kk * ${config.k / 4}u, ${stride}u`;
  const multiply = [
    ...each(
      s.tilesN,
      (j) => `let b${j} = subgroupMatrixLoad<${right}, col_major>(&tileB, ${at(`subCol + ${j * config.n}u`)});`,
    ),
    ...each(s.tilesM, (i) => [
      `let a${i} = subgroupMatrixLoad<${left}, row_major>(&tileA, ${at(`subRow + ${i * config.m}u`)});`,
      ...each(s.tilesN, (j) => `c${i}_${j} = subgroupMatrixMultiplyAccumulate(a${i}, b${j}, c${i}_${j});`),
    ]).flat(),
  ];

  const width = s.storeTiles * config.n;
  // Vectors in a row of results, and in a subgroup's share of them.
  const rowOf = width / 4;
  const region = config.m * rowOf;
  const passes = each(s.tilesM, (i) => each(s.tilesN / s.storeTiles, (part) => ({ i, part }))).flat();
  const store = passes.map(({ i, part }) => {
    const stores = each(s.storeTiles, (j) => {
      const value = `c${i}_${part * s.storeTiles + j}`;
      return `subgroupMatrixStore<row_major>(&results, subgroup * ${region}u + ${(j * config.n) / 4}u, ${value}, ${rowOf}u);`;
    });
    return `${stores.join('\n')}
workgroupBarrier();
for (var i = thread; i < ${subgroups * region}u; i += ${threads}u) {
let owner = i / ${region}u;
let row = rowBase + owner / ${s.subgroupsN}u * ${s.tilesM * config.m}u + ${i * config.m}u + i % ${region}u / ${rowOf}u;
let col = colBase + owner % ${s.subgroupsN}u * ${s.tilesN * config.n}u + ${part * width}u + i % ${rowOf}u * 4u;
${output.store('results[i]', edges)}
}
workgroupBarrier();`;
  });

  return {
    tileM,
    tileN,
    stride,
    declarations: `var<workgroup> tileA: array<vec4<${element}>, ${tileM * stride}>;
var<workgroup> tileB: array<vec4<${element}>, ${tileN * stride}>;
var<workgroup> results: array<vec4<f32>, ${subgroups * region}>;`,
    before: `let subRow = subgroup / ${s.subgroupsN}u * ${s.tilesM * config.m}u;
let subCol = subgroup % ${s.subgroupsN}u * ${s.tilesN * config.n}u;
${each(s.tilesM, (i) => each(s.tilesN, (j) => `var c${i}_${j} = ${result}();`).join('\n')).join('\n')}`,
    multiply: `for (var kk = 0u; kk < ${s.tileK / config.k}u; kk++) {\n${multiply.join('\n')}\n}`,
    after: store.join('\n'),
  };
}
