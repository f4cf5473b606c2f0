// Pointwise kernels: one expression over whole matrices.
// What fusion could not attach to a matmul, a norm or a convolution ends here: Euler step, CFG mix, copies and casts.

import { KontextError } from '../../../runtime/src/errors.ts';
import { type Expr, opCount } from '../expr/expr.ts';
import type { TargetProfile } from '../targets/types.ts';
import { flatGrid } from '../wgsl/grid.ts';
import { sizesFor, withSizes } from '../wgsl/sizes.ts';
import { emitEpilogue, epilogueWidth } from './epilogue.ts';
import type { Epilogue, KernelSource, MatrixView } from './kernel.ts';
import { elementTypes, epilogueBytes, epilogueTypes } from './precision.ts';

export interface PointwiseSpec {
  /** An expression over operands only. */
  epilogue: Epilogue;
  out: MatrixView;
}

/**
 * out[r, c] = expr(operands[r, c])
 *
 * One invocation computes four neighbouring columns where every row allows it, else one. Arithmetic is f32; an f16
 * output saturates. Bindings: the operands except the in-place one, then the output.
 *
 * @throws KontextError `program-invalid` when the expression mentions `acc`: no kernel computes one here
 */
export function pointwise(spec: PointwiseSpec, target: TargetProfile): KernelSource {
  const { epilogue, out } = spec;
  if (mentionsAcc(epilogue.expr)) {
    throw new KontextError('program-invalid', 'A pointwise expression reads operands only; replace acc by an operand.');
  }
  const { enable, features } = elementTypes('pointwise', epilogueTypes(epilogue, out), target);
  const width = epilogueWidth(epilogue, out);
  const sizes = sizesFor(target);
  const emitted = emitEpilogue(epilogue, out, 0, width, sizes);
  const columns = out.cols / width;
  const grid = flatGrid(out.rows * columns, target, sizes);
  const perRow = sizes.of('columns', columns);
  const wgsl = `${enable}${emitted.declarations}
${grid.open}
let row = item / ${perRow};
let col = (item % ${perRow}) * ${width}u;
${emitted.store('row', 'col', width === 4 ? 'vec4<f32>(0.0)' : '0.0')}
}
`;
  const made: KernelSource = {
    label: `pointwise ${out.type} ${out.rows}×${out.cols}`,
    wgsl,
    bindings: emitted.bindings,
    workgroups: grid.workgroups,
    flops: opCount(epilogue.expr) * out.rows * out.cols,
    bytes: epilogueBytes(epilogue, out),
    needs: { features, invocations: grid.invocations, workgroupBytes: 0 },
  };
  return withSizes(made, sizes);
}

const mentionsAcc = (e: Expr): boolean =>
  e.op === 'acc' || ('a' in e && mentionsAcc(e.a)) || ('b' in e && mentionsAcc(e.b));
