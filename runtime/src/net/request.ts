// One HTTP request that keeps to the rules: redirects bounded and never to a weaker scheme, an app's own headers only to
// the host they were meant for, hosts held to a policy, no waiting for a server that says nothing.
import { KontextError } from '../errors.ts';
import { type AccessPolicy, checkAccess } from './access.ts';
import { shownUrl } from './retry.ts';
import { type StallGuard, stallGuard } from './wait.ts';

/** How to ask; the same for model files and pictures. */
export interface NetOptions {
  /** Cancels at once, waits between attempts too. */
  signal?: AbortSignal | undefined;
  /** An app's own, such as an authorization; not sent on when a redirect leads to another host. */
  headers?: Readonly<Record<string, string>> | undefined;
  /** Replaces the platform's. */
  fetch?: typeof fetch | undefined;
  /** Attempts for each range before giving up; default 6. */
  attempts?: number | undefined;
  /** Milliseconds without a byte until an attempt is given up; default 30,000. */
  stallMs?: number | undefined;
  /** Which hosts may be asked; default all. */
  access?: AccessPolicy | undefined;
}

/** Without a byte for this long an attempt has failed. */
export const STALL_MS = 30_000;
/** The hub needs two: to its storage's front, and to a region. */
export const MAX_REDIRECTS = 5;

/** An answer whose body is still to come; call `guard.end()` when it has been read. */
export interface Answer {
  response: Response;
  /** Where it came from after redirects, and whether that is the host asked. */
  url: URL;
  sameHost: boolean;
  /** Of the first answer, where redirects followed it; pages are not shown those. */
  firstHeaders: Headers;
  guard: StallGuard;
}

/**
 * @param own headers of ours (ranges, conditions), sent to every host
 * @throws KontextError `download-failed` for a redirect or host that is refused, `aborted`; what `fetch` throws; `Stalled`
 */
export async function request(
  from: string | URL,
  options: NetOptions = {},
  own: Readonly<Record<string, string>> = {},
  method: 'GET' | 'HEAD' = 'GET',
): Promise<Answer> {
  const first = new URL(from);
  const get = options.fetch ?? (await platformFetch(options.access));
  const guard = stallGuard(options.stallMs ?? STALL_MS, options.signal);
  let url = first;
  let sameHost = true;
  let firstHeaders: Headers | undefined;
  try {
    for (let redirects = 0; ; redirects++) {
      checkAccess(url, options.access);
      const headers: Record<string, string> = {
        ...(sameHost ? options.headers : {}),
        // With a range, `fetch` says so itself.
        ...('Range' in own ? {} : { 'Accept-Encoding': 'identity' }),
        ...own,
      };
      let response: Response = await guard.watch(
        get(url.href, { method, headers, signal: guard.signal, redirect: 'manual' }),
      );
      if (response.type === 'opaqueredirect') {
        // A page is not told where a redirect leads; the browser follows it by its own rules, and the end is checked.
        response = await guard.watch(get(url.href, { method, headers, signal: guard.signal, redirect: 'follow' }));
        const end = new URL(response.url);
        checkRedirect(first, end, options.access);
        return { response, url: end, sameHost: end.host === first.host, firstHeaders: response.headers, guard };
      }
      firstHeaders ??= response.headers;
      const location: string | null = response.headers.get('location');
      if (![301, 302, 303, 307, 308].includes(response.status) || location === null) {
        return { response, url, sameHost, firstHeaders, guard };
      }
      await response.body?.cancel();
      if (redirects === MAX_REDIRECTS) throw refusedRedirect(first, `it redirects more than ${MAX_REDIRECTS} times`);
      if (!URL.canParse(location, url.href)) throw refusedRedirect(first, 'it redirects to no address');
      const next: URL = new URL(location, url);
      checkRedirect(url, next, options.access);
      sameHost &&= next.host === first.host;
      url = next;
    }
  } catch (error) {
    guard.end();
    throw error;
  }
}

function checkRedirect(from: URL, to: URL, access: AccessPolicy | undefined): void {
  if (to.protocol !== from.protocol && to.protocol !== 'https:') {
    throw refusedRedirect(from, `it redirects from ${from.protocol} to ${to.protocol}`);
  }
  if (to.username || to.password) throw refusedRedirect(from, 'it redirects to an address with a password');
  checkAccess(to, access);
}

function refusedRedirect(url: URL, why: string): KontextError {
  const shown = shownUrl(url.href);
  return new KontextError('download-failed', `${shown} is not fetched: ${why}.`, { url: shown, refused: true });
}

/** Where private addresses are refused, names are resolved and checked by whoever connects; see `pinned.ts`. */
async function platformFetch(access: AccessPolicy | undefined): Promise<typeof fetch> {
  const isNode = typeof process !== 'undefined' && process.versions?.node !== undefined;
  if (access?.privateAddresses !== 'refuse' || !isNode) return fetch;
  const { pinnedFetch } = await import('./pinned.ts');
  return pinnedFetch;
}
