// What is made on a WebGPU device while a test runs: buffers that live, and shaders, counted at the device itself.
export interface Watched {
  /** Buffers made since watching began and not destroyed, and their bytes. */
  live(): { buffers: number; bytes: number };
  /** Shader modules made since watching began. */
  shaders(): number;
}

/** Counts from now on. */
export function watchDevice(device: GPUDevice): Watched {
  const sizes = new Map<GPUBuffer, number>();
  let shaders = 0;
  const createBuffer = device.createBuffer.bind(device);
  device.createBuffer = (descriptor) => {
    const buffer = createBuffer(descriptor);
    sizes.set(buffer, descriptor.size);
    const destroy = buffer.destroy.bind(buffer);
    buffer.destroy = () => {
      sizes.delete(buffer);
      return destroy();
    };
    return buffer;
  };
  const createShaderModule = device.createShaderModule.bind(device);
  device.createShaderModule = (descriptor) => {
    shaders++;
    return createShaderModule(descriptor);
  };
  return {
    live: () => ({ buffers: sizes.size, bytes: [...sizes.values()].reduce((sum, size) => sum + size, 0) }),
    shaders: () => shaders,
  };
}
