// What a kernel that uses subgroups declares: extensions, features, and the size where the target fixes one.
// Drivers with a range of sizes (AMD, Intel) pick one for each shader unless the shader says which.

import type { TargetProfile } from '../targets/types.ts';

/** `enable` directives. */
export const subgroupEnables = (target: TargetProfile): string =>
  target.fixedSubgroupSize ? 'enable subgroups;\nenable subgroup_size_control;\n' : 'enable subgroups;\n';

/** Attribute of the entry point, with a blank behind it, or nothing. */
export const subgroupSizeAttribute = (target: TargetProfile): string =>
  target.fixedSubgroupSize ? `@subgroup_size(${target.subgroupSize!.max}) ` : '';

export const subgroupFeatures = (target: TargetProfile): string[] =>
  target.fixedSubgroupSize ? ['subgroup-size-control', 'subgroups'] : ['subgroups'];

/**
 * Threads of a workgroup that is one whole subgroup of a CPU's driver, where its size is known: what they read one each, a broadcast gives to all.
 * Undefined for GPUs, and where the device has no subgroups.
 */
export function lanesOf({ software, subgroupSize }: TargetProfile): number | undefined {
  return software && subgroupSize && subgroupSize.min === subgroupSize.max ? subgroupSize.max : undefined;
}
