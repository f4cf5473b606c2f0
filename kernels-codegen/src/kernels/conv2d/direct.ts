// The convolution for adapters that run on the CPU (lavapipe, SwiftShader): no workgroup memory, no barrier, little text.
// Split as the direct matmul, and for its reasons: pixels broadcast, weights gathered, each shared by several products.

import type { TargetProfile } from '../../targets/types.ts';
import { sizesFor, withSizes } from '../../wgsl/sizes.ts';
import { emitWeightLoader } from '../../wgsl/weights.ts';
import type { KernelSource } from '../kernel.ts';
import { DIRECT_COLUMNS, type DirectSchedule, directNeeds, splitDirect, sumRows } from '../matmul/direct.ts';
import { emitOutput } from '../matmul/output.ts';
import { subgroupEnables } from '../subgroups.ts';
import { emitConv2dInput } from './input.ts';
import { type Conv2dSpec, conv2dBytes, conv2dFlops, conv2dUsesF16, describeConv2d } from './spec.ts';

/**
 * A thread computes four neighbouring channels of `rows` neighbouring pixels; what lanes share is loaded as in the matmul. The loops end at bounds
 * the driver cannot know, by adding `group.z`, always 0: otherwise it unrolls nine taps times the channels. Products and sums are f32.
 */
export function directConv2d(spec: Conv2dSpec, target: TargetProfile, s: DirectSchedule): KernelSource {
  const { cin, cout: n, kernel } = spec;
  const m = spec.outHeight * spec.outWidth;
  const sizes = sizesFor(target, conv2dFlops(spec));
  const input = emitConv2dInput(spec, 'f32', 2, true, sizes);
  const inputs = spec.prologue ? 3 : 2;
  const weight = emitWeightLoader({
    ...spec.weight,
    binding: 1,
    name: 'weight',
    shaderF16: false,
    element: 'f32',
    sizes,
  });
  const output = emitOutput({ m, n, epilogue: spec.epilogue, out: spec.out }, inputs, sizes);
  const usesF16 = conv2dUsesF16(spec, target);
  const split = splitDirect(m, n, target, s, sizes);
  const each = <T>(count: number, f: (i: number) => T): T[] => Array.from({ length: count }, (_, i) => f(i));
  const wgsl = `${usesF16 ? 'enable f16;\n' : ''}${s.broadcast ? subgroupEnables(target) : ''}${input.declarations}
${weight.declarations}
${output.declarations}

${split.head}
${each(split.loads, (i) => `let r${i} = ${split.row(i)};\n${input.window(String(i), `r${i}`)}`).join('\n')}
${sumRows(
  s,
  split,
  (step) => `for (var tap = 0u; tap < ${kernel * kernel}u + group.z; tap++) {
let ky = i32(tap / ${kernel}u);
let kx = i32(tap % ${kernel}u);
for (var c = 0u; c < ${sizes.of('in_channels', cin)} + group.z; c += 4u) {
${step(
  (column) => weight.load(column, `tap * ${sizes.of('in_channels', cin)} + c`),
  (i) => input.load(`y${i} + ky`, `x${i} + kx`, 'c'),
)}
}
}`,
)}
${split.store(output)}
}
`;
  const made: KernelSource = {
    label: `conv2d direct ${s.rows}×${s.threads * DIRECT_COLUMNS} (${describeConv2d(spec)})`,
    wgsl,
    bindings: [...each(inputs, () => 'read' as const), ...output.bindings],
    workgroups: split.workgroups,
    flops: conv2dFlops(spec),
    bytes: conv2dBytes(spec),
    needs: directNeeds(target, s, usesF16),
  };
  return withSizes(made, sizes);
}
