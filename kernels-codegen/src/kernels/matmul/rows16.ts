// A matmul's operands as the matrix variant stages them: 16 bytes at a time, as they will lie in workgroup memory.
// A page's bounds checks leave such a load whole, where they may split one of four halves.

import type { TargetProfile } from '../../targets/types.ts';
import { type BlockReader, emitBlockReader, emitOctetReader, sixteenOf } from '../../wgsl/sixteen.ts';
import type { Sizes } from '../../wgsl/sizes.ts';
import { type MatrixView, viewLength } from '../kernel.ts';
import { emitLeft, emitRight, joinSegments, type Loader, weightLoader } from './inputs.ts';
import { type MatmulSpec, type StoredMatrix, segmentsOf } from './spec.ts';

/** WGSL of 16 bytes: `vec4<u32>` with eight f16 values, or `vec4<f32>`. `more`, a constant, counts rows beyond `row`. */
type Read = (row: string, more: number, k: string) => string;

/** What a step of the loop over k may belong to: left operands beside each other that meet one right operand. */
export interface Part {
  /** All but the last end with a step. Columns are each one's own. */
  left: { cols: number; read: Read }[];
  /** Columns are the part's. `block`: 32 stored values at a time. */
  right: { read: Read } | { block: BlockReader };
}

export interface MatmulRows {
  declarations: string;
  parts: Part[];
  /** Bindings used, all `read`: the segments, the weight, then the path beside it. */
  count: number;
}

/**
 * @param element type of the values
 * @param step columns of a step of the loop over k
 * @param sizes how the text gets lengths
 */
export function emitRows(
  spec: MatmulSpec,
  target: TargetProfile,
  element: 'f32' | 'f16',
  step: number,
  sizes: Sizes,
): MatmulRows {
  const half = element === 'f16';
  const count = spec.segments.length;
  const segments = segmentsOf(spec).map((segment, s) => ({ ...segment, s }));
  const groups = joinSegments(segments, step);
  const text: string[] = [];

  const rightOf = (
    weight: StoredMatrix,
    binding: number,
    name: string,
  ): ((group: typeof segments) => Part['right']) => {
    const own = groups.filter(([segment]) => segment!.weight === weight);
    const extents = own.map((group) => extentOf(group));
    const wholeSteps = extents.every(({ first, cols }) => first % step === 0 && cols % step === 0);
    const block = half && wholeSteps && step % 32 === 0 ? emitBlockReader({ ...weight, binding, name }) : undefined;
    if (block) {
      text.push(block.declarations);
      return (group) => {
        const { first } = extentOf(group);
        const values: BlockReader['values'] = (row, k) => block.values(row, first ? `${first}u + ${k}` : k);
        return { block: { ...block, values } };
      };
    }
    const octets = extents.every(({ first, cols }) => first % 8 === 0 && cols % 8 === 0);
    const reader = half && octets ? emitOctetReader({ ...weight, binding, name }) : undefined;
    if (reader) {
      text.push(reader);
      return (group) => {
        const { first, cols } = extentOf(group);
        // Beyond the last column the left operand is zero: the right one has only to be a number.
        const inside = (k: string): string => (cols % step ? `min(${k}, ${cols - 8}u)` : k);
        return { read: (row, more, k) => `${name}_read(${row}, ${more}u, ${first ? `${first}u + ` : ''}${inside(k)})` };
      };
    }
    const loader = weightLoader(weight, binding, name, target, element);
    text.push(loader.declarations);
    return (group) => {
      const { first, cols } = extentOf(group);
      const part = emitRight(loader, `${name}${group[0]!.s}`, first, cols, element, step);
      text.push(part.declarations);
      return { read: joined(part, half) };
    };
  };
  const main = rightOf(spec.weight, count, 'b');
  const beside = spec.beside && rightOf(spec.beside.weight, count + 2, 'c');

  const parts = groups.map((group): Part => {
    const left = group.map(({ a, s }) => {
      const operand = leftOf(a, `a${s}`, s < count ? s : count + 1, element, step, sizes);
      text.push(operand.declarations);
      return { cols: a.cols, read: operand.read };
    });
    return { left, right: group[0]!.weight === spec.weight ? main(group) : beside!(group) };
  });
  return { declarations: text.join('\n'), parts, count: count + (spec.beside ? 3 : 1) };
}

const extentOf = (group: readonly { a: MatrixView; first: number }[]): { first: number; cols: number } => ({
  first: group[0]!.first,
  cols: group.reduce((sum, { a }) => sum + a.cols, 0),
});

function leftOf(
  a: MatrixView,
  name: string,
  binding: number,
  element: 'f32' | 'f16',
  step: number,
  sizes: Sizes,
): { declarations: string; read: Read } {
  const half = element === 'f16';
  if (!half || [a.cols, a.rowStride, a.offset].some((x) => x % 8 !== 0)) {
    const loader = emitLeft(a, name, binding, element, step);
    return { declarations: loader.declarations, read: joined(loader, half) };
  }
  const [stride, first] = [a.rowStride / 8, a.offset / 8];
  const outside = a.cols % step ? `if (k >= ${a.cols}u) { return vec4<u32>(); }\n  ` : '';
  return {
    declarations: `@group(0) @binding(${binding}) var<storage, read> ${name}: array<vec4<u32>${sizes.length(Math.ceil(viewLength(a) / 8), true)}>;
fn ${name}_read(row: u32, more: u32, k: u32) -> vec4<u32> {
  ${outside}return ${name}[row * ${stride}u + k / 8u + (${first}u + more * ${stride}u)];
}`,
    read: (row, more, k) => `${name}_read(${row}, ${more}u, ${k})`,
  };
}

/** Two vectors of four as one of 16 bytes, where rows do not start on those. */
const joined =
  ({ load }: Loader, half: boolean): Read =>
  (row, more, k) => {
    const r = more ? `${row} + ${more}u` : row;
    if (!half) return load(r, k);
    return sixteenOf([load(r, k), load(r, `${k} + 4u`)]);
  };
