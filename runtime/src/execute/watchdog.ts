// Notices a GPU that does not come back, and says what it was doing.
// WebGPU has no time limit of its own: on a system without a driver's watchdog a kernel that loops for ever leaves promises that
// never settle. How long is too long is known from the pace of what ran before.

import { KontextError } from '../errors.ts';
import type { KontextDevice } from '../gpu/device.ts';

/** Times the predicted duration: predictions of a first run can be off by a lot on a slow device. */
const PATIENCE = 100;

/** What was submitted together. */
export interface Watched {
  program: string;
  /** Labels of the dispatches, in order. */
  dispatches: readonly string[];
  predictedMs: number;
}

/**
 * `work`; after {@link KontextDevice.hangMs} and a hundred times the prediction the device is given up as hung. A loss of the device,
 * this one or the driver's, names the dispatches that were running.
 *
 * @throws KontextError `device-lost` with `details.dispatches`; what `work` rejects with
 */
export async function watch<T>(gpu: KontextDevice, work: Promise<T>, watched: Watched): Promise<T> {
  const { program, dispatches, predictedMs } = watched;
  const limitMs = gpu.hangMs + PATIENCE * predictedMs;
  const [first, last] = [dispatches[0], dispatches.at(-1)];
  const which =
    first === undefined ? '' : first === last ? ` in dispatch "${first}"` : ` between "${first}" and "${last}"`;
  const details = { program, dispatches: [...dispatches] };
  const timer = setTimeout(
    () =>
      gpu.giveUp(
        new KontextError(
          'device-lost',
          `The GPU did not come back within ${(limitMs / 1000).toFixed(0)} s${which} of "${program}". The device is given up; the next request opens another. ` +
            'Where the programs came from outside, do not use them again.',
          { reason: 'hung', ...details },
        ),
      ),
    // Timers count in 32 bits.
    Math.min(limitMs, 2 ** 31 - 1),
  );
  try {
    return await work;
  } catch (error) {
    if (!(error instanceof KontextError) || error.code !== 'device-lost' || error.details.dispatches) throw error;
    const message = `${error.message} It happened${which || ' at a copy'} of "${program}".`;
    throw new KontextError('device-lost', message, { ...error.details, ...details }, { cause: error });
  } finally {
    clearTimeout(timer);
  }
}
