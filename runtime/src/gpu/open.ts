// Opens a GPU device: Dawn in Node, `navigator.gpu` in browsers and Deno.
// One place asks for features and limits, so that every other part can take the device as it is.

import { KontextError } from '../errors.ts';
import { refusedPermission } from '../permission.ts';
import type { Lack } from './advice.ts';
import { type Backend, KontextDevice } from './device.ts';
import { type AdapterReport, reportAdapter, USEFUL_FEATURES, USEFUL_LIMITS } from './report.ts';

/** Which GPU to open, and how. */
export interface OpenDeviceOptions {
  /** Part of the adapter's vendor, architecture, device or description, in any case. Dawn searches all adapters for it. */
  adapter?: string;
  /** Defaults to `high-performance`. */
  powerPreference?: 'low-power' | 'high-performance';
  /** Dawn only. `null` validates everything and computes nothing. */
  backend?: Backend;
  /**
   * Dawn only: drop bounds checks and the zeroing of workgroup memory. For programs of our own compiler, whose indices
   * are proven by construction; a foreign program could then read other memory of the process.
   */
  unchecked?: boolean;
  /** Dawn only: more toggles to enable, by Dawn's names. */
  dawnToggles?: string[];
  /**
   * Milliseconds after which a GPU that does not come back is given up as hung (`device-lost`, with the dispatch it was in), beyond a
   * hundred times what the work was predicted to take; default 120,000.
   */
  hangMs?: number;
  /** Another WebGPU entry point (a `GPU`) than the platform's. The caller keeps it alive. */
  gpu?: GpuEntryPoint;
}

/** A `GPU` as far as an app's compiler must know it: most have no types of WebGPU. */
export interface GpuEntryPoint {
  /** As the platform's `GPU.requestAdapter`. */
  requestAdapter(options?: { powerPreference?: 'low-power' | 'high-performance' }): Promise<object | null>;
}

/**
 * A device with every useful feature and the highest limits that the adapter offers.
 *
 * @throws `webgpu-unavailable` when there is no WebGPU, no adapter, or none of the wanted name; says what to install
 */
export async function openDevice(options: OpenDeviceOptions = {}): Promise<KontextDevice> {
  return (await findAdapter(options)).open();
}

/** What the adapter that {@link openDevice} would choose offers, without keeping a device. */
export async function describeAdapter(options: OpenDeviceOptions = {}): Promise<AdapterReport> {
  return (await findAdapter(options)).report;
}

/** An adapter before its device is opened, for those who may refuse it. */
export interface FoundAdapter {
  report: AdapterReport;
  open(): Promise<KontextDevice>;
}

/** The first half of {@link openDevice}. @throws `webgpu-unavailable` */
export async function findAdapter(options: OpenDeviceOptions = {}): Promise<FoundAdapter> {
  const gpu = await entryPoint(options);
  const adapter = await requestAdapter(gpu, options);
  return {
    report: reportAdapter(adapter),
    async open() {
      const device = await requestDevice(adapter);
      return new KontextDevice(device, reportAdapter(adapter, device), options.backend, isDawn(gpu), options.hangMs);
    },
  };
}

async function requestDevice(adapter: GPUAdapter): Promise<GPUDevice> {
  const features = USEFUL_FEATURES.filter((name) => adapter.features.has(name));
  const requiredLimits: Record<string, number> = {};
  for (const name of USEFUL_LIMITS) {
    const value = adapter.limits[name];
    if (value !== undefined) requiredLimits[name] = value;
  }
  try {
    return await adapter.requestDevice({
      label: 'kontext',
      requiredFeatures: features as Iterable<GPUFeatureName>,
      requiredLimits,
    });
  } catch (cause) {
    throw new KontextError(
      'webgpu-unavailable',
      `The GPU adapter gave no device: ${(cause as Error).message}`,
      {},
      { cause },
    );
  }
}

// Dawn crashes or hangs when the object of create() is collected while a device lives (7 of 7 runs), and a device's
// wrapper can outlive our last reference to it; so an instance for each set of flags is kept as long as the process.
const dawnInstances = new Map<string, GPU>();

const isDawn = (gpu: GPU): boolean => [...dawnInstances.values()].includes(gpu);

