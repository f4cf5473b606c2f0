// The sigmas of a request: the model's own schedule, a named one with the model's shift, or the caller's.
import type { Host } from '../../host/module.ts';
import { type ScheduleOptions, sigmas } from '../../host/schedule.ts';
import type { CheckedRequest } from '../request.ts';

type ModelSchedule = Pick<ScheduleOptions, 'shift' | 'baseShift' | 'maxShift' | 'baseSeqLen' | 'maxSeqLen'>;

/**
 * @param imageTokens of the target: larger pictures need more of their steps at much noise
 * @returns falling, the last one 0
 */
export async function requestSigmas(
  host: Host,
  model: ModelSchedule,
  request: Pick<CheckedRequest, 'steps' | 'schedule' | 'sigmas'>,
  imageTokens: number,
): Promise<Float32Array> {
  const { steps, schedule, sigmas: own } = request;
  if (own) return sigmas(host, { ...model, sigmas: own, imageTokens });
  if (schedule === 'model') return sigmas(host, { ...model, steps, imageTokens });
  const { exponentialShift, namedSigmas } = await import('../../sampling/schedules.ts');
  return Float32Array.of(...namedSigmas(schedule, steps, exponentialShift(muOf(model, imageTokens))), 0);
}

/** The exponent of the model's shift. */
function muOf(model: ModelSchedule, imageTokens: number): number {
  const { shift = 'dynamic', baseShift = 0.5, maxShift = 1.15, baseSeqLen = 256, maxSeqLen = 4096 } = model;
  if (shift === 'none') return 0;
  if (shift !== 'dynamic') return 'mu' in shift ? shift.mu : Math.log(shift.static);
  const slope = (maxShift - baseShift) / (maxSeqLen - baseSeqLen);
  return baseShift + slope * (imageTokens - baseSeqLen);
}
