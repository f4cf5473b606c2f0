// V of attention on matrix instructions: transposed to [d][key] on its way to workgroup memory, in blocks of 4×4 or 2×8.
// AMD's matrices read their right operand along the keys, and took it 16 bits at a time from rows of d.

import type { Copy } from '../staging.ts';
import type { Layout } from './matrix-layout.ts';

export interface ValueTile {
  /** Of the memory it lies in; offsets and strides below count these. */
  type: 'u32' | 'vec2<u32>' | 'vec4<f32>';
  length: number;
  stride: number;
  copy: Copy;
  /** Offset of column `d` of the matrices at keys from `key` on. Output column c is the head's d as the copy has placed it. */
  at(d: number, key: number): number;
  /** WGSL offset of a slice's columns, `own` of them. */
  slice(own: number): string;
}

/** @param l of the kernel, `tileK` its keys a tile */
export function valueTile({ unit, padded, threads, slices, valueRows, valueStride }: Layout, tileK: number): ValueTile {
  const half = unit === 8;
  const rowVectors = padded / unit;
  // Four keys of `unit` columns each, or two where that gives every thread some. Neighbouring threads take the same columns of
  // neighbouring keys: their stores meet no bank twice.
  const group = half && (tileK / 4) * rowVectors < threads ? 2 : 4;
  // Elements for four keys: two keys are one of 32 bits, whose address is one product and one sum.
  const per = 4 / group;
  const quads = (tileK / 4) * per;
  const stride = valueStride * per;
  const each = <T>(count: number, f: (i: number) => T): T[] => Array.from({ length: count }, (_, i) => f(i));
  const copy: Copy = {
    count: (tileK / group) * rowVectors,
    width: tileK / group,
    item: ({ row, more, col }) => {
      const d = more ? `${row} + ${more}u` : row;
      // Of eight columns the first four lie in the tile's left half, the others beside them.
      const at = (i: number): string =>
        `${row} * ${4 * stride}u + ${(more * 4 + (i & 3)) * stride + (i >> 2) * quads}u + ${col}`;
      const pair = (i: number, a: string, b: string): string =>
        `${i % 2 ? 'high' : 'low'}(${a}.${'xyzw'[i >> 1]}, ${b}.${'xyzw'[i >> 1]})`;
      return {
        values: each(group, (j) => `read_v(${col} * ${group}u, value_base + ${j}u, ${d}, head)`),
        store: ([a, b, c, e]) =>
          !half
            ? each(4, (i) => {
                const word = 'xyzw'[i];
                return `value_tile[${at(i)}] = vec4<f32>(${a}.${word}, ${b}.${word}, ${c}.${word}, ${e}.${word});`;
              }).join('\n')
            : each(8, (i) => {
                const pairs = group === 4 ? `vec2<u32>(${pair(i, a!, b!)}, ${pair(i, c!, e!)})` : pair(i, a!, b!);
                return `value_tile[${at(i)}] = ${pairs};`;
              }).join('\n'),
      };
    },
  };
  return {
    type: !half ? 'vec4<f32>' : group === 4 ? 'vec2<u32>' : 'u32',
    length: valueRows * stride,
    stride,
    copy,
    at: (d, key) => (d % valueRows) * stride + Math.floor(d / valueRows) * quads + (key / 4) * per,
    slice: (own) =>
      half
        ? `slice % ${slices / 2}u * ${own * stride}u + slice / ${slices / 2}u * ${quads}u`
        : `slice * ${own * stride}u`,
  };
}
