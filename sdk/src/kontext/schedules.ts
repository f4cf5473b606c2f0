// Which schedules the programs of a load get: the compiler's own, those of a profile, or those measured while the engine was idle.
import { KontextError } from '../../../runtime/src/errors.ts';
import type { OpenDeviceOptions } from '../../../runtime/src/gpu/open.ts';
import type { OpenedPrograms } from '../programs/sources.ts';
import type { BackgroundTuner } from '../tune/background.ts';
import type { LoadOptions } from './load-options.ts';

/** Programs, and who measures for the next load while the engine is idle. */
export type ScheduledPrograms = OpenedPrograms & { tuner?: BackgroundTuner };

/** Programs with measured schedules; what reads or finds those is loaded by who wants it. */
export async function withSchedules(
  programs: OpenedPrograms,
  { profile, tune, programs: given, access }: LoadOptions,
  device: OpenDeviceOptions,
  signal: AbortSignal | undefined,
): Promise<ScheduledPrograms> {
  if (profile === undefined && tune !== 'background') return programs;
  const option = profile === undefined ? 'tune' : 'profile';
  if (given !== undefined) {
    throw new KontextError(
      'invalid-request',
      `${option} is for programs compiled in this process: give a profile to kontext compile --profile instead, or leave programs out.`,
      { option },
    );
  }
  if (profile === undefined) {
    const { BackgroundTuner } = await import('../tune/background.ts');
    const tuner = await BackgroundTuner.create(device);
    return { ...programs, provider: tuner.programs(programs.provider), tuner };
  }
  if (tune === 'background') {
    throw new KontextError('invalid-request', 'Give a profile, or tune in the background; not both.', {
      option: 'tune',
    });
  }
  const { openTuning, tunedPrograms } = await import('../tune/profile.ts');
  return { ...programs, provider: tunedPrograms(programs.provider, await openTuning(profile, { access, signal })) };
}
