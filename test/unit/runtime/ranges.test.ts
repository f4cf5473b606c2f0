// Ranges of a file on a server that is busy, cuts, lies, compresses, changes the file, or says nothing.
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { gzipSync } from 'node:zlib';
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { type AccessPolicy, checkAccess, isPrivateAddress } from '../../../runtime/src/net/access.ts';
import { fetchBytes } from '../../../runtime/src/net/fetch-bytes.ts';
import { retryAfter } from '../../../runtime/src/net/retry.ts';
import { sameVersion } from '../../../runtime/src/net/version.ts';
import { abortable } from '../../../runtime/src/net/wait.ts';
import { isWebPage } from '../../../runtime/src/net/web-page.ts';
import { urlBytes } from '../../../runtime/src/weights/url.ts';

const content = Uint8Array.from({ length: 5000 }, (_, i) => (i * 31 + (i >> 7)) & 255);
type Handler = (request: IncomingMessage, response: ServerResponse) => void;

let server: Server;
let base: string;
let other: Server;
let otherBase: string;
/** Takes the next answers, one each; afterwards the file is served as it should be. */
let answers: Handler[] = [];
let etag = '"one"';
const seen: { range: string; headers: IncomingMessage['headers']; url: string }[] = [];

const serveRange: Handler = (request, response) => {
  const [, start, end] = /bytes=(\d+)-(\d+)/.exec(request.headers.range ?? '') ?? [];
  if (start === undefined) return void response.writeHead(200, { etag }).end(content);
  const last = Math.min(Number(end), content.length - 1);
  if (request.headers['if-range'] !== undefined && request.headers['if-range'] !== etag) {
    return void response.writeHead(200, { etag, 'content-length': content.length }).end(content);
  }
  response.writeHead(206, { etag, 'content-range': `bytes ${start}-${last}/${content.length}` });
  response.end(content.slice(Number(start), last + 1));
};
const range = (start: number, end: number, body: Uint8Array, headers: Record<string, string> = {}): Handler => {
  return (_, response) =>
    void response
      .writeHead(206, { 'content-range': `bytes ${start}-${end - 1}/${content.length}`, etag, ...headers })
      .end(body);
};
const status = (code: number, headers: Record<string, string> = {}): Handler => {
  return (_, response) => void response.writeHead(code, headers).end();
};
const cut: Handler = (request, response) => {
  const start = Number(/bytes=(\d+)/.exec(request.headers.range!)![1]);
  const end = Math.min(Number(/-(\d+)/.exec(request.headers.range!)![1]) + 1, content.length);
  response.writeHead(206, {
    etag,
    'content-range': `bytes ${start}-${end - 1}/${content.length}`,
    'content-length': end - start,
  });
  response.write(content.slice(start, start + Math.floor((end - start) / 2)), () => response.destroy());
};

async function listen(handler: Handler): Promise<[Server, string]> {
  const made = createServer(handler);
  await new Promise<void>((resolve) => made.listen(0, '127.0.0.1', resolve));
  return [made, `http://127.0.0.1:${(made.address() as AddressInfo).port}`];
}

beforeAll(async () => {
  const handler: Handler = (request, response) => {
    seen.push({ range: request.headers.range ?? '', headers: request.headers, url: request.url! });
    (answers.shift() ?? serveRange)(request, response);
  };
  [server, base] = await listen(handler);
  [other, otherBase] = await listen(handler);
});
afterAll(() => {
  for (const one of [server, other]) {
    one.closeAllConnections();
    one.close();
  }
});
beforeEach(() => {
  answers = [];
  etag = '"one"';
  seen.length = 0;
});

const slice = (start: number, end: number) => [...content.slice(start, end)];

