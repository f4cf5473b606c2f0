// What the kernel benches share: a kernel ready to be timed, and how far its result is off.

import type { KernelSource } from '../../kernels-codegen/src/kernels/kernel.ts';

/** Uploads once; the returned function runs the kernel and gives milliseconds until the queue is empty. */
export function timedKernel(
  device: GPUDevice,
  kernel: KernelSource,
  buffers: readonly ArrayBufferView[],
): () => Promise<number> {
  const module = device.createShaderModule({ code: kernel.wgsl, label: kernel.label });
  const pipeline = device.createComputePipeline({ layout: 'auto', compute: { module, entryPoint: 'main' } });
  const entries = [...buffers, ...(kernel.sizes ? [kernel.sizes] : [])].map((data, binding) => {
    const storageUniformAndCopyDestination = 0x80 | 0x40 | 0x08;
    const size = Math.ceil(data.byteLength / 16) * 16;
    const buffer = device.createBuffer({ size, usage: storageUniformAndCopyDestination });
    device.queue.writeBuffer(buffer, 0, data.buffer as ArrayBuffer, data.byteOffset, data.byteLength);
    return { binding, resource: { buffer } };
  });
  const group = device.createBindGroup({ layout: pipeline.getBindGroupLayout(0), entries });
  return async () => {
    const start = performance.now();
    const encoder = device.createCommandEncoder();
    const pass = encoder.beginComputePass();
    pass.setPipeline(pipeline);
    pass.setBindGroup(0, group);
    pass.dispatchWorkgroups(...kernel.workgroups);
    pass.end();
    device.queue.submit([encoder.finish()]);
    await device.queue.onSubmittedWorkDone();
    return performance.now() - start;
  };
}

/** Relative L2 error over the elements of `want`, the first of `got`. */
export function relativeError(got: ArrayLike<number>, want: ArrayLike<number>): number {
  let error = 0;
  let power = 0;
  for (let i = 0; i < want.length; i++) {
    error += (got[i]! - want[i]!) ** 2;
    power += want[i]! ** 2;
  }
  return Math.sqrt(error / power);
}
