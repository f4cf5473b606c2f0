// Known targets, for compiling without the device at hand, and the profile of a device that is at hand.
// Limits are what the drivers report to WebGPU (gpuweb/gpuinfo-style reports, Dawn's own table), rounded down to common values.

import { KontextError } from '../../../runtime/src/errors.ts';
import type { SubgroupMatrixConfig } from '../../../runtime/src/program/types.ts';
import { BASELINE_LIMITS, hasTier, type TargetLimits, type TargetProfile, type Tier } from './types.ts';

const MiB = 2 ** 20;

const limits = (bindingMiB: number, o: Partial<TargetLimits> = {}): TargetLimits => ({
  ...BASELINE_LIMITS,
  maxStorageBufferBindingSize: bindingMiB * MiB - (bindingMiB >= 2048 ? 4 : 0),
  maxBufferSize: Math.max(256, bindingMiB) * MiB,
  ...o,
});

const matrix = (m: number, n: number, k: number, componentType: 'f32' | 'f16', resultType: 'f32' | 'f16') =>
  ({ m, n, k, componentType, resultType }) satisfies SubgroupMatrixConfig;

/** Desktop limits of Dawn's tiers: 32 KiB workgroup memory, 1024 invocations, 10 storage buffers. */
const DESKTOP: Partial<TargetLimits> = {
  maxStorageBuffersPerShaderStage: 10,
  maxComputeWorkgroupStorageSize: 32768,
  maxComputeInvocationsPerWorkgroup: 1024,
  maxComputeWorkgroupSizeX: 1024,
};

/**
 * Units of the largest common cards: RTX 4090 and H100 have 128 and 132 multiprocessors, an RX 7900 XTX 96 compute units. A smaller card gets tiles
 * that are a little small where a product has few rows, and is no slower where it has many.
 */
const UNITS = { nvidia: 128, amd: 96 };

