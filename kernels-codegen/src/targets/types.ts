// A target profile: everything a kernel chooser may know about a GPU.
// Choosers take a profile, never a device: the same text is generated here, in the page and on a build server.

import type { SubgroupMatrixConfig } from '../../../runtime/src/program/types.ts';
import type { TunedSchedules } from '../tune/tuned.ts';

/**
 * Kernel variants by what the device offers, each a superset of the one before:
 * `f32` WebGPU's baseline; `f16` f16 storage of matmul operands, f32 accumulation; `subgroups` adds subgroup
 * operations; `subgroup-matrix` adds the device's matrix instructions.
 */
export type Tier = 'f32' | 'f16' | 'subgroups' | 'subgroup-matrix';

/** The limits the generator reads; names and units are WebGPU's. */
export interface TargetLimits {
  maxStorageBufferBindingSize: number;
  maxBufferSize: number;
  maxStorageBuffersPerShaderStage: number;
  maxComputeWorkgroupStorageSize: number;
  maxComputeInvocationsPerWorkgroup: number;
  maxComputeWorkgroupSizeX: number;
  maxComputeWorkgroupsPerDimension: number;
}

export interface TargetProfile {
  name: string;
  tier: Tier;
  limits: TargetLimits;
  /**
   * The adapter runs on the CPU: compiling a shader costs more than running it, workgroup memory saves nothing. Its kernels
   * are `direct` ones whatever the tier.
   */
  software?: true;
  /** Reading an f16 value for f32 arithmetic takes an instruction of its own (Adreno): without matrices, tiles are widened when they are staged. */
  wideTiles?: true;
  /**
   * f16 products come in pairs, twice as fast as f32's (AMD, Intel, Qualcomm): layers that may have it (`kernels/packed.ts`) sum them 16 at a time in f16.
   * `false` forbids it; left out, only `kontext tune` may choose it.
   */
  packedSums?: boolean;
  /** Multiprocessors or compute units: fewer than two workgroups for each leave some idle. WebGPU does not tell; 32 where nobody has said. */
  units?: number;
  /** Range of `subgroup_size`; present when the tier uses subgroups, and on software adapters that have them, whatever the precision. */
  subgroupSize?: { min: number; max: number };
  /** The device has a range of sizes: kernels ask for `subgroupSize.max` with `@subgroup_size`, and min is the same. */
  fixedSubgroupSize?: true;
  /** Matrix shapes of the device; present when the tier is `subgroup-matrix`. */
  subgroupMatrix?: SubgroupMatrixConfig[];
  /** Schedules measured best on this device, as `kontext tune` finds them. */
  tuned?: TunedSchedules;
}

/** True when `target` may use what `tier` adds. */
export function hasTier(target: Pick<TargetProfile, 'tier'>, tier: Tier): boolean {
  const order: Tier[] = ['f32', 'f16', 'subgroups', 'subgroup-matrix'];
  return order.indexOf(target.tier) >= order.indexOf(tier);
}

export const unitsOf = (target: TargetProfile): number => target.units ?? 32;

/** WebGPU's default limits: what every conforming device has. */
export const BASELINE_LIMITS: TargetLimits = {
  maxStorageBufferBindingSize: 128 * 2 ** 20,
  maxBufferSize: 256 * 2 ** 20,
  maxStorageBuffersPerShaderStage: 8,
  maxComputeWorkgroupStorageSize: 16384,
  maxComputeInvocationsPerWorkgroup: 256,
  maxComputeWorkgroupSizeX: 256,
  maxComputeWorkgroupsPerDimension: 65535,
};
