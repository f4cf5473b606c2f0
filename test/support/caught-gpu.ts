// Dawn as an entry point whose devices a test can take away, as a driver would.
import { create } from 'webgpu';

export interface CaughtGpu {
  gpu: GPU;
  /** Destroys the device that was made last. */
  lose(): void;
  /** That device, while it lives. */
  device(): GPUDevice | undefined;
}

const kept: GPU[] = [];

/** The devices are held weakly: whether they go away is what some tests are about. */
export function caughtGpu(): CaughtGpu {
  const dawn = create([]);
  // Dawn crashes when this is collected while a device lives.
  kept.push(dawn);
  let last: WeakRef<GPUDevice> | undefined;
  const gpu = {
    requestAdapter: async (options?: GPURequestAdapterOptions) => {
      const adapter = await dawn.requestAdapter(options);
      if (!adapter) return null;
      const requestDevice = adapter.requestDevice.bind(adapter);
      adapter.requestDevice = async (descriptor) => {
        const device = await requestDevice(descriptor);
        last = new WeakRef(device);
        return device;
      };
      return adapter;
    },
  } as GPU;
  return { gpu, lose: () => last?.deref()?.destroy(), device: () => last?.deref() };
}
