// Splits of a product over matrix instructions that a target may be given: by estimate, and when they are measured.

import type { SubgroupMatrixConfig } from '../../../../runtime/src/program/types.ts';
import { type MatrixSchedule, matrixWorkgroupBytes } from './schedule.ts';

/**
 * Blocks of 64 × 64 to 16 × 16 a subgroup, as far as its threads' registers hold the results.
 * @param eight blocks are shared by eight subgroups before they are by four
 */
export function matrices(config: SubgroupMatrixConfig, subgroupSize: number, eight: boolean): MatrixSchedule[] {
  const of = (layouts: Layouts): MatrixSchedule[] => split(config, subgroupSize, layouts, [64, 32, 16], { tileK: 32 });
  return [...(eight ? of([[4, 2]]).filter((s) => isSmall(s, config)) : []), ...of(FOUR)];
}

/** Eight subgroups of 64 × 64 leave room for no second workgroup, and then have nothing to do at a barrier. */
const isSmall = ({ tilesM, tilesN }: MatrixSchedule, { m, n }: SubgroupMatrixConfig): boolean =>
  tilesM * m * tilesN * n <= 64 * 32;

/** What only measuring can choose: two buffers, eight subgroups, other depths. */
export function measuredMatrices(config: SubgroupMatrixConfig, subgroupSize: number): MatrixSchedule[] {
  const large = (layouts: Layouts, s: Depth): MatrixSchedule[] => split(config, subgroupSize, layouts, [64, 32], s);
  const eight = (s: Depth): MatrixSchedule[] => large(EIGHT, s).filter((x) => isSmall(x, config));
  const depths = [32, 16, 64];
  return [
    ...depths.flatMap((tileK) => [...eight({ tileK, buffers: 2 }), ...large([[2, 2]], { tileK, buffers: 2 })]),
    ...depths.flatMap((tileK) => eight({ tileK })),
    ...matrices(config, subgroupSize, false).flatMap((s) => [16, 64].map((tileK) => ({ ...s, tileK }))),
  ];
}

type Layouts = readonly (readonly [subgroupsM: number, subgroupsN: number])[];
type Depth = Pick<MatrixSchedule, 'tileK' | 'buffers'>;

const FOUR: Layouts = [
  [2, 2],
  [1, 4],
  [4, 1],
];
const EIGHT: Layouts = [
  [2, 4],
  [4, 2],
];

function split(
  config: SubgroupMatrixConfig,
  subgroupSize: number,
  layouts: Layouts,
  edges: readonly number[],
  depth: Depth,
): MatrixSchedule[] {
  const found: MatrixSchedule[] = [];
  for (const [subgroupsM, subgroupsN] of layouts) {
    for (const rows of edges) {
      for (const cols of edges) {
        // 128 of a thread's usual 256 registers for results leave room for operands and addresses.
        if ((rows * cols) / subgroupSize > 128 || rows % config.m || cols % config.n) continue;
        const [tilesM, tilesN] = [rows / config.m, cols / config.n];
        const common = { variant: 'matrix', subgroupsM, subgroupsN, tilesM, tilesN, ...depth } as const;
        // The most matrices at a time that fit where the tiles lay: each pass is the epilogue's text once more.
        const bytes = matrixWorkgroupBytes({ ...common, storeTiles: 0 }, config);
        const storeTiles = [8, 4, 2].find(
          (t) => tilesN % t === 0 && matrixWorkgroupBytes({ ...common, storeTiles: t }, config) <= bytes,
        );
        found.push({ ...common, storeTiles: storeTiles ?? 1 });
      }
    }
  }
  return found;
}
