// A repository on the hub: which commit a revision is, which files it has, and their bytes by range.
// The commit is settled once, so that all files are of one release however long the download takes.
import { KontextError } from '../../../runtime/src/errors.ts';
import { fetchBytes } from '../../../runtime/src/net/fetch-bytes.ts';
import type { NetOptions } from '../../../runtime/src/net/request.ts';
import { isMissing, type UrlSource, urlBytes } from '../../../runtime/src/weights/url.ts';
import type { ModelFiles } from '../model/files.ts';
import { addressBelow } from '../model/place-names.ts';
import type { HubAddress } from './address.ts';

/** Where the hub is and who asks. */
export interface HubOptions {
  /** Access token, for gated and private repositories. Default: the environment's `HF_TOKEN`. */
  token?: string;
  /** Address of the hub or of a mirror. Default: the environment's `HF_ENDPOINT`, else https://huggingface.co. */
  endpoint?: string;
  /** Folder for downloads (Node, Deno). Default: `kontext-webgpu` below the user's cache folder. */
  folder?: string;
  /** Attempts, time limits and hosts that may be asked. */
  request?: Omit<NetOptions, 'signal' | 'headers'>;
}

/** A file as the hub lists it. */
export interface HubFile {
  name: string;
  size?: number;
  /** SHA-256 of large files, which the hub keeps apart (LFS). */
  sha256?: string;
}

export interface Repository {
  address: HubAddress;
  /** For messages. */
  label: string;
  commit: string;
  files: Map<string, HubFile>;
  /** URL of a file at the commit. */
  url(name: string): URL;
  /** How its files are asked for: the user's options, and who asks. */
  request: Omit<NetOptions, 'signal'>;
  /** What a refusal of the hub means and what to do; other errors as they are. */
  explain(error: unknown): unknown;
  /** @throws KontextError `download-failed`, for gated files with the page on which to ask for access */
  open(name: string, signal?: AbortSignal): Promise<UrlSource | undefined>;
}

/** Listings are a few kilobytes; a repository of a hundred thousand files has some megabytes. */
const MAX_LISTING_BYTES = 32 * 2 ** 20;

/** @throws KontextError `download-failed`: no such repository or revision, gated, no connection */
export async function openRepository(
  address: HubAddress,
  options: HubOptions,
  signal?: AbortSignal,
): Promise<Repository> {
  const endpoint = (options.endpoint ?? environment('HF_ENDPOINT') ?? 'https://huggingface.co').replace(/\/+$/, '');
  if (!URL.canParse(endpoint)) {
    throw new KontextError('invalid-request', `The hub's address ${JSON.stringify(endpoint)} is no URL.`);
  }
  const token = options.token ?? environment('HF_TOKEN');
  const headers: Record<string, string> = token ? { Authorization: `Bearer ${token}` } : {};
  const { repository, revision } = address;
  const request = { ...options.request, headers };
  const page = `${endpoint}/${repository}`;
  const label = `hf:${repository}@${revision}`;
  const explain = (error: unknown) => hubError(error, label, page, token !== undefined);
  const { commit, files } = await list(`${endpoint}/api/models/${repository}`, revision, label, {
    ...request,
    signal,
  }).catch((error) => {
    throw explain(error);
  });
  const url = (name: string) => addressBelow(new URL(`${endpoint}/${repository}/resolve/${commit}/`), name);
  return {
    address,
    label,
    commit,
    files,
    url,
    request,
    explain,
    async open(name, openSignal) {
      if (!files.has(name)) return undefined;
      try {
        return await urlBytes(url(name), { ...request, signal: openSignal });
      } catch (error) {
        if (isMissing(error)) return undefined;
        throw explain(error);
      }
    },
  };
}

/** Names in a folder of the repository, or at its top. */
export function namesIn({ files }: Repository, folder = ''): string[] {
  const start = folder === '' ? '' : `${folder}/`;
  const inside = [...files.keys()].filter((name) => name.startsWith(start));
  return [...new Set(inside.map((name) => name.slice(start.length).split('/')[0]!))];
}

/** A repository as a place of files, read from the hub by range. */
export function repositoryFiles(repository: Repository): ModelFiles {
  return {
    label: repository.label,
    open: (name, signal) => repository.open(name, signal),
    list: async (folder) => namesIn(repository, folder),
  };
}

interface Listing {
  commit: string;
  files: Map<string, HubFile>;
}

/** The hub's own listing. */
async function list(api: string, revision: string, label: string, asking: NetOptions): Promise<Listing> {
  const url = `${api}/revision/${encodeURIComponent(revision)}?blobs=true`;
  const { bytes } = await fetchBytes(url, MAX_LISTING_BYTES, asking);
  const refuse = () => new KontextError('download-failed', `The hub's list of files of ${label} cannot be read.`);
  let listing: { sha?: unknown; siblings?: unknown };
  try {
    listing = JSON.parse(new TextDecoder().decode(bytes));
  } catch {
    throw refuse();
  }
  const { sha, siblings } = listing ?? {};
  if (typeof sha !== 'string' || !/^[\da-f]{40,64}$/.test(sha) || !Array.isArray(siblings)) throw refuse();
  const files = new Map<string, HubFile>();
  for (const entry of siblings as { rfilename?: unknown; size?: unknown; lfs?: { sha256?: unknown } }[]) {
    const { rfilename: name, size, lfs } = entry ?? {};
    if (typeof name !== 'string') throw refuse();
    files.set(name, {
      name,
      ...(Number.isSafeInteger(size) && { size: size as number }),
      ...(isSha256(lfs?.sha256) && { sha256: lfs.sha256 }),
    });
  }
  return { commit: sha, files };
}

const isSha256 = (value: unknown): value is string => typeof value === 'string' && /^[\da-f]{64}$/.test(value);

/** A large file's SHA-256: from the listing, or from the header that comes with the redirect to its storage. */
export function expectedSha256(file: HubFile, source: UrlSource): string | undefined {
  if (file.sha256 !== undefined) return file.sha256;
  const linked = source.firstHeaders.get('x-linked-etag')?.replace(/^"|"$/g, '');
  return isSha256(linked) ? linked : undefined;
}

/** What the hub's refusals mean and what to do. */
function hubError(error: unknown, label: string, page: string, hasToken: boolean): unknown {
  if (!(error instanceof KontextError) || error.code !== 'download-failed') return error;
  const { status, serverCode } = error.details;
  const fail = (message: string) =>
    new KontextError('download-failed', message, { ...error.details, page }, { cause: error });
  const token = hasToken
    ? 'Check that the token belongs to that account and may read gated repositories.'
    : 'Then give a token of that account: HF_TOKEN in the environment, or hub: { token }.';
  if (serverCode === 'GatedRepo' || status === 403) {
    return fail(`${label} is gated: accept its licence at ${page}. ${token}`);
  }
  if (status === 401) {
    return fail(
      `${label} is gated or private, or there is no such repository: look at ${page}, and accept its licence there. ${token}`,
    );
  }
  if (status === 404) {
    const what = serverCode === 'RevisionNotFound' ? 'has no such revision' : 'is not on the hub';
    return fail(`${label} ${what}: see ${page}.`);
  }
  return error;
}

/** A variable of the process's environment; undefined in pages, and in Deno without the permission to look. */
export function environment(name: string): string | undefined {
  try {
    return (typeof process === 'undefined' ? undefined : process.env?.[name]) || undefined;
  } catch {
    return undefined;
  }
}
