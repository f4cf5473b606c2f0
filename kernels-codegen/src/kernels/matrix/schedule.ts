// How a product is split over matrix instructions: sizes, and the workgroup memory they take.
// Shared by the families whose arithmetic is one product, whatever their operands are staged from.

import type { SubgroupMatrixConfig } from '../../../../runtime/src/program/types.ts';

/** `subgroupsM × subgroupsN` subgroups compute `tilesM × tilesN` matrices each; sizes count matrices of the device. */
export interface MatrixSchedule {
  variant: 'matrix';
  subgroupsM: number;
  subgroupsN: number;
  tilesM: number;
  tilesN: number;
  /** Columns staged at a time, a multiple of 8 and of the matrix's own k. */
  tileK: number;
  /** Pairs of tiles: with two, a step's loads are issued before the products of the step before it, between single barriers. One when left out. */
  buffers?: 2;
  /** Matrices side by side that pass to the epilogue at a time; divides `tilesN`. */
  storeTiles: number;
}

/** Edges of the block one workgroup computes. */
export const matrixTile = (s: MatrixSchedule, c: SubgroupMatrixConfig): { tileM: number; tileN: number } => ({
  tileM: s.subgroupsM * s.tilesM * c.m,
  tileN: s.subgroupsN * s.tilesN * c.n,
});

/** Values in 16 bytes, the element of the workgroup memory: what a thread moves at a time, and bounds checks leave whole. */
export const unitOf = (element: 'f32' | 'f16'): 8 | 4 => (element === 'f16' ? 8 : 4);

/** Elements of both operands' tiles, 16 bytes each. */
export function tileElements(s: MatrixSchedule, c: SubgroupMatrixConfig): number {
  const { tileM, tileN } = matrixTile(s, c);
  return (tileM + tileN) * rowUnits(s, c.componentType);
}

/** Elements of the workgroup memory, 16 bytes each: values of the tiles, or, once the sums are done, four f32 results. */
export function matrixElements(s: MatrixSchedule, c: SubgroupMatrixConfig): number {
  return Math.max((s.buffers ?? 1) * tileElements(s, c), resultElements(s, c));
}

/** Of these, what results take that pass to the epilogue together. */
export const resultElements = (s: MatrixSchedule, c: SubgroupMatrixConfig): number =>
  (s.subgroupsM * s.subgroupsN * c.m * s.storeTiles * c.n) / 4;

/** Bytes of workgroup memory: the operands' tiles, and in the same place the results on their way to the epilogue. */
export const matrixWorkgroupBytes = (s: MatrixSchedule, c: SubgroupMatrixConfig): number => matrixElements(s, c) * 16;

/**
 * Elements between rows of a staged tile: one more than its values take, so that rows do not all start in the same memory bank.
 * Less would break the rule of VK_KHR_cooperative_matrix that rows start on multiples of 16 bytes.
 */
export const rowUnits = (s: MatrixSchedule, element: 'f32' | 'f16'): number => s.tileK / unitOf(element) + 1;
