// Stages one step of the matrix of taps in workgroup memory: [pixel][tap vector], four channels a vector.
// Shared by the variants that tile; what a pixel's window is and where it leaves the image is settled here.

import { sixteenOf } from '../../wgsl/sixteen.ts';
import { type Copy, type Place, placeOf, rowOf } from '../staging.ts';
import type { Conv2dInput } from './input.ts';
import type { Conv2dSpec } from './spec.ts';

export interface ImageStage {
  /** Statements before the loop over k: where the windows of this thread's pixels begin. `thread`, `rowBase` in scope. */
  before: string;
  /** Statements before the copy in each step, where all its vectors are of one tap; `k` in scope. */
  tap: string;
  /** Fills the tile with taps `k … k + tileK − 1`. */
  copy: Copy;
}

export interface ImageStageOptions {
  spec: Conv2dSpec;
  input: Conv2dInput;
  element: 'f32' | 'f16';
  tileM: number;
  tileK: number;
  threads: number;
  /** The last workgroups reach beyond the last pixel, which then stands in for those outside. */
  raggedM: boolean;
  /** Channels an item has: 4 as `vec4<element>`, or 8 of f16 as `vec4<u32>`. */
  unit: 4 | 8;
  /** As {@link Copy} has it. */
  spread?: boolean;
  /** Statement that stores an item of the tile's pixel `at.row + at.more`. */
  store(at: Place, value: string): string;
}

/**
 * Thread t fills vectors t, t + threads, …, always of the same pixels and the same place within a step, so windows are
 * computed once. When tileK divides cin a step stays on one tap, which is then the same for the whole workgroup; else
 * every vector finds its own, and taps beyond the last are zero.
 */
export function stageImage(o: ImageStageOptions): ImageStage {
  const { spec, input, threads, tileK } = o;
  const { cin, kernel } = spec;
  const m = spec.outHeight * spec.outWidth;
  const taps = spec.weight.cols;
  const width = tileK / o.unit;
  const items = o.tileM * width;
  const uniformTap = cin % tileK === 0;
  const ragged = taps % tileK !== 0;
  const windows: string[] = [];
  for (let first = 0, j = 0; first < items; first += threads, j++) {
    const i = first ? `(thread + ${first}u)` : 'thread';
    const row = `rowBase + ${o.spread ? rowOf(placeOf({ width, spread: true }, threads, j)) : `${i} / ${width}u`}`;
    windows.push(input.window(String(j), o.raggedM ? `min(${row}, ${m - 1}u)` : row));
  }
  // Four channels are of one tap; eight need not be.
  const quad = (j: number, tag: string, q: string): { before: string; value: string } => {
    if (uniformTap) return { before: '', value: input.load(`y${j} + ky`, `x${j} + kx`, `c + ${q}`) };
    const value = input.load(
      `y${j} + i32(tap${tag} / ${kernel * cin}u)`,
      `x${j} + i32(tap${tag} / ${cin}u % ${kernel}u)`,
      `tap${tag} % ${cin}u`,
    );
    return {
      before: `let tap${tag} = ${ragged ? `min(k + ${q}, ${taps - 4}u)` : `k + ${q}`};`,
      value: ragged ? `select(vec4<${o.element}>(), ${value}, k + ${q} < ${taps}u)` : value,
    };
  };
  const item: Copy['item'] = (at, tag, j) => {
    const quads = Array.from({ length: o.unit / 4 }, (_, i) =>
      quad(j, i ? `${tag}_${i}` : tag, `${at.col} * ${o.unit}u${i ? ' + 4u' : ''}`),
    );
    return {
      before: quads
        .map(({ before }) => before)
        .join(' ')
        .trim(),
      values: quads.map(({ value }) => value),
      store: (v) => o.store(at, sixteenOf(v)),
    };
  };
  const tap = uniformTap
    ? `let c = k % ${cin}u;\nlet ky = i32(k / ${kernel * cin}u);\nlet kx = i32(k / ${cin}u % ${kernel}u);\n`
    : '';
  return {
    before: windows.join('\n'),
    tap,
    copy: { count: items, width, ...(o.spread ? { spread: true } : {}), item },
  };
}
