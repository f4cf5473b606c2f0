// What a kernel must declare for the element types it binds, and what those bindings move.
// The baseline tier has no f16 in WGSL: asking for it there is a compiler's mistake that must not reach a device.

import { KontextError } from '../../../runtime/src/errors.ts';
import { hasTier, type TargetProfile } from '../targets/types.ts';
import { bytesOf, type Epilogue, type MatrixView } from './kernel.ts';

/**
 * The `enable` directive (or nothing) and features for kernels that bind these element types.
 * @throws KontextError `program-invalid` when f16 is bound in the `f32` tier
 */
export function elementTypes(
  family: string,
  types: readonly ('f32' | 'f16')[],
  target: TargetProfile,
): { enable: string; features: string[] } {
  if (!types.includes('f16')) return { enable: '', features: [] };
  if (!hasTier(target, 'f16')) {
    throw new KontextError(
      'program-invalid',
      `${family} binds f16 activations but target ${target.name} is of tier f32; make these tensors f32.`,
      { family, target: target.name },
    );
  }
  return { enable: 'enable f16;\n', features: ['shader-f16'] };
}

/** Element types of an epilogue's operands and of the output. */
export const epilogueTypes = (epilogue: Epilogue, out: MatrixView): ('f32' | 'f16')[] => [
  ...epilogue.operands.map((o) => o.type),
  out.type,
];

/** Bytes an epilogue must read and write: each distinct operand element once, the output once. */
export function epilogueBytes(epilogue: Epilogue, out: MatrixView): number {
  return epilogue.operands.reduce(
    (sum, o) => sum + (o.strideRow ? out.rows : 1) * (o.strideCol ? out.cols : 1) * bytesOf(o.type),
    viewBytes(out),
  );
}

/** Bytes of a view's elements. */
export const viewBytes = (v: MatrixView): number => v.rows * v.cols * bytesOf(v.type);

/** Elements a load may take at once: 4 when every row of the view starts and ends on a multiple of four. */
export const viewWidth = (v: MatrixView): 1 | 4 => ([v.cols, v.rowStride, v.offset].every((n) => n % 4 === 0) ? 4 : 1);
