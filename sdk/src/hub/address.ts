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

/** What a browser's address bar shows on the hub: a repository, at a revision, or one of its files. */
const PAGE =
  /^https:\/\/(?:huggingface\.co|hf\.co)\/([\w][\w.-]*\/[\w][\w.-]*)(?:\/tree\/([\w][\w.-]*)|\/blob\/([\w][\w.-]*)\/([^?#]+))?\/?(?:[?#].*)?$/;

/** Whether this means the hub: an address, or a page of the hub, which holds no files itself. */
export function isHubAddress(source: unknown): source is string {
  return typeof source === 'string' && (source.startsWith('hf:') || PAGE.test(source));
}

function fromPage(text: string): string {
  const [, repository, tree, blob, file] = PAGE.exec(text) ?? [];
  if (repository === undefined) return text;
  const revision = tree ?? blob;
  return `hf:${repository}${revision ? `@${revision}` : ''}${file ? `:${decodeURI(file)}` : ''}`;
}

/** @throws KontextError `invalid-request` saying what such an address looks like */
export function parseHubAddress(text: string): HubAddress {
  const [, repository, revision = 'main', file] =
    /^hf:([\w][\w.-]*\/[\w][\w.-]*)(?:@([\w][\w./-]*))?(?::(.+))?$/.exec(fromPage(text)) ?? [];
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
