// `kontext targets`: the GPUs programs can be compiled for, and the profile of the one at hand.
// A printed profile is a file to commit; `kontext compile --target FILE.json` compiles for it elsewhere.
import { readFile } from 'node:fs/promises';
import type { TargetProfile } from '../../../../kernels-codegen/src/targets/types.ts';
import { describeAdapter } from '../../../../runtime/src/gpu/open.ts';
import type { AdapterReport } from '../../../../runtime/src/gpu/report.ts';
import { justInTime } from '../../kontext/programs.ts';
import { defineCommand, usage } from '../grammar.ts';

export const targets = defineCommand({
  summary: 'List the GPUs programs can be compiled for, or print the profile of the one at hand.',
  usage: ['[--probe [--profile FILE]]'],
  examples: ['kontext targets', 'kontext targets --probe > this-gpu.json'],
  flags: {
    probe: { help: 'print the profile of this machine’s GPU as JSON, for kontext compile --target' },
    profile: { value: 'FILE', help: 'put in what kontext tune measured on it' },
  },
  /** @throws KontextError `webgpu-unavailable` with `--probe` and no GPU */
  async run({ values, words }) {
    if (words.length > 0) throw usage(`kontext targets takes only --probe, but got "${words[0]}".`);
    if (values.probe) {
      console.log(JSON.stringify(await resolveTarget('this', values.profile), undefined, 2));
      return;
    }
    if (values.profile !== undefined) throw usage('--profile goes with --probe.');
    const { TARGETS } = await import('../../../../kernels-codegen/src/targets/profiles.ts');
    console.log('name             tier             binding    buffer  workgroup  subgroups');
    for (const { name, tier, limits, subgroupSize } of TARGETS) {
      const mib = (bytes: number) => `${Math.ceil(bytes / 2 ** 20)} MiB`.padStart(9);
      const workgroup = `${limits.maxComputeWorkgroupStorageSize / 1024} KiB`.padStart(10);
      const subgroups = subgroupSize ? `${subgroupSize.min} to ${subgroupSize.max}` : '';
      console.log(
        `${name.padEnd(16)} ${tier.padEnd(15)} ${mib(limits.maxStorageBufferBindingSize)} ${mib(limits.maxBufferSize)} ${workgroup}  ${subgroups}`.trimEnd(),
      );
    }
  },
});

/**
 * A known name, `this` for the adapter at hand, or a JSON file: a profile that `kontext targets --probe` printed, or an
 * adapter report as `kontext.adapter` gives it in a page, where a browser may offer less than the driver does.
 *
 * @param profile file of `kontext tune` with schedules for the target
 * @throws KontextError `invalid-request` saying what is wrong with the name or a file
 */
export async function resolveTarget(name: string, profile?: string): Promise<TargetProfile> {
  if (profile === undefined) return untuned(name);
  const { openTuning, tunedTarget } = await import('../../tune/profile.ts');
  const measured = await openTuning(profile);
  // A target by name has no adapter to compare with: whoever names both says that they belong together.
  return tunedTarget(await untuned(name), measured, name === 'this' ? await describeAdapter() : measured.adapter);
}

async function untuned(name: string): Promise<TargetProfile> {
  if (name === 'this') return thisTarget();
  const { targetByName } = await import('../../../../kernels-codegen/src/targets/profiles.ts');
  if (!name.endsWith('.json')) return targetByName(name);
  const text = await readFile(name, 'utf8').catch((cause: Error) => {
    throw usage(`The target file ${name} cannot be read: ${cause.message}.`);
  });
  try {
    const content = JSON.parse(text) as Partial<TargetProfile & AdapterReport>;
    if (Array.isArray(content.features)) return await justInTime().target(content as AdapterReport, 'auto');
    const { checkTuned } = await import('../../tune/profile.ts');
    return checkProfile(content, targetByName('baseline').limits, checkTuned);
  } catch (cause) {
    throw usage(`${name} is no target profile (${(cause as Error).message}); print one with kontext targets --probe.`);
  }
}

/** A hand-edited profile fails here, not as a wrong kernel. */
function checkProfile(
  profile: Partial<TargetProfile>,
  known: TargetProfile['limits'],
  checkTuned: (tuned: unknown) => NonNullable<TargetProfile['tuned']>,
): TargetProfile {
  const { name, tier, limits, subgroupSize, subgroupMatrix, packedSums, tuned } = profile;
  const tiers = ['f32', 'f16', 'subgroups', 'subgroup-matrix'];
  if (typeof name !== 'string' || name === '') throw new Error('no name');
  if (!tiers.includes(tier!)) throw new Error(`tier ${JSON.stringify(tier)} is not one of ${tiers.join(', ')}`);
  for (const limit of Object.keys(known) as (keyof typeof known)[]) {
    if (!Number.isSafeInteger(limits?.[limit]) || limits![limit] < 1) throw new Error(`no limit ${limit}`);
  }
  const lanes = tiers.indexOf(tier!) >= 2;
  if (lanes && !(subgroupSize && subgroupSize.min >= 1 && subgroupSize.min <= subgroupSize.max))
    throw new Error(`tier ${tier} needs a subgroupSize`);
  if (tier === 'subgroup-matrix' && !subgroupMatrix?.length) throw new Error(`tier ${tier} needs subgroupMatrix`);
  if (packedSums !== undefined && typeof packedSums !== 'boolean')
    throw new Error('packedSums is neither true nor false');
  const { tuned: _, ...rest } = profile as TargetProfile;
  return tuned === undefined ? rest : { ...rest, tuned: checkTuned(tuned) };
}

async function thisTarget(): Promise<TargetProfile> {
  return justInTime().target(await describeAdapter(), 'auto');
}
