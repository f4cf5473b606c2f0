// Whether a device is opened with or without the driver's bounds checks: a matter of who wrote the programs.
// Pages have no choice, browsers always check; in Node, Dawn drops the checks when asked to.
import { KontextError } from '../../../runtime/src/errors.ts';
import type { OpenDeviceOptions } from '../../../runtime/src/gpu/open.ts';

/** Dawn's toggles that let a kernel see memory that is not its own. */
const UNCHECKED_TOGGLES = ['disable_robustness', 'disable_workgroup_init'];

/**
 * The compiler's own programs need no bounds checks. One set of flags for an engine, because each set is a Dawn instance of its own.
 *
 * @param trusted whether all programs were compiled here or signed by a key the app named
 * @throws KontextError `invalid-request` when checks are to be dropped for other programs
 */
export function deviceOptions(given: OpenDeviceOptions | undefined, trusted: boolean): OpenDeviceOptions {
  const asked = given?.unchecked === true || given?.dawnToggles?.some((name) => UNCHECKED_TOGGLES.includes(name));
  if (asked && !trusted) {
    throw new KontextError(
      'invalid-request',
      'These programs come from outside and run with bounds checks. Sign the bundle (kontext compile --sign) and name its publicKey to run it without.',
      { option: 'device' },
    );
  }
  return { unchecked: trusted, ...given };
}
