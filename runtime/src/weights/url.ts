// A file on a server as a ByteSource: range requests, retried and resumed, of one release only.
import { KontextError } from '../errors.ts';
import { isIdentity, readAll, readInto } from '../net/body.ts';
import { type Answer, type NetOptions, request } from '../net/request.ts';
import { httpError, shownUrl, withRetries } from '../net/retry.ts';
import { type FileVersion, rangeCondition, sameVersion, versionOf } from '../net/version.ts';
import { isHtmlType, isWebPage, PAGE_BYTES } from '../net/web-page.ts';
import { type ByteSource, checkRange, memoryBytes } from './byte-source.ts';

/** How to ask for a file. */
export interface UrlBytesOptions extends NetOptions {
  /** Attempts for the first question, which tells size and release; default as many as for a range. */
  openAttempts?: number | undefined;
}

/** A file on a server. */
export interface UrlSource extends ByteSource {
  /** What the server says of the release that is being read. */
  readonly version: FileVersion;
  /** Of the first answer of the host that was asked, before it redirected. */
  readonly firstHeaders: Headers;
}

/** Larger files need a server with ranges. */
const WHOLE_FILE_BYTES = 64 * 2 ** 20;

/**
 * A file on a server, by HTTP range requests. A server without ranges will do for files up to 64 MiB, which are then
 * kept in memory.
 *
 * A range that fails is asked for again, from the byte where it stopped: up to `attempts` times, 0.5, 1, 2, 4, 8 s apart or as
 * long as the server's `Retry-After` asks. When the file changes on the server, reading ends in an error: two releases are
 * never mixed.
 *
 * @throws `download-failed` with the status; with `missing: true` when there is no such file (404, 410, or a web page in its
 *   place); with `changed: true`; or that the server has no range requests
 */
export async function urlBytes(url: string | URL, options: UrlBytesOptions = {}): Promise<UrlSource> {
  const name = String(url);
  const shown = shownUrl(name);
  const reader = new RangeReader(name, options);
  const probe = await reader.probe(options.signal);
  if (probe.whole)
    return { ...memoryBytes(probe.whole, shown), version: probe.version, firstHeaders: reader.firstHeaders };
  const { version } = probe;
  return {
    name: shown,
    size: version.size,
    version,
    firstHeaders: reader.firstHeaders,
    async read(start, end, signal) {
      checkRange(shown, version.size, start, end);
      return reader.read(start, end, version, signal);
    },
    close: async () => {},
  };
}

/** Whether an error says that there is no such file, rather than that it could not be had. */
export function isMissing(error: unknown): boolean {
  return error instanceof KontextError && error.code === 'download-failed' && error.details.missing === true;
}

/** What the first answer told; `whole` where a server has no ranges. */
interface Probe {
  version: FileVersion;
  whole?: Uint8Array<ArrayBuffer>;
}

class RangeReader {
  /** Where redirects led: signed addresses hold for minutes, and asking the first host each time would be counted by it. */
  firstHeaders = new Headers();
  private target: { url: URL; sameHost: boolean } | undefined;

  constructor(
    private readonly url: string,
    private readonly options: UrlBytesOptions,
  ) {}

  /** Asks for the first byte: it tells size, release, and whether there are ranges. */
  async probe(signal: AbortSignal | undefined): Promise<Probe> {
    const { attempts, openAttempts = attempts } = this.options;
    const probed = await this.asking(openAttempts, signal, async (): Promise<Probe & { suspect?: string | null }> => {
      const answer = await this.ask(0, 1, undefined, signal);
      const { response, guard } = answer;
      try {
        const { status, headers } = response;
        const type = headers.get('content-type');
        if (status === 416 && /\*\/0$/.test(headers.get('content-range') ?? '')) {
          await response.body?.cancel();
          return { whole: new Uint8Array(0), version: versionOf(response, 0) };
        }
        if (status === 200) {
          const whole = await this.readWhole(answer);
          if (isWebPage(whole, type)) throw this.webPage();
          return { whole, version: versionOf(response, whole.length) };
        }
        if (status !== 206) throw await refusal(response);
        const { size } = this.contentRange(response, 0);
        const start = new Uint8Array(1);
        await readInto(answer, start, 0, () => {});
        // `<` is no first byte of JSON or a list; of weights it may be.
        const suspect = start[0] === '<'.charCodeAt(0) || isHtmlType(type);
        return { version: versionOf(response, size), ...(suspect && { suspect: type }) };
      } finally {
        guard.end();
      }
    });
    if (probed.suspect !== undefined) {
      const start = await this.read(0, Math.min(PAGE_BYTES, probed.version.size), probed.version, signal);
      if (isWebPage(start, probed.suspect)) throw this.webPage();
    }
    return probed;
  }

