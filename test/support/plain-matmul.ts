// The rival in the matmul bench: the 16×16-tile matmul every WGSL tutorial arrives at, f32 throughout.
// Written to be fair, not slow: tiles in workgroup memory, no bounds checks where the shape needs none.

import type { KernelSource } from '../../kernels-codegen/src/kernels/kernel.ts';

/** y[m, n] = Σₖ a[m, k] · b[n, k]; bindings a, b, y, all f32. `m`, `n` and `k` must be multiples of 16. */
export function plainMatmul(m: number, n: number, k: number): KernelSource {
  return {
    label: 'plain 16×16 tiles f32',
    wgsl: `@group(0) @binding(0) var<storage, read> a: array<f32, ${m * k}>;
@group(0) @binding(1) var<storage, read> b: array<f32, ${n * k}>;
@group(0) @binding(2) var<storage, read_write> y: array<f32, ${m * n}>;
var<workgroup> tileA: array<f32, 256>;
var<workgroup> tileB: array<f32, 256>;

@compute @workgroup_size(16, 16)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_id) thread: vec3<u32>) {
  let row = group.y * 16u + thread.y;
  let col = group.x * 16u + thread.x;
  var sum = 0.0;
  for (var t = 0u; t < ${k}u; t += 16u) {
    tileA[thread.y * 16u + thread.x] = a[row * ${k}u + t + thread.x];
    tileB[thread.x * 16u + thread.y] = b[(group.x * 16u + thread.y) * ${k}u + t + thread.x];
    workgroupBarrier();
    for (var i = 0u; i < 16u; i++) {
      sum += tileA[thread.y * 16u + i] * tileB[i * 16u + thread.x];
    }
    workgroupBarrier();
  }
  y[row * ${n}u + col] = sum;
}
`,
    bindings: ['read', 'read', 'read_write'],
    workgroups: [n / 16, m / 16, 1],
    flops: 2 * m * n * k,
    bytes: 4 * (m * k + n * k + m * n),
    needs: { invocations: 256, workgroupBytes: 2048 },
  };
}