async function entryPoint(options: OpenDeviceOptions): Promise<GPU> {
  if (options.gpu) return options.gpu as GPU;
  const platform = (globalThis as { navigator?: { gpu?: GPU } }).navigator?.gpu;
  if (platform && !options.backend) return platform;
  if (isPage()) throw await forVisitors('webgpu');
  const flags = dawnFlags(options);
  const key = flags.join(' ');
  let instance = dawnInstances.get(key);
  if (!instance) {
    instance = (await importDawn()).create(flags);
    dawnInstances.set(key, instance);
  }
  return instance;
}

/** In Node and Deno the reader administers the machine; in a page a visitor does not. */
const isPage = (): boolean => typeof process === 'undefined' || !process.versions?.node;

async function forVisitors(lack: Lack, cause?: unknown): Promise<KontextError> {
  const { pageFacts, visitorAdvice } = await import('./advice.ts');
  return new KontextError('webgpu-unavailable', visitorAdvice(lack, pageFacts()), { lack }, { cause });
}

async function importDawn(): Promise<{ create(flags: string[]): GPU }> {
  // A variable keeps bundlers for the browser from resolving the optional package.
  const name = 'webgpu';
  try {
    return (await import(/* @vite-ignore */ name)) as { create(flags: string[]): GPU };
  } catch (cause) {
    const refused = refusedPermission(cause);
    const inDeno = 'Deno' in globalThis ? ' Or use the one of Deno itself: deno run --unstable-webgpu' : '';
    throw new KontextError(
      'webgpu-unavailable',
      refused
        ? `WebGPU's package "webgpu" (Dawn) cannot be loaded. ${refused}`
        : `WebGPU in Node needs the package "webgpu" (Dawn). Run: npm install webgpu${inDeno}`,
      {},
      { cause },
    );
  }
}

function dawnFlags(options: OpenDeviceOptions): string[] {
  // allow_unsafe_apis: subgroup matrices. vulkan_enable_f16_on_nvidia: Dawn hides shader-f16 there without it.
  const enable = ['allow_unsafe_apis', 'vulkan_enable_f16_on_nvidia', ...(options.dawnToggles ?? [])];
  if (options.unchecked) {
    enable.push('disable_robustness', 'vulkan_use_cooperative_matrix_robust_access', 'disable_workgroup_init');
  }
  // Timestamps come in steps of 100 µs otherwise, longer than most dispatches.
  const flags = [`enable-dawn-features=${enable.join(',')}`, 'disable-dawn-features=timestamp_quantization'];
  if (options.backend) flags.push(`backend=${options.backend}`);
  if (options.adapter) flags.push(`adapter=${options.adapter}`);
  return flags;
}

async function requestAdapter(gpu: GPU, options: OpenDeviceOptions): Promise<GPUAdapter> {
  let cause: unknown;
  const adapter = await gpu
    .requestAdapter({ powerPreference: options.powerPreference ?? 'high-performance' })
    .catch((error: unknown) => {
      cause = error;
      return null;
    });
  if (!adapter) {
    if (isPage()) throw await forVisitors('adapter', cause);
    const wanted = options.adapter ? ` named like "${options.adapter}"` : '';
    throw new KontextError(
      'webgpu-unavailable',
      `No GPU adapter${wanted} was found. On Linux install a Vulkan driver (Debian, Ubuntu: apt install mesa-vulkan-drivers; ` +
        'NVIDIA: the proprietary driver with libvulkan1); on other systems update the graphics driver.' +
        (cause instanceof Error ? ` The system said: ${cause.message}` : ''),
      {},
      { cause },
    );
  }
  // Dawn has picked by a name of its own, which need not be in these fields.
  if (!options.adapter || isDawn(gpu)) return adapter;
  const { vendor, architecture, device, description } = adapter.info;
  const name = [vendor, architecture, device, description].join(' ');
  if (!name.toLowerCase().includes(options.adapter.toLowerCase())) {
    throw new KontextError(
      'webgpu-unavailable',
      `No GPU adapter named like "${options.adapter}" was found; the system offers "${name.trim()}".`,
      { found: name.trim() },
    );
  }
  return adapter;
}