describe('retries', () => {
  for (const [what, answer] of [
    ['503', status(503)],
    ['429 with Retry-After', status(429, { 'retry-after': '0' })],
    ['408', status(408)],
    ['a reset', (_: IncomingMessage, response: ServerResponse) => void response.destroy()],
    ['more bytes than asked for', range(1000, 1100, content.slice(1000, 1100))],
    ['another range', range(0, 100, content.slice(0, 100))],
    ['compressed bytes', range(1000, 1064, gzipSync(content.slice(1000, 1064)), { 'content-encoding': 'gzip' })],
    [
      'the whole file',
      (_: IncomingMessage, response: ServerResponse) => void response.writeHead(200, { etag }).end(content),
    ],
  ] as [string, Handler][]) {
    it(`reads on after ${what}`, async () => {
      const source = await urlBytes(`${base}/f`);
      answers = [answer];
      expect([...(await source.read(1000, 1064))]).toEqual(slice(1000, 1064));
      expect(seen).toHaveLength(3);
    });
  }

  it('asks only for the rest after a cut connection', async () => {
    const source = await urlBytes(`${base}/f`);
    answers = [cut];
    expect([...(await source.read(1000, 2000))]).toEqual(slice(1000, 2000));
    expect(seen.map((s) => s.range)).toEqual(['bytes=0-0', 'bytes=1000-1999', 'bytes=1500-1999']);
    expect(seen[2]!.headers).toMatchObject({ 'if-range': '"one"', 'accept-encoding': 'identity' });
  });

  it('gives up after the attempts, with the status; at once where repeating is no use', async () => {
    const source = await urlBytes(`${base}/f`, { attempts: 2 });
    answers = [status(503), status(503)];
    await expect(source.read(0, 10)).rejects.toMatchObject({ code: 'download-failed', details: { status: 503 } });
    seen.length = 0;
    answers = [status(403)];
    await expect(source.read(0, 10)).rejects.toThrow(/403.*access/);
    answers = [status(429, { 'retry-after': '86400' })];
    await expect(source.read(0, 10)).rejects.toThrow(/come back in 86400 s/);
    expect(seen).toHaveLength(2);
  });

  it('a wait for Retry-After ends at once when cancelled', async () => {
    const source = await urlBytes(`${base}/f`);
    answers = [status(429, { 'retry-after': '60' })];
    const stop = new AbortController();
    const reading = source.read(0, 10, stop.signal);
    setTimeout(() => stop.abort(), 50);
    const started = performance.now();
    await expect(reading).rejects.toMatchObject({ code: 'aborted' });
    expect(performance.now() - started).toBeLessThan(2000);
  });

  it('an attempt without a byte for too long is given up, in headers and in the body', async () => {
    const source = await urlBytes(`${base}/f`, { stallMs: 1500 });
    answers = [
      () => {},
      (_, response) => void response.writeHead(206, { etag, 'content-range': 'bytes 0-9/5000' }).write('x'),
    ];
    expect([...(await source.read(0, 10))]).toEqual(['x'.charCodeAt(0), ...slice(1, 10)]);
    expect(seen.map((s) => s.range).slice(-1)).toEqual(['bytes=1-9']);
  });

  it('any number of waits on one signal put one listener on it, and take it off', async () => {
    const { signal } = new AbortController();
    let listeners = 0;
    const [add, remove] = [signal.addEventListener.bind(signal), signal.removeEventListener.bind(signal)];
    signal.addEventListener = (...args: Parameters<typeof add>) => {
      listeners++;
      add(...args);
    };
    signal.removeEventListener = (...args: Parameters<typeof remove>) => {
      listeners--;
      remove(...args);
    };
    const waits = Array.from({ length: 50 }, (_, i) =>
      abortable(new Promise((done) => setTimeout(done, i % 7)), signal),
    );
    expect(listeners).toBe(1);
    await Promise.all(waits);
    expect(listeners).toBe(0);
  });

  it('a fetch that never settles and ignores its signal holds nobody', async () => {
    const stop = new AbortController();
    const opening = urlBytes(`${base}/f`, { fetch: () => new Promise(() => {}), signal: stop.signal });
    stop.abort();
    await expect(opening).rejects.toMatchObject({ code: 'aborted' });
  });

  it('reads Retry-After as seconds or a date', () => {
    expect(retryAfter('7', 0)).toBe(7000);
    expect(retryAfter('Thu, 01 Jan 1970 00:00:30 GMT', 10_000)).toBe(20_000);
    expect(retryAfter('soon', 0)).toBeUndefined();
    expect(retryAfter('-5', 0)).not.toBe(-5000);
  });
});

