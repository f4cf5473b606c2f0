// `fetch` for Node that connects only to addresses it has checked.
// Checking a name first and fetching it then would let its DNS answer differently the second time.
import type { LookupFunction } from 'node:net';
import { checkAddress } from './access.ts';

/** As `fetch` without redirects, caches and request bodies; refuses names that resolve to any private address. */
export const pinnedFetch: typeof fetch = async (input, init = {}) => {
  const url = new URL(input instanceof Request ? input.url : input);
  const { request } = url.protocol === 'https:' ? await import('node:https') : await import('node:http');
  const dns = await import('node:dns');
  const { Readable } = await import('node:stream');
  const lookup: LookupFunction = (hostname, options, done) => {
    dns.lookup(hostname, { ...options, all: true }, (error, found) => {
      if (error) return done(error, []);
      try {
        for (const { address } of found) checkAddress(url, address);
      } catch (refused) {
        return done(refused as NodeJS.ErrnoException, []);
      }
      if ((options as { all?: boolean }).all) return done(null, found);
      return done(null, found[0]!.address, found[0]!.family);
    });
  };
  return new Promise<Response>((resolve, reject) => {
    const outgoing = request(
      url,
      {
        method: init.method ?? 'GET',
        headers: { 'Accept-Encoding': 'identity', ...(init.headers as Record<string, string>) },
        signal: init.signal ?? undefined,
        lookup,
        // A kept connection would be one whose address nobody checked.
        agent: false,
      },
      (incoming) => {
        const headers = new Headers();
        for (const [name, value] of Object.entries(incoming.headers)) {
          for (const one of [value ?? []].flat()) headers.append(name, one);
        }
        const status = incoming.statusCode!;
        if ((headers.get('content-encoding') ?? 'identity') !== 'identity') {
          incoming.destroy();
          return reject(new Error('the server compresses what was asked for plain'));
        }
        const bodyless = status === 204 || status === 304;
        if (bodyless) incoming.resume();
        const body = bodyless ? null : (Readable.toWeb(incoming) as ReadableStream<Uint8Array>);
        resolve(new Response(body, { status, statusText: incoming.statusMessage ?? '', headers }));
      },
    );
    outgoing.once('error', reject);
    outgoing.end();
  });
};
