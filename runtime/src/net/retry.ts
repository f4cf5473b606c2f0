// Tries again what a network may make fail once: busy servers, cut connections, answers that stop.
// One 503 must not end the load of 24 GB, and no server may keep us trying for ever.
import { abortedError, KontextError, throwIfAborted } from '../errors.ts';
import { pause } from './wait.ts';

/** Attempts for each range of a file before giving up: waits of 0.5, 1, 2, 4 and 8 s lie between six. */
export const ATTEMPTS = 6;
/** The longest `Retry-After` that is waited for; a server that asks for more is given up at once, with its answer. */
export const LONGEST_WAIT_MS = 120_000;

/** An answer of a server that is no success. */
export class HttpError extends Error {
  constructor(
    readonly status: number,
    message: string,
    /** What the server asked to wait. */
    readonly retryAfterMs: number | undefined = undefined,
    /** The reason as the hub of models gives it (`GatedRepo`, `RevisionNotFound`, …). */
    readonly serverCode: string | undefined = undefined,
  ) {
    super(message);
  }

  /** Timeout, too early, too many requests, and the server's own troubles; anything else answers the same again. */
  get passing(): boolean {
    return [408, 425, 429, 500, 502, 503, 504].includes(this.status);
  }
}

/** The error of a response, with the wait it asks for. */
export function httpError(response: Response): HttpError {
  const status = `HTTP ${response.status}${response.statusText ? ` ${response.statusText}` : ''}`;
  const { headers } = response;
  const wait = retryAfter(headers.get('retry-after'), Date.now());
  return new HttpError(response.status, status, wait, headers.get('x-error-code') ?? undefined);
}

/** `Retry-After` in milliseconds: seconds, or a date (RFC 9110 §10.2.3); undefined for anything else. */
export function retryAfter(header: string | null, now: number): number | undefined {
  if (header === null) return undefined;
  if (/^\d{1,9}$/.test(header.trim())) return Number(header) * 1000;
  const date = Date.parse(header);
  return Number.isNaN(date) ? undefined : Math.max(0, date - now);
}

/**
 * Runs `work` until it succeeds. Repeats after {@link HttpError}s that pass, and after errors that are not ours (a cut
 * connection, a stall, a short answer); a `KontextError` is final.
 *
 * @throws KontextError `download-failed` with `url` and, where a server answered, its `status`; `aborted`
 */
export async function withRetries<T>(
  url: string,
  { attempts = ATTEMPTS, signal }: { attempts?: number | undefined; signal?: AbortSignal | undefined },
  work: () => Promise<T>,
): Promise<T> {
  for (let attempt = 1; ; attempt++) {
    throwIfAborted(signal);
    try {
      return await work();
    } catch (cause) {
      if (signal?.aborted) throw abortedError(signal);
      if (cause instanceof KontextError) throw cause;
      const http = cause instanceof HttpError ? cause : undefined;
      const asked = http?.retryAfterMs ?? 0;
      if (attempt >= attempts || (http && !http.passing) || asked > LONGEST_WAIT_MS) {
        throw downloadFailed(url, cause, attempt);
      }
      // A quarter at random: readers that failed together must not come back together.
      const backoff = 500 * 2 ** (attempt - 1) * (1 + Math.random() / 4);
      await pause(Math.max(backoff, asked), signal);
    }
  }
}

function downloadFailed(url: string, cause: unknown, attempts: number): KontextError {
  const http = cause instanceof HttpError ? cause : undefined;
  const tries = attempts > 1 ? ` after ${attempts} attempts` : '';
  return new KontextError(
    'download-failed',
    `Download of ${shownUrl(url)} failed${tries}: ${causeText(cause)}.${adviceFor(http)}`,
    {
      url: shownUrl(url),
      ...(http && { status: http.status }),
      ...(http?.serverCode !== undefined && { serverCode: http.serverCode }),
    },
    { cause },
  );
}

/** What to do about a status. */
function adviceFor(error: HttpError | undefined): string {
  if (error?.status === 401 || error?.status === 403) {
    return ' The server refuses access: a token or signed address may be missing or expired, or a licence must be accepted first.';
  }
  if (error?.status === 404 || error?.status === 410) return ' There is no such file: check the address.';
  if (error?.retryAfterMs !== undefined && error.retryAfterMs > LONGEST_WAIT_MS) {
    return ` The server asks to come back in ${Math.ceil(error.retryAfterMs / 1000)} s.`;
  }
  return '';
}

/** Node's fetch says only "fetch failed"; what happened is in its cause. */
function causeText(error: unknown): string {
  const { message, cause } = error as Error;
  const inner = (cause as Error | undefined)?.message;
  return `${message}${inner ? ` (${inner})` : ''}`.replace(/\.$/, '');
}

/** An address for messages: without password and query, which may be secrets, and not without end. */
export function shownUrl(url: string): string {
  if (!URL.canParse(url)) return url.slice(0, 200);
  const { protocol, host, pathname } = new URL(url);
  return `${protocol}//${host}${pathname}`.slice(0, 500);
}
