// What a product on matrix instructions emits once its operands are staged: the matrices, the multiplication, the way out.
// WGSL gives a matrix no element access, so results pass through workgroup memory to the epilogue: where the tiles lay.

import type { SubgroupMatrixConfig } from '../../../../runtime/src/program/types.ts';
import type { MatmulOutput } from '../matmul/output.ts';
import { indexOf, type Place } from '../staging.ts';
import { type MatrixSchedule, matrixElements, matrixTile, rowVectors } from './schedule.ts';

export interface MatrixProduct {
  /** Edges of the workgroup's block. */
  tileM: number;
  tileN: number;
  /** Module-scope text: the memory of both tiles and of the results after them. */
  declarations: string;
  /**
   * Statement that stores the vector of four `value` of a tile: `a` is [m][k], `b` [n][k].
   * @param at the row, and the number of the vector in it
   */
  store(tile: 'a' | 'b', at: Place, value: string): string;
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
  const at = (row: string, base = 0): string =>
    `${base ? `${base}u + ` : ''}(${row}) * ${stride}u + kk * ${config.k / 4}u, ${stride}u`;
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
  // Elements of the memory in a vector of four results: one of `vec4<f32>`, two of `vec2<u32>`.
  const parts = element === 'f16' ? 2 : 1;
  // Vectors in a row of results, and in a subgroup's share of them.
  const rowOf = width / 4;
  const region = config.m * rowOf;
  const passes = each(s.tilesM, (i) => each(s.tilesN / s.storeTiles, (part) => ({ i, part }))).flat();
  const store = passes.map(({ i, part }) => {
    const stores = each(s.storeTiles, (j) => {
      const value = `c${i}_${part * s.storeTiles + j}`;
      return `subgroupMatrixStore<row_major>(&tiles, subgroup * ${region * parts}u + ${(j * config.n * parts) / 4}u, ${value}, ${rowOf * parts}u);`;
    });
    return `${stores.join('\n')}
workgroupBarrier();
for (var i = thread; i < ${subgroups * region}u; i += ${threads}u) {
let owner = i / ${region}u;
let row = rowBase + owner / ${s.subgroupsN}u * ${s.tilesM * config.m}u + ${i * config.m}u + i % ${region}u / ${rowOf}u;
let col = colBase + owner % ${s.subgroupsN}u * ${s.tilesN * config.n}u + ${part * width}u + i % ${rowOf}u * 4u;
${parts === 2 ? 'let value = vec4<f32>(bitcast<vec2<f32>>(tiles[i * 2u]), bitcast<vec2<f32>>(tiles[i * 2u + 1u]));' : 'let value = tiles[i];'}
${output.store('value', edges)}
}
workgroupBarrier();`;
  });

  return {
    tileM,
    tileN,
    declarations: `var<workgroup> tiles: array<${element === 'f16' ? 'vec2<u32>' : 'vec4<f32>'}, ${matrixElements(s, config)}>;`,
    store: (tile, at, value) =>
      `tiles[${indexOf(at, stride)}${tile === 'b' ? ` + ${tileM * stride}u` : ''}] = ${element === 'f16' ? `bitcast<vec2<u32>>(${value})` : value};`,
    before: `let subRow = subgroup / ${s.subgroupsN}u * ${s.tilesM * config.m}u;
let subCol = subgroup % ${s.subgroupsN}u * ${s.tilesN * config.n}u;
${each(s.tilesM, (i) => each(s.tilesN, (j) => `var c${i}_${j} = ${result}();`).join('\n')).join('\n')}`,
    multiply: `for (var kk = 0u; kk < ${s.tileK / config.k}u; kk++) {\n${multiply.join('\n')}\n}`,
    after: store.join('\n'),
  };
}