/** Profiles to compile for ahead of time, by name. */
export const TARGETS: readonly TargetProfile[] = [
  { name: 'baseline', tier: 'f32', limits: BASELINE_LIMITS },
  { name: 'swiftshader', tier: 'f32', software: true, limits: limits(1024) },
  {
    name: 'lavapipe',
    tier: 'subgroups',
    software: true,
    limits: limits(128, { ...DESKTOP, maxBufferSize: 2048 * MiB }),
    subgroupSize: { min: 8, max: 8 },
  },
  {
    name: 'lavapipe-matrix',
    tier: 'subgroup-matrix',
    software: true,
    limits: limits(128, { ...DESKTOP, maxBufferSize: 2048 * MiB }),
    subgroupSize: { min: 8, max: 8 },
    subgroupMatrix: [matrix(8, 8, 8, 'f16', 'f32'), matrix(8, 8, 8, 'f16', 'f16')],
  },
  {
    name: 'apple-m',
    tier: 'subgroups',
    limits: limits(4096, { ...DESKTOP, maxBufferSize: 4096 * MiB }),
    subgroupSize: { min: 4, max: 64 },
  },
  {
    name: 'apple-m-matrix',
    tier: 'subgroup-matrix',
    limits: limits(4096, { ...DESKTOP, maxBufferSize: 4096 * MiB }),
    subgroupSize: { min: 32, max: 32 },
    subgroupMatrix: [matrix(8, 8, 8, 'f16', 'f16'), matrix(8, 8, 8, 'f32', 'f32')],
  },
  {
    name: 'nvidia',
    units: UNITS.nvidia,
    tier: 'subgroups',
    limits: limits(2048, { ...DESKTOP, maxComputeWorkgroupStorageSize: 49152, maxBufferSize: 4096 * MiB }),
    subgroupSize: { min: 32, max: 32 },
  },
  {
    name: 'nvidia-matrix',
    units: UNITS.nvidia,
    tier: 'subgroup-matrix',
    limits: limits(2048, { ...DESKTOP, maxComputeWorkgroupStorageSize: 49152, maxBufferSize: 4096 * MiB }),
    subgroupSize: { min: 32, max: 32 },
    subgroupMatrix: [
      matrix(16, 16, 16, 'f16', 'f32'),
      matrix(16, 8, 16, 'f16', 'f32'),
      matrix(16, 16, 16, 'f16', 'f16'),
      matrix(16, 8, 16, 'f16', 'f16'),
    ],
  },
  {
    name: 'nvidia-f32',
    units: UNITS.nvidia,
    tier: 'f32',
    limits: limits(2048, { ...DESKTOP, maxBufferSize: 4096 * MiB }),
  },
  {
    name: 'intel-xe',
    packedSums: true,
    tier: 'subgroups',
    limits: limits(2048, { ...DESKTOP, maxBufferSize: 4096 * MiB }),
    subgroupSize: { min: 8, max: 32 },
  },
  {
    name: 'amd-rdna',
    packedSums: true,
    units: UNITS.amd,
    tier: 'subgroups',
    limits: limits(2048, { ...DESKTOP, maxBufferSize: 2048 * MiB }),
    subgroupSize: { min: 32, max: 64 },
  },
  // With matrices, where the browser or Node offers them: `@subgroup_size` picks one of the range. Shapes are what drivers list.
  {
    name: 'intel-xe-matrix',
    packedSums: true,
    tier: 'subgroup-matrix',
    limits: limits(2048, { ...DESKTOP, maxBufferSize: 4096 * MiB }),
    subgroupSize: { min: 16, max: 16 },
    fixedSubgroupSize: true,
    subgroupMatrix: [matrix(8, 16, 16, 'f16', 'f32')],
  },
  ...['amd-rdna3', 'amd-rdna4'].map(
    (name): TargetProfile => ({
      name,
      packedSums: true,
      units: UNITS.amd,
      tier: 'subgroup-matrix',
      limits: limits(2048, { ...DESKTOP, maxBufferSize: 2048 * MiB }),
      subgroupSize: { min: 32, max: 32 },
      fixedSubgroupSize: true,
      subgroupMatrix: [matrix(16, 16, 16, 'f16', 'f32'), matrix(16, 16, 16, 'f16', 'f16')],
    }),
  ),
  // Phones: the lowest of each family in use. Subgroups are left out, because their sizes change from one generation to the
  // next; a probe of the phone at hand gives more. Mali's 512 invocations fall to 256 in Dawn's steps.
  {
    name: 'adreno',
    tier: 'f16',
    wideTiles: true,
    packedSums: true,
    limits: limits(128, {
      maxComputeWorkgroupStorageSize: 32768,
      maxComputeInvocationsPerWorkgroup: 1024,
      maxComputeWorkgroupSizeX: 1024,
    }),
  },
  { name: 'mali', tier: 'f16', limits: limits(256, { maxComputeWorkgroupStorageSize: 32768 }) },
];

/** @throws KontextError `invalid-request` naming the known targets */
export function targetByName(name: string): TargetProfile {
  const found = TARGETS.find((t) => t.name === name);
  if (found) return found;
  const names = TARGETS.map((t) => t.name).join(', ');
  throw new KontextError('invalid-request', `Unknown target "${name}". Known targets: ${names}.`, { name });
}

/** What {@link targetFor} needs to know of a device; the runtime's adapter report has it. */
export interface DeviceFacts {
  vendor: string;
  architecture: string;
  /** A CPU pretending to be a GPU: lavapipe, SwiftShader, WARP. */
  isFallbackAdapter: boolean;
  features: readonly string[];
  limits: Readonly<Record<string, number>>;
  subgroupSize?: { min: number; max: number };
  subgroupMatrixConfigs: readonly SubgroupMatrixConfig[];
}

