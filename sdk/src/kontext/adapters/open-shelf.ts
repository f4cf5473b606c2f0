// The adapters that a load was given, for engines and for plans.
import { KontextError } from '../../../../runtime/src/errors.ts';
import type { Model } from '../../model/open.ts';
import type { LoadOptions } from '../load-options.ts';
import { checkAdapters } from './check.ts';
import type { AdapterShelf } from './shelf.ts';

/** @throws KontextError `invalid-request` for `merge` without adapters */
export function refuseMergeOfNothing({ adapters, merge }: Pick<LoadOptions, 'adapters' | 'merge'>): void {
  if (!merge || checkAdapters(adapters, 'Kontext.load').length > 0) return;
  throw new KontextError('invalid-request', 'merge needs adapters. Give some, or leave it out.');
}

/** The adapters of a model. Loaded with the first. */
export async function openShelf(
  model: Model,
  {
    adapters,
    merge,
    hub,
    access,
    onDownload,
  }: Pick<LoadOptions, 'adapters' | 'merge' | 'hub' | 'access' | 'onDownload'>,
): Promise<AdapterShelf> {
  const { AdapterShelf } = await import('./shelf.ts');
  return new AdapterShelf(model, adapters, merge === true, { ...hub, access, onProgress: onDownload });
}