describe('one release only', () => {
  it('a file that changes while it is read is an error, whichever way the server tells', async () => {
    const source = await urlBytes(`${base}/f`);
    etag = '"two"';
    await expect(source.read(0, 10)).rejects.toMatchObject({ code: 'download-failed', details: { changed: true } });
    answers = [range(0, 10, content.slice(0, 10))];
    await expect(source.read(0, 10)).rejects.toMatchObject({ details: { changed: true } });
    etag = '"one"';
    answers = [(_, r) => void r.writeHead(206, { etag, 'content-range': 'bytes 0-9/4999' }).end(content.slice(0, 10))];
    await expect(source.read(0, 10)).rejects.toMatchObject({ details: { changed: true } });
    answers = [status(416, { 'content-range': 'bytes */5' })];
    await expect(source.read(0, 10)).rejects.toMatchObject({ details: { changed: true } });
  });

  it('compares strong tags first, then dates and weak tags', () => {
    const v = (etag: string | null, lastModified: string | null = null, size = 5) => ({ size, etag, lastModified });
    expect(sameVersion(v('"a"', 'Monday'), v('"a"', 'Tuesday'))).toBe(true);
    expect(sameVersion(v('"a"'), v('"b"'))).toBe(false);
    expect(sameVersion(v('W/"a"', 'Monday'), v('W/"a"', 'Tuesday'))).toBe(false);
    expect(sameVersion(v(null, 'Monday'), v(null, 'Tuesday'))).toBe(false);
    expect(sameVersion(v(null, 'Monday', 5), v(null, 'Monday', 6))).toBe(false);
  });
});

describe('missing files', () => {
  const page = '<!DOCTYPE html><html><body>App</body></html>';
  const html = (code: number, type = 'text/html; charset=utf-8', body = page): Handler => {
    return (request, response) => {
      if (code === 200) return void response.writeHead(200, { 'content-type': type }).end(body);
      const end = Math.min(Number(/-(\d+)/.exec(request.headers.range!)![1]) + 1, body.length);
      response.writeHead(206, { 'content-type': type, 'content-range': `bytes 0-${end - 1}/${body.length}` });
      response.end(body.slice(0, end));
    };
  };
  for (const [what, ...made] of [
    ['404', status(404)],
    ['410', status(410)],
    ['a page answered with 200', html(200)],
    ['a page answered with 206', html(206), html(206)],
    ['a page called octets', html(200, 'application/octet-stream')],
    ['a page called octets, in ranges', html(206, 'application/octet-stream'), html(206, 'application/octet-stream')],
    ['a page that begins with a comment', html(200, 'text/html', '\n<!-- app -->\n<div></div>')],
  ] as [string, ...Handler[]][]) {
    it(`are known by ${what}`, async () => {
      answers = made;
      await expect(urlBytes(`${base}/f`)).rejects.toMatchObject({
        code: 'download-failed',
        details: { missing: true },
      });
    });
  }

  it('a file is not taken for a page: JSON sent as HTML, weights that begin with "<", an empty one', async () => {
    answers = [html(200, 'text/html', '{"a": 1}')];
    expect((await urlBytes(`${base}/f`)).size).toBe(8);
    answers = [
      html(206, 'application/octet-stream', '<\0\0\0\0\0\0\0{"a": 1}'),
      html(206, '', '<\0\0\0\0\0\0\0{"a": 1}'),
    ];
    expect((await urlBytes(`${base}/f`)).size).toBe(16);
    answers = [status(416, { 'content-range': 'bytes */0' })];
    expect((await urlBytes(`${base}/f`)).size).toBe(0);
    expect(isWebPage(new TextEncoder().encode('\ufeff <HTML lang="de">'), null)).toBe(true);
  });
});

describe('redirects', () => {
  const to = (location: string): Handler => status(302, { location });

  it('lead to another host without the app’s headers, and are remembered', async () => {
    answers = [to(`${otherBase}/signed?x=1`)];
    const source = await urlBytes(`${base}/f`, { headers: { authorization: 'Bearer secret' } });
    await source.read(0, 4);
    expect(seen.map((s) => [s.url, s.headers.authorization])).toEqual([
      ['/f', 'Bearer secret'],
      ['/signed?x=1', undefined],
      ['/signed?x=1', undefined],
    ]);
  });

  it('a signed address that has run out is asked for again', async () => {
    answers = [to('/signed?x=1')];
    const source = await urlBytes(`${base}/f`, { headers: { authorization: 'Bearer secret' } });
    answers = [status(403), to('/signed?x=2')];
    expect([...(await source.read(0, 4))]).toEqual(slice(0, 4));
    expect(seen.map((s) => s.url)).toEqual(['/f', '/signed?x=1', '/signed?x=1', '/f', '/signed?x=2']);
    expect(seen.every((s) => s.headers.authorization === 'Bearer secret')).toBe(true);
  });

  it('are bounded, and do not leave http(s), carry passwords or go to hosts that are not listed', async () => {
    answers = Array.from({ length: 20 }, () => to('/again'));
    await expect(urlBytes(`${base}/f`)).rejects.toThrow(/more than 5 times/);
    expect(seen).toHaveLength(6);
    for (const [location, message] of [
      ['file:///etc/passwd', /from http: to file:/],
      ['ftp://host/x', /from http: to ftp:/],
      [`${base.replace('//', '//user:pw@')}/x`, /password/],
      [`${otherBase.replace('127.0.0.1', 'localhost')}/x`, /allowHosts/],
    ] as const) {
      answers = [to(location)];
      await expect(urlBytes(`${base}/f`, { access: { allowHosts: ['127.0.0.1'] } })).rejects.toThrow(message);
    }
  });
});

