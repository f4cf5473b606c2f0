// Gathers rows of a table by number: token embeddings, one timestep's modulation rows.
// The numbers are a constant buffer, so a prompt changes data, never a kernel.

import type { TargetProfile } from '../targets/types.ts';
import { hasTier } from '../targets/types.ts';
import { flatGrid } from '../wgsl/grid.ts';
import { bytesOf, type KernelSource, type MatrixView, viewLength } from './kernel.ts';
import { elementTypes, viewBytes, viewWidth } from './precision.ts';

export interface GatherSpec {
  /** `[entries, cols]`; may be f16 in every tier (the `f32` tier binds words and unpacks). */
  table: MatrixView;
  /** How many rows to fetch: length of the u32 index array and rows of `out`. */
  indices: number;
  /** `[indices, cols]`. */
  out: MatrixView;
}

/**
 * out[i, c] = table[indices[i], c]
 *
 * One invocation copies four neighbouring columns where both matrices allow it, else one. Every index must be below
 * `table.rows`; WebGPU keeps a wrong one inside the buffer, the value is then unspecified.
 * Bindings: table, indices, out.
 */
export function gather(spec: GatherSpec, target: TargetProfile): KernelSource {
  const { table, indices, out } = spec;
  const packed = table.type === 'f16' && !hasTier(target, 'f16');
  const { enable, features } = elementTypes('gather', packed ? [out.type] : [table.type, out.type], target);
  const width = Math.min(viewWidth(table), viewWidth(out)) as 1 | 4;
  const vector = (type: string): string => (width === 4 ? `vec4<${type}>` : type);
  const length = (v: MatrixView, elements: number): number => Math.ceil(viewLength(v) / elements);
  const columns = out.cols / width;
  const grid = flatGrid(indices * columns, target);
  const at = (v: MatrixView, row: string): string => `${v.offset / width}u + ${row} * ${v.rowStride / width}u + col`;

  let tableElement = vector(table.type);
  let tableLength = length(table, width);
  let load = 'table[source]';
  if (packed) {
    // Two f16 in a word: a vec4 is a pair of words, a single element one half of a word.
    tableElement = width === 4 ? 'vec2<u32>' : 'u32';
    tableLength = width === 4 ? tableLength : length(table, 2);
    load =
      width === 4
        ? 'vec4<f32>(unpack2x16float(table[source].x), unpack2x16float(table[source].y))'
        : 'unpack2x16float(table[source / 2u])[source % 2u]';
  }
  const wgsl = `${enable}@group(0) @binding(0) var<storage, read> table: array<${tableElement}, ${tableLength}>;
@group(0) @binding(1) var<storage, read> indices: array<u32, ${indices}>;
@group(0) @binding(2) var<storage, read_write> result: array<${vector(out.type)}, ${length(out, width)}>;
${grid.open}
let row = item / ${columns}u;
let col = item % ${columns}u;
let source = ${at(table, 'indices[row]')};
result[${at(out, 'row')}] = ${saturate(load, table.type, out.type, width)};
}
`;
  return {
    label: `gather ${table.type}→${out.type} ${indices}×${out.cols}`,
    wgsl,
    bindings: ['read', 'read', 'read_write'],
    workgroups: grid.workgroups,
    flops: 0,
    bytes: indices * 4 + indices * out.cols * bytesOf(table.type) + viewBytes(out),
    needs: { features, invocations: grid.invocations, workgroupBytes: 0 },
  };
}

function saturate(value: string, from: string, to: string, width: 1 | 4): string {
  const typed = (type: string): string => (width === 4 ? `vec4<${type}>` : type);
  // Conversion to f16 outside its range is undefined in WGSL.
  return from === 'f32' && to === 'f16'
    ? `${typed('f16')}(clamp(${value}, ${typed('f32')}(-65504.0), ${typed('f32')}(65504.0)))`
    : `${typed(to)}(${value})`;
}
