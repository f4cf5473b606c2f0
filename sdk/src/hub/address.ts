// Addresses on the Hugging Face hub: `hf:owner/name[@revision][:file]`.
import { KontextError } from '../../../runtime/src/errors.ts';
import { addressBelow } from '../model/place-names.ts';

export interface HubAddress {
  /** `owner/name`. */
  repository: string;
  /** Branch, tag or commit. */
  revision: string;
  /** One file of the repository; absent for all of it. */
  file?: string;
}

/** Whether this means the hub. */
export function isHubAddress(source: unknown): source is string {
  return typeof source === 'string' && source.startsWith('hf:');
}

/** @throws KontextError `invalid-request` saying what such an address looks like */
export function parseHubAddress(text: string): HubAddress {
  const [, repository, revision = 'main', file] =
    /^hf:([\w][\w.-]*\/[\w][\w.-]*)(?:@([\w][\w./-]*))?(?::(.+))?$/.exec(text) ?? [];
  if (repository === undefined || revision.includes('..')) {
    throw new KontextError(
      'invalid-request',
      `${JSON.stringify(text.slice(0, 200))} is no address on the hub. Write hf:owner/name, hf:owner/name@revision or hf:owner/name:file.`,
    );
  }
  // Also a path on disk and a part of a URL.
  if (file !== undefined) addressBelow(new URL('https://hub.invalid/'), file);
  return { repository, revision, ...(file !== undefined && { file }) };
}