describe('access', () => {
  it('refuses private addresses by literal, by name, and by what a name resolves to', async () => {
    const refuse: AccessPolicy = { privateAddresses: 'refuse' };
    for (const host of [
      '127.0.0.1',
      '0x7f.1',
      '2130706433',
      '10.1.2.3',
      '169.254.169.254',
      '[::1]',
      '[::ffff:10.0.0.1]',
      '[fd00::1]',
      '[fe80::1]',
      '[64:ff9b::a00:1]',
      '[2002:a00:1::]',
      'localhost',
      'localhost.',
      'db.internal',
      'printer',
    ]) {
      expect(() => checkAccess(new URL(`http://${host}/x`), refuse), host).toThrow(/private network/);
      await expect(fetchBytes(`http://${host}:9/x`, 10, { access: refuse }), host).rejects.toMatchObject({
        code: 'download-failed',
        details: { refused: true },
      });
    }
    for (const host of ['8.8.8.8', '[2606:4700::1111]', 'example.com', '172.32.0.1']) {
      expect(() => checkAccess(new URL(`http://${host}/x`), refuse), host).not.toThrow();
    }
    expect(isPrivateAddress('nonsense')).toBe(true);
  });

  it('connects to checked addresses only', async () => {
    const { pinnedFetch } = await import('../../../runtime/src/net/pinned.ts');
    // A public name that resolves to the loopback address, as an attacker's would: the machine's own name does.
    await expect(pinnedFetch('http://localhost:9/')).rejects.toMatchObject({ details: { refused: true } });
    const port = new URL(base).port;
    const response = await pinnedFetch(`http://127.0.0.1:${port}/f`, { headers: { range: 'bytes=0-3' } });
    expect([response.status, ...new Uint8Array(await response.arrayBuffer())]).toEqual([206, ...slice(0, 4)]);
  });

  it('lists hosts exactly, with everything below, or with a port', () => {
    const allowed = (url: string, ...allowHosts: string[]) => {
      try {
        checkAccess(new URL(url), { allowHosts });
        return true;
      } catch {
        return false;
      }
    };
    expect(allowed('https://a.com/x', 'a.com')).toBe(true);
    expect(allowed('https://b.a.com/x', 'a.com')).toBe(false);
    expect(allowed('https://b.a.com/x', '*.a.com')).toBe(true);
    expect(allowed('https://bada.com/x', '*.a.com')).toBe(false);
    expect(allowed('https://a.com:444/x', 'a.com:443')).toBe(false);
    expect(allowed('https://a.com/x', 'a.com:443')).toBe(true);
    expect(allowed('ftp://a.com/x', 'a.com')).toBe(false);
  });

  it('reads a body no further than its limit, also a compressed or endless one', async () => {
    answers = [(_, r) => void r.writeHead(200, { 'content-encoding': 'gzip' }).end(gzipSync(new Uint8Array(10 ** 7)))];
    await expect(fetchBytes(`${base}/bomb`, 1000)).rejects.toThrow(/more than the 1000 bytes/);
    answers = [
      (_, r) => {
        const more = setInterval(() => r.write(new Uint8Array(100)), 1);
        r.once('close', () => clearInterval(more));
      },
    ];
    await expect(fetchBytes(`${base}/endless`, 1000)).rejects.toThrow(/more than the 1000 bytes/);
    expect([...(await fetchBytes(`${base}/f`, 5000)).bytes]).toEqual(slice(0, 5000));
  });
});