/**
 * The profile of a device: the highest tier it offers, or tier f32 when `precision` asks for that.
 * @param precision `f16` insists on f16 operands, `auto` takes them where offered
 * @param highest do not go above this tier
 * @throws KontextError `feature-missing` when f16 is insisted on and not there
 */
export function targetFor(
  device: DeviceFacts,
  precision: 'auto' | 'f32' | 'f16' = 'auto',
  highest: Tier = 'subgroup-matrix',
): TargetProfile {
  const known = (Object.keys(BASELINE_LIMITS) as (keyof TargetLimits)[]).map((name) => [
    name,
    device.limits[name] ?? BASELINE_LIMITS[name],
  ]);
  const profile = {
    name: nameOf(device),
    // Not by name: Dawn and Chrome tell the driver's, wgpu (Deno, Firefox) leaves the architecture empty.
    ...(device.isFallbackAdapter ? { software: true as const } : {}),
    ...(device.vendor === 'qualcomm' ? { wideTiles: true as const } : {}),
    ...(packsHalves(device) ? { packedSums: true } : {}),
    ...(Object.hasOwn(UNITS, device.vendor) ? { units: UNITS[device.vendor as keyof typeof UNITS] } : {}),
    limits: Object.fromEntries(known) as unknown as TargetLimits,
  };
  const has = (feature: string): boolean => device.features.includes(feature);
  if (precision === 'f16' && !has('shader-f16')) {
    throw new KontextError(
      'feature-missing',
      'Precision f16 needs the WebGPU feature "shader-f16", which this device does not offer; use precision "auto" or "f32".',
      { feature: 'shader-f16' },
    );
  }
  const { subgroupSize } = device;
  if (precision === 'f32' || highest === 'f32' || !has('shader-f16')) {
    const lanes =
      profile.software && hasTier({ tier: highest }, 'subgroups') && has('subgroups') ? subgroupSize : undefined;
    return { ...profile, tier: 'f32', ...(lanes ? { subgroupSize: lanes } : {}) };
  }
  if (highest === 'f16' || !has('subgroups') || !subgroupSize) return { ...profile, tier: 'f16' };
  const usable = device.subgroupMatrixConfigs.filter((c) => c.componentType === 'f16' && c.resultType === 'f32');
  const matrices = highest === 'subgroup-matrix' && has('chromium-experimental-subgroup-matrix') && usable.length > 0;
  const subgroupMatrix = [...device.subgroupMatrixConfigs];
  if (matrices && subgroupSize.min === subgroupSize.max) {
    return { ...profile, tier: 'subgroup-matrix', subgroupSize, subgroupMatrix };
  }
  const size = matrixSubgroupSize(device);
  if (!matrices || !size || !has('subgroup-size-control')) return { ...profile, tier: 'subgroups', subgroupSize };
  const fixed = { subgroupSize: { min: size, max: size }, fixedSubgroupSize: true as const };
  return { ...profile, tier: 'subgroup-matrix', ...fixed, subgroupMatrix };
}

/** Families that do two f16 products in the time of one in f32: all of Intel's, Qualcomm's, and AMD's from Vega on. */
const packsHalves = ({ vendor, architecture }: DeviceFacts): boolean =>
  vendor === 'intel' || vendor === 'qualcomm' || (vendor === 'amd' && !/^gcn-[1-4]$/.test(architecture));

/**
 * The subgroup size to ask for where a device has a range: matrices are spread over one size only. AMD's matrix
 * instructions are those of 32 lanes, Intel's of 16 (Xe2) or 8 (Xe); others have had no range so far.
 */
function matrixSubgroupSize({ vendor, subgroupSize }: DeviceFacts): number | undefined {
  const wanted = vendor === 'intel' ? [16, 8] : [32];
  return wanted.find((size) => subgroupSize && subgroupSize.min <= size && size <= subgroupSize.max);
}

function nameOf(device: DeviceFacts): string {
  return [device.vendor, device.architecture].filter(Boolean).join('-') || 'device';
}
