// What a GPU offers, as plain data: for choosing a target, for `checkProgram`, for people.
// Also the list of what we ask of it, because what was not asked for is not there.

import type { SubgroupMatrixConfig } from '../program/types.ts';

/** Asked for when the adapter has them. */
export const USEFUL_FEATURES: readonly string[] = [
  'shader-f16',
  'subgroups',
  'subgroup-size-control',
  'timestamp-query',
  'chromium-experimental-subgroup-matrix',
];

/** Asked for at the adapter's value. The defaults (128 MiB bindings, 16 KiB workgroup memory) are too small for speed. */
export const USEFUL_LIMITS = [
  'maxBufferSize',
  'maxStorageBufferBindingSize',
  'maxUniformBufferBindingSize',
  'maxStorageBuffersPerShaderStage',
  'maxUniformBuffersPerShaderStage',
  'maxBindingsPerBindGroup',
  'maxComputeWorkgroupStorageSize',
  'maxComputeInvocationsPerWorkgroup',
  'maxComputeWorkgroupSizeX',
  'maxComputeWorkgroupSizeY',
  'maxComputeWorkgroupSizeZ',
  'maxComputeWorkgroupsPerDimension',
] as const satisfies readonly (keyof GPUSupportedLimits)[];

/** What a GPU is and offers: plain, printable, and what `checkProgram` compares a program's requirements with. */
export interface AdapterReport {
  /** As WebGPU's `GPUAdapterInfo.vendor`; browsers may leave it empty. */
  vendor: string;
  /** Family of GPUs, as `GPUAdapterInfo.architecture`. */
  architecture: string;
  /** As `GPUAdapterInfo.device`; empty in most browsers. */
  device: string;
  /** Readable name, as `GPUAdapterInfo.description`; empty in most browsers. */
  description: string;
  /** A CPU pretending to be a GPU. */
  isFallbackAdapter: boolean;
  /** Sorted. Of the device when there is one, else of the adapter. */
  features: string[];
  /** All limits by their WebGPU names; sizes in bytes. */
  limits: Record<string, number>;
  /** Invocations of a subgroup, powers of two; absent without the feature `subgroups`. */
  subgroupSize?: {
    /** The smallest that a pipeline may get. */
    min: number;
    /** The largest. */
    max: number;
  };
  /** Empty without the feature `chromium-experimental-subgroup-matrix`. */
  subgroupMatrixConfigs: SubgroupMatrixConfig[];
}

/** Dawn's extension of GPUAdapterInfo. */
interface DawnMatrixConfig {
  M: number;
  N: number;
  K: number;
  componentType: string;
  resultComponentType: string;
}

/** The report of an adapter, with the features and limits of `device` when that is given. */
export function reportAdapter(adapter: GPUAdapter, device?: GPUDevice): AdapterReport {
  const info = adapter.info as GPUAdapterInfo & { subgroupMatrixConfigs?: Iterable<DawnMatrixConfig> };
  const source = device ?? adapter;
  const limits: Record<string, number> = {};
  for (const name in source.limits) {
    const value = source.limits[name as keyof GPUSupportedLimits];
    if (typeof value === 'number') limits[name] = value;
  }
  const features = [...source.features].sort();
  const { subgroupMinSize: min, subgroupMaxSize: max } = info;
  return {
    vendor: info.vendor,
    architecture: info.architecture,
    device: info.device,
    description: info.description,
    isFallbackAdapter: info.isFallbackAdapter,
    features,
    limits,
    ...(features.includes('subgroups') && min && max ? { subgroupSize: { min, max } } : {}),
    subgroupMatrixConfigs: features.includes('chromium-experimental-subgroup-matrix')
      ? [...(info.subgroupMatrixConfigs ?? [])].flatMap(matrixConfig)
      : [],
  };
}

/** Integer shapes are left out: no kernel of ours multiplies integers. */
function matrixConfig(config: DawnMatrixConfig): SubgroupMatrixConfig[] {
  const { M, N, K, componentType, resultComponentType: resultType } = config;
  if (componentType !== 'f32' && componentType !== 'f16') return [];
  if (resultType !== 'f32' && resultType !== 'f16') return [];
  return [{ m: M, n: N, k: K, componentType, resultType }];
}
