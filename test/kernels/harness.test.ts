// The kernel harness itself: a trivial kernel runs, and a broken one is reported with its text.
import { describe, expect, it } from 'vitest';
import type { KernelSource } from '../../kernels-codegen/src/kernels/kernel.ts';
import { openTestDevice, runKernel } from '../support/gpu.ts';

const double = (body: string): KernelSource => ({
  label: 'double',
  wgsl: `@group(0) @binding(0) var<storage, read> x: array<f32, 4>;
@group(0) @binding(1) var<storage, read_write> y: array<f32, 4>;
@compute @workgroup_size(4) fn main(@builtin(local_invocation_index) i: u32) { ${body} }`,
  bindings: ['read', 'read_write'],
  workgroups: [1, 1, 1],
  flops: 4,
  bytes: 32,
  needs: { invocations: 4, workgroupBytes: 0 },
});

describe('kernel harness', () => {
  it('runs a kernel and reads back what it wrote', async () => {
    const gpu = await openTestDevice();
    const out = await runKernel(gpu, double('y[i] = 2.0 * x[i];'), [
      Float32Array.of(1, 2, 3, 4.5),
      new Float32Array(4),
    ]);
    expect([...new Float32Array(out.get(1)!)]).toEqual([2, 4, 6, 9]);
  });

  it('names the line of a shader error', async () => {
    const gpu = await openTestDevice();
    await expect(
      runKernel(gpu, double('y[i] = nonsense;'), [new Float32Array(4), new Float32Array(4)]),
    ).rejects.toThrow(/nonsense/);
  });
});
