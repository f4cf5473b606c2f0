// Is it an AbortSignal? Asked by its shape: polyfills and other realms have signals too.
import { KontextError } from '../../../runtime/src/errors.ts';

/** @throws KontextError `invalid-request` unless it is absent or an `AbortSignal` */
export function checkSignal(signal: unknown): void {
  const { addEventListener, aborted } = (signal ?? {}) as Partial<AbortSignal>;
  if (signal === undefined || (typeof addEventListener === 'function' && typeof aborted === 'boolean')) return;
  throw new KontextError('invalid-request', 'signal must be an AbortSignal.', { option: 'signal' });
}