  /** Bytes `[start, end)` of the release; what arrived before a failure is kept. */
  async read(
    start: number,
    end: number,
    version: FileVersion,
    signal: AbortSignal | undefined,
  ): Promise<Uint8Array<ArrayBuffer>> {
    const bytes = new Uint8Array(end - start);
    if (start === end) return bytes;
    let filled = 0;
    await this.asking(this.options.attempts, signal, async () => {
      const answer = await this.ask(start + filled, end, version, signal);
      const { response, guard } = answer;
      try {
        const { status } = response;
        if (status === 200) {
          await response.body?.cancel();
          // The condition failed, or the server has no ranges today.
          const length = Number(response.headers.get('content-length') ?? version.size);
          if (!sameVersion(version, versionOf(response, length))) throw this.changed();
          throw new Error('the server sent the whole file in place of a range');
        }
        if (status === 416) {
          await response.body?.cancel();
          throw this.changed();
        }
        if (status !== 206) throw await refusal(response);
        const { size } = this.contentRange(response, start + filled, end);
        if (!sameVersion(version, versionOf(response, size))) {
          await response.body?.cancel();
          throw this.changed();
        }
        const more = await readInto(answer, bytes, filled, (count) => {
          filled = count;
        });
        if (more) throw new Error(`the server sent more than the ${end - start} bytes asked for`);
        if (filled < bytes.length) throw new Error(`the server sent ${filled} bytes of ${bytes.length}`);
      } finally {
        guard.end();
      }
    });
    return bytes;
  }

  private async asking<T>(
    attempts: number | undefined,
    signal: AbortSignal | undefined,
    work: () => Promise<T>,
  ): Promise<T> {
    try {
      return await withRetries(this.url, { attempts, signal }, work);
    } catch (error) {
      const { status } = error instanceof KontextError ? error.details : {};
      if (status !== 404 && status !== 410) throw error;
      const { code, message, details } = error as KontextError;
      throw new KontextError(code, message, { ...details, missing: true }, { cause: error });
    }
  }

  private async ask(
    start: number,
    end: number,
    version: FileVersion | undefined,
    signal: AbortSignal | undefined,
  ): Promise<Answer> {
    const condition = version && this.mayAddHeaders() ? rangeCondition(version) : undefined;
    const own = { Range: `bytes=${start}-${end - 1}`, ...(condition !== undefined && { 'If-Range': condition }) };
    const { target } = this;
    if (target) {
      const headers = target.sameHost ? this.options.headers : undefined;
      const answer = await request(target.url, { ...this.options, headers, signal }, own);
      if (![401, 403, 404, 410].includes(answer.response.status)) return answer;
      // The signed address has run out: ask for another.
      await answer.response.body?.cancel();
      answer.guard.end();
      this.target = undefined;
    }
    const answer = await request(this.url, { ...this.options, signal }, own);
    const { url, sameHost } = answer;
    this.firstHeaders = answer.firstHeaders;
    if (url.href !== new URL(this.url).href && answer.response.ok) this.target = { url, sameHost };
    return answer;
  }

  /** In a page, conditions on another origin would need that server's leave (CORS); comparing the answers finds the same. */
  private mayAddHeaders(): boolean {
    return typeof location === 'undefined' || location.origin === new URL(this.url).origin;
  }

  /** @throws an error that is retried when the range is not the one asked for */
  private contentRange(response: Response, start: number, end?: number): { size: number } {
    const found = /^bytes (\d+)-(\d+)\/(\d+)$/.exec(response.headers.get('content-range') ?? '');
    const [first, last, size] = (found ?? []).slice(1).map(Number) as [number?, number?, number?];
    if (size === undefined || !Number.isSafeInteger(size)) {
      void response.body?.cancel();
      throw new KontextError(
        'download-failed',
        `The server of ${shownUrl(this.url)} does not tell the file's size: it sends no usable Content-Range, or does not show ` +
          'it to pages (Access-Control-Expose-Headers: Content-Range, ETag).',
        { url: shownUrl(this.url) },
      );
    }
    if (!isIdentity(response)) {
      void response.body?.cancel();
      throw new Error('the server compresses ranges');
    }
    if (first !== start || last! < start || last! >= size || (end !== undefined && last! >= end)) {
      void response.body?.cancel();
      throw new Error(`the server sent bytes ${first} to ${last} of ${size}, not those from ${start}`);
    }
    return { size };
  }

  private async readWhole(answer: Answer): Promise<Uint8Array<ArrayBuffer>> {
    const length = Number(answer.response.headers.get('content-length') ?? 0);
    if (length > WHOLE_FILE_BYTES) {
      await answer.response.body?.cancel();
      const shown = shownUrl(this.url);
      throw new KontextError(
        'download-failed',
        `The server of ${shown} does not support range requests, which weight files over 64 MiB need. Use another server.`,
        { url: shown },
      );
    }
    return readAll(answer, WHOLE_FILE_BYTES);
  }

  private webPage(): KontextError {
    const shown = shownUrl(this.url);
    return new KontextError(
      'download-failed',
      `${shown} is a web page, not a file of a model: the server shows a page for what it does not have, or asks to sign in.`,
      { url: shown, missing: true, webPage: true },
    );
  }

  private changed(): KontextError {
    const shown = shownUrl(this.url);
    return new KontextError(
      'download-failed',
      `${shown} has changed on its server while it was being read. Load the model again.`,
      { url: shown, changed: true },
    );
  }
}

async function refusal(response: Response): Promise<Error> {
  await response.body?.cancel();
  return httpError(response);
}
