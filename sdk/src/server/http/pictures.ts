// Pictures that clients send: where they come from, and whether they are fit to be decoded by a worker.
// Only headers are read here; no pixel is decoded before its count is known to be bounded.
import { collect } from '../../../../runtime/src/net/collect.ts';
import { probeImage } from '../../image/probe.ts';
import type { ImageSize } from '../../kontext/types.ts';
import { ApiError } from './errors.ts';

/** Bounds on pictures from outside. */
export interface PictureLimits {
  /** Bytes of one file. */
  maxBytes: number;
  /** Width times height of one picture. */
  maxPixels: number;
  /** Hosts that `http(s)` URLs may name, redirects included; none by default. */
  allowHosts: readonly string[];
}

/** A picture's file and what its header says. */
export interface CheckedPicture extends ImageSize {
  /** The file as it was sent. */
  bytes: Uint8Array<ArrayBuffer>;
  /** Whether the file has an alpha channel. */
  hasAlpha: boolean;
}

/** Longest wait for a picture by URL. */
const FETCH_TIMEOUT_MS = 30_000;
const MAX_REDIRECTS = 3;

/** @param param the request's field, named in errors @throws ApiError 400, 413 */
export async function checkPicture(
  bytes: Uint8Array<ArrayBuffer>,
  param: string,
  limits: PictureLimits,
): Promise<CheckedPicture> {
  if (bytes.length > limits.maxBytes) throw tooLarge(param, limits);
  const probe = await probeImage(bytes);
  if (!probe) {
    throw new ApiError(400, 'image-invalid', `${param} is not a picture that can be read; send PNG, JPEG or WebP.`, {
      param,
    });
  }
  const { width, height, hasAlpha } = probe;
  if (width * height > limits.maxPixels) {
    const message = `${param} has ${width}×${height} pixels; at most ${limits.maxPixels} are taken here. Scale it down first.`;
    throw new ApiError(413, 'image-too-large', message, { param });
  }
  return { bytes, width, height, hasAlpha };
}

/** The bytes behind a `data:` URL or, where the host is allowed, an `http(s)` URL. @throws ApiError */
export async function fetchPicture(
  reference: string,
  param: string,
  limits: PictureLimits,
  signal: AbortSignal,
): Promise<Uint8Array<ArrayBuffer>> {
  if (reference.startsWith('data:')) return dataUrl(reference, param, limits);
  const timeout = AbortSignal.any([signal, AbortSignal.timeout(FETCH_TIMEOUT_MS)]);
  let url = allowedUrl(reference, param, limits);
  for (let hops = 0; hops <= MAX_REDIRECTS; hops++) {
    let response: Response;
    try {
      response = await fetch(url, {
        redirect: 'manual',
        signal: timeout,
        headers: { 'accept-encoding': 'identity', accept: 'image/*' },
      });
    } catch {
      throw new ApiError(400, 'image-unreachable', `${param}: ${url.host} did not answer.`, { param });
    }
    const location = response.headers.get('location');
    if (response.status >= 300 && response.status < 400 && location !== null) {
      await response.body?.cancel();
      url = allowedUrl(new URL(location, url).href, param, limits);
      continue;
    }
    if (!response.ok) {
      await response.body?.cancel();
      throw new ApiError(400, 'image-unreachable', `${param}: ${url.host} answered ${response.status}.`, { param });
    }
    return readLimited(response, param, limits);
  }
  throw new ApiError(400, 'image-unreachable', `${param}: more than ${MAX_REDIRECTS} redirects.`, { param });
}

function allowedUrl(reference: string, param: string, { allowHosts }: PictureLimits): URL {
  const url = URL.canParse(reference) ? new URL(reference) : undefined;
  if (!url || (url.protocol !== 'http:' && url.protocol !== 'https:')) {
    throw new ApiError(400, 'invalid-request', `${param} must be a data: URL, an http(s) URL or a file.`, { param });
  }
  if (!allowHosts.includes(url.host) && !allowHosts.includes(url.hostname)) {
    const why = allowHosts.length === 0 ? 'does not fetch pictures' : `does not fetch pictures from ${url.host}`;
    throw new ApiError(400, 'url-not-allowed', `This server ${why}; send the file or a data: URL.`, { param });
  }
  return url;
}

function dataUrl(reference: string, param: string, limits: PictureLimits): Uint8Array<ArrayBuffer> {
  const comma = reference.indexOf(',');
  const head = reference.slice(0, Math.max(0, comma));
  const body = reference.slice(comma + 1);
  if (!/^data:[\w.+/-]*;base64$/i.test(head) || !/^[A-Za-z0-9+/\s]*={0,2}\s*$/.test(body)) {
    throw new ApiError(400, 'invalid-request', `${param} must be a data: URL with base64.`, { param });
  }
  if (body.length * 0.75 > limits.maxBytes + 3) throw tooLarge(param, limits);
  return new Uint8Array(Buffer.from(body, 'base64'));
}

async function readLimited(response: Response, param: string, limits: PictureLimits): Promise<Uint8Array<ArrayBuffer>> {
  try {
    return await collect(response.body, limits.maxBytes, () => tooLarge(param, limits));
  } catch (error) {
    if (error instanceof ApiError) throw error;
    throw new ApiError(400, 'image-unreachable', `${param}: the download broke off.`, { param });
  }
}

function tooLarge(param: string, { maxBytes }: PictureLimits): ApiError {
  return new ApiError(413, 'image-too-large', `${param} is larger than ${maxBytes} bytes.`, { param });
}
