// A whole small file or picture from a server, held to the same rules as model files.
import { readAll } from './body.ts';
import { type NetOptions, request } from './request.ts';
import { httpError, withRetries } from './retry.ts';

/** Bytes and type of what an address answers. */
export interface Fetched {
  bytes: Uint8Array<ArrayBuffer>;
  contentType: string | null;
  headers: Headers;
}

/**
 * @param limit bytes beyond which nothing is read
 * @throws KontextError `download-failed` with `status` where a server answered; `aborted`
 */
export function fetchBytes(url: string | URL, limit: number, options: NetOptions = {}): Promise<Fetched> {
  return withRetries(String(url), options, async () => {
    const answer = await request(url, options);
    const { response, guard } = answer;
    try {
      if (!response.ok) {
        await response.body?.cancel();
        throw httpError(response);
      }
      const { headers } = response;
      return { bytes: await readAll(answer, limit), contentType: headers.get('content-type'), headers };
    } finally {
      guard.end();
    }
  });
}
