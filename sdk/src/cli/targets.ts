// `kontext targets`: the GPUs programs can be compiled for, and the profile of the one at hand.
// A printed profile is a file to commit; `kontext compile --target FILE.json` compiles for it elsewhere.
import { readFile } from 'node:fs/promises';
import type { TargetProfile } from '../../../kernels-codegen/src/targets/types.ts';
import { describeAdapter } from '../../../runtime/src/gpu/open.ts';
import { justInTime } from '../kontext/programs.ts';
import { usage } from './arguments.ts';

/** @throws KontextError `webgpu-unavailable` with `--probe` and no GPU */
export async function targetsCommand(args: readonly string[]): Promise<void> {
  const unknown = args.find((arg) => arg !== '--probe');
  if (unknown !== undefined) throw usage(`kontext targets takes only --probe, but got "${unknown}".`);
  if (args.includes('--probe')) {
    console.log(JSON.stringify(await thisTarget(), undefined, 2));
    return;
  }
  const { TARGETS } = await import('../../../kernels-codegen/src/targets/profiles.ts');
  console.log('name             tier             binding    buffer  workgroup  subgroups');
  for (const { name, tier, limits, subgroupSize } of TARGETS) {
    const mib = (bytes: number) => `${Math.ceil(bytes / 2 ** 20)} MiB`.padStart(9);
    const workgroup = `${limits.maxComputeWorkgroupStorageSize / 1024} KiB`.padStart(10);
    const subgroups = subgroupSize ? `${subgroupSize.min} to ${subgroupSize.max}` : '';
    console.log(
      `${name.padEnd(16)} ${tier.padEnd(15)} ${mib(limits.maxStorageBufferBindingSize)} ${mib(limits.maxBufferSize)} ${workgroup}  ${subgroups}`.trimEnd(),
    );
  }
}

/** A known name, `this` for the adapter at hand, or a file that `kontext targets --probe` printed. */
export async function resolveTarget(name: string): Promise<TargetProfile> {
  if (name === 'this') return thisTarget();
  const { targetByName } = await import('../../../kernels-codegen/src/targets/profiles.ts');
  if (!name.endsWith('.json')) return targetByName(name);
  const text = await readFile(name, 'utf8').catch((cause: Error) => {
    throw usage(`The target file ${name} cannot be read: ${cause.message}.`);
  });
  try {
    const profile = JSON.parse(text) as TargetProfile;
    const limits = Object.keys(targetByName('baseline').limits) as (keyof TargetProfile['limits'])[];
    if (typeof profile.name !== 'string' || typeof profile.tier !== 'string') throw new Error('no name or tier');
    const missing = limits.find((limit) => typeof profile.limits?.[limit] !== 'number');
    if (missing) throw new Error(`no limit ${missing}`);
    return profile;
  } catch (cause) {
    throw usage(`${name} is no target profile (${(cause as Error).message}); print one with kontext targets --probe.`);
  }
}

async function thisTarget(): Promise<TargetProfile> {
  return justInTime().target(await describeAdapter(), 'auto');
}
