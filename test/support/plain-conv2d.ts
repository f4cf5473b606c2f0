// A 3×3 convolution as a tutorial writes it: one invocation an output element, no tiles, no vectors.
// The benches' other side; also shows that both compute the same.

import type { Conv2dSpec } from '../../kernels-codegen/src/kernels/conv2d/index.ts';
import type { KernelSource } from '../../kernels-codegen/src/kernels/kernel.ts';

/** f32 image, weight and result; no prologue, no epilogue. */
export function plainConv2d(spec: Conv2dSpec): KernelSource {
  const { inHeight, inWidth, cin, outHeight, outWidth, cout, stride, upsample, padTop, padLeft } = spec;
  const total = outHeight * outWidth * cout;
  return {
    label: 'plain conv2d',
    wgsl: `@group(0) @binding(0) var<storage, read> x: array<f32, ${inHeight * inWidth * cin}>;
@group(0) @binding(1) var<storage, read> w: array<f32, ${cout * 9 * cin}>;
@group(0) @binding(2) var<storage, read_write> y: array<f32, ${total}>;
@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) thread: u32) {
  let i = (group.y * ${Math.min(65535, Math.ceil(total / 64))}u + group.x) * 64u + thread;
  if (i >= ${total}u) { return; }
  let n = i % ${cout}u;
  let oy = i32(i / ${cout * outWidth}u);
  let ox = i32(i / ${cout}u % ${outWidth}u);
  var sum = 0.0;
  for (var ky = 0; ky < 3; ky++) {
    for (var kx = 0; kx < 3; kx++) {
      let iy = oy * ${stride} + ky - ${padTop};
      let ix = ox * ${stride} + kx - ${padLeft};
      if (iy < 0 || ix < 0 || iy >= ${inHeight * upsample} || ix >= ${inWidth * upsample}) { continue; }
      let pixel = u32(iy / ${upsample} * ${inWidth} + ix / ${upsample}) * ${cin}u;
      let tap = (n * 9u + u32(ky * 3 + kx)) * ${cin}u;
      for (var c = 0u; c < ${cin}u; c++) { sum += x[pixel + c] * w[tap + c]; }
    }
  }
  y[i] = sum;
}
`,
    bindings: ['read', 'read', 'read_write'],
    workgroups: [Math.min(65535, Math.ceil(total / 64)), Math.ceil(total / 64 / 65535), 1],
    flops: total * 18 * cin,
    bytes: 4 * (inHeight * inWidth * cin + cout * 9 * cin + total),
    needs: { invocations: 64, workgroupBytes: 0 },
  };
}
