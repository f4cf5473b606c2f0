// What the server makes of everything a client can do wrong, and of its limits.
import { connect } from 'node:net';
import sharp from 'sharp';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { REQUEST_OPTIONS } from '../../sdk/src/kontext/options.ts';
import { NOT_UNDER_KONTEXT } from '../../sdk/src/server/http/schema.ts';
import {
  type ApiKey,
  createServer,
  type KontextServer,
  type ListeningServer,
  listen,
  makeKey,
  openApiDocument,
} from '../../sdk/src/server/index.ts';
import { fakeEngine } from './support/fake-engine.ts';

let server: KontextServer;
let port: ListeningServer;
let png: Buffer;
let stepMs = 0;
let prompts: string[] = [];

beforeAll(async () => {
  const engine = fakeEngine();
  const slow: typeof engine = {
    ...engine,
    generate: (request: never) => {
      prompts.push((request as { prompt: string }).prompt);
      return fakeEngine({ stepMs }).generate(request) as never;
    },
  };
  server = createServer({
    models: [{ name: 'kontext', engine: slow, defaults: { steps: 4 } }],
    maxWaiting: 3,
    maxBodyBytes: 100_000,
    maxPixels: 10_000,
    corsOrigins: ['https://app.example'],
    moderate: ({ prompt }) => (prompt.includes('forbidden') ? 'This prompt is not served here.' : undefined),
    processMetrics: false,
  });
  port = await listen(server.fetch, {
    port: 0,
    headersTimeoutMs: 1_000,
    requestTimeoutMs: 2_000,
    answerTimeoutMs: 1_500,
  });
  png = await sharp({ create: { width: 32, height: 32, channels: 3, background: '#0a0' } })
    .png()
    .toBuffer();
});

afterAll(async () => {
  await port.stop();
  await server.close();
});

const json = (path: string, body: unknown, init: RequestInit = {}) =>
  fetch(`${port.url}${path}`, {
    method: 'POST',
    body: typeof body === 'string' ? body : JSON.stringify(body),
    ...init,
    headers: { 'content-type': 'application/json', ...(init.headers as Record<string, string>) },
  });
const form = (parts: Record<string, string | Blob>, path = '/v1/images/edits') => {
  const body = new FormData();
  for (const [name, value] of Object.entries(parts)) body.append(name, value);
  return fetch(`${port.url}${path}`, { method: 'POST', body });
};
const refusal = async (answer: Response) => {
  const { error } = (await answer.json()) as { error: { code: string; param: string | null; message: string } };
  expect(error.message.length).toBeGreaterThan(10);
  return [answer.status, error.code, error.param];
};
/** Sends bytes as they are; resolves with what came back when the server has closed or `ms` have passed. */
const raw = (text: string, ms = 5_000) =>
  new Promise<string>((resolve) => {
    const socket = connect(Number(new URL(port.url).port), '127.0.0.1');
    let received = '';
    const done = () => {
      clearTimeout(timer);
      socket.destroy();
      resolve(received);
    };
    const timer = setTimeout(done, ms);
    socket.on('data', (data) => (received += data));
    socket.on('close', done);
    socket.on('error', done);
    socket.write(text);
  });

describe('bodies', () => {
  it.each([
    ['no JSON', '{"prompt":', 'application/json', 400, 'invalid-json'],
    ['an array', '[]', 'application/json', 400, 'invalid-json'],
    ['invalid UTF-8', Buffer.from([0x22, 0xff, 0x22]), 'application/json', 400, 'invalid-json'],
    ['nothing', '', 'application/json', 400, 'invalid-json'],
    ['another type', 'prompt=x', 'application/x-www-form-urlencoded', 415, 'unsupported-media-type'],
    [
      'a form without its end',
      '--x\r\ncontent-disposition: form-data; name="prompt"\r\n\r\nhello',
      'multipart/form-data; boundary=x',
      400,
      'invalid-multipart',
    ],
    ['a form without boundary', '--x--', 'multipart/form-data', 400, 'invalid-multipart'],
    ['too much', 'x'.repeat(100_001), 'application/json', 413, 'body-too-large'],
    ['far too deep', `${'['.repeat(40_000)}`, 'application/json', 400, 'invalid-json'],
  ])('%s', async (_, body, type, status, code) => {
    const answer = await fetch(`${port.url}/v1/images/generations`, {
      method: 'POST',
      body: body as BodyInit,
      headers: { 'content-type': type },
    });
    expect((await refusal(answer)).slice(0, 2)).toEqual([status, code]);
  });

  it('of unknown length are cut at the limit', async () => {
    const endless = new ReadableStream({
      pull(controller) {
        controller.enqueue(new Uint8Array(10_000));
      },
    });
    const answer = await fetch(`${port.url}/v1/images/generations`, {
      method: 'POST',
      body: endless,
      duplex: 'half',
      headers: { 'content-type': 'application/json' },
    } as RequestInit).catch((error: Error) => error);
    // The server answers and closes; a client that is still writing may see only the second.
    if (answer instanceof Response) expect(answer.status).toBe(413);
    expect((await fetch(`${port.url}/healthz`)).status).toBe(200);
  });
});

describe('pictures', () => {
  const file = (bytes: string | Uint8Array) =>
    new Blob([typeof bytes === 'string' ? bytes : Uint8Array.from(bytes)], { type: 'image/png' });
  it('must be there, be pictures, and be bounded before they are decoded', async () => {
    expect(await refusal(await form({ prompt: 'x' }))).toEqual([400, 'invalid-request', 'image']);
    expect(await refusal(await form({ prompt: 'x', image: file('hello') }))).toEqual([400, 'image-invalid', 'image']);
    expect(await refusal(await form({ prompt: 'x', image: file(png.subarray(0, 20)) }))).toEqual([
      400,
      'image-invalid',
      'image',
    ]);
    const svg = '<svg xmlns="http://www.w3.org/2000/svg" width="10" height="10"/>';
    expect(await refusal(await form({ prompt: 'x', image: file(svg) }))).toEqual([400, 'image-invalid', 'image']);
    // 8000×8000 pixels, of which only the header is read.
    const bomb = await sharp({ create: { width: 8_000, height: 8_000, channels: 3, background: '#000' } })
      .toColourspace('b-w')
      .png({ compressionLevel: 1 })
      .toBuffer();
    const before = process.memoryUsage().rss;
    expect((await refusal(await form({ prompt: 'x', image: file(bomb.subarray(0, 90_000)) })))[1]).toBe(
      'image-too-large',
    );
    expect(process.memoryUsage().rss - before).toBeLessThan(100e6);
    expect(await refusal(await form({ prompt: 'x', image: file(png), other: file(png) }))).toEqual([
      400,
      'invalid-request',
      'other',
    ]);
    expect(await refusal(await form({ prompt: 'x', mask: file(png) }))).toEqual([400, 'invalid-request', 'image']);
  });

  it('by URL: data yes, hosts no, other schemes no', async () => {
    const data = `data:image/png;base64,${png.toString('base64')}`;
    const edit = (image: unknown) => json('/v1/images/edits', { prompt: 'x', image, size: '64x64' });
    expect((await edit(data)).status).toBe(200);
    expect((await edit([{ image_url: data }, data])).status).toBe(200);
    for (const url of [
      'http://127.0.0.1:9/a.png',
      'http://169.254.169.254/latest/meta-data',
      'https://example.com/a.png',
    ]) {
      expect(await refusal(await edit(url))).toEqual([400, 'url-not-allowed', 'image']);
    }
    for (const url of ['file:///etc/passwd', '/etc/passwd', 'data:image/png,abc', 'data:image/png;base64,***', '']) {
      expect((await refusal(await edit(url)))[0]).toBe(400);
    }
  });

  it('by URL from an allowed host, which may not send us elsewhere', async () => {
    const { createServer: createHttp } = await import('node:http');
    const host = createHttp((request, response) => {
      if (request.url === '/a.png') response.end(png);
      else if (request.url === '/away') response.writeHead(302, { location: 'http://127.0.0.2/a.png' }).end();
      else if (request.url === '/round') response.writeHead(302, { location: '/round' }).end();
      else if (request.url === '/long') response.end(Buffer.alloc(200_000));
      else response.writeHead(404).end();
    });
    await new Promise<void>((resolve) => host.listen(0, '127.0.0.1', resolve));
    const at = `127.0.0.1:${(host.address() as { port: number }).port}`;
    const allowing = createServer({
      engine: fakeEngine(),
      allowHosts: [at],
      maxPictureBytes: 50_000,
      processMetrics: false,
    });
    const edit = async (url: string) =>
      allowing.fetch(
        new Request('http://x/v1/images/edits', {
          method: 'POST',
          headers: { 'content-type': 'application/json' },
          body: JSON.stringify({ prompt: 'x', image: url, size: '64x64', kontext: { steps: 1 } }),
        }),
      );
    expect((await edit(`http://${at}/a.png`)).status).toBe(200);
    expect(await refusal(await edit(`http://${at}/away`))).toEqual([400, 'url-not-allowed', 'image']);
    expect(await refusal(await edit(`http://${at}/round`))).toEqual([400, 'image-unreachable', 'image']);
    expect(await refusal(await edit(`http://${at}/long`))).toEqual([413, 'image-too-large', 'image']);
    expect(await refusal(await edit(`http://${at}/gone`))).toEqual([400, 'image-unreachable', 'image']);
    await allowing.close();
    await new Promise((resolve) => host.close(resolve));
  });
});

it('takes adapters by the names the server has loaded, never a place to read from', async () => {
  const seen: unknown[] = [];
  const engine = fakeEngine({ onRequest: (request) => seen.push((request as { adapters?: unknown }).adapters) });
  const own = createServer({ engine, processMetrics: false });
  const ask = (adapters: unknown) =>
    own.fetch(
      new Request('http://x/v1/images/generations', {
        method: 'POST',
        headers: { 'content-type': 'application/json' },
        body: JSON.stringify({ prompt: 'x', size: '64x64', kontext: { steps: 1, adapters } }),
      }),
    );
  expect((await ask([{ name: 'sepia', scale: 0.5 }])).status).toBe(200);
  expect(seen).toEqual([[{ name: 'sepia', scale: 0.5 }]]);
  for (const source of ['/etc/passwd', 'http://169.254.169.254/x.safetensors']) {
    expect((await ask([{ name: 'a', source }])).status).toBe(400);
    expect((await ask([{ source }])).status).toBe(400);
  }
  await own.close();
});

describe('the queue', () => {
  it('is bounded: 429 with Retry-After from measured speed', async () => {
    stepMs = 0;
    expect((await json('/v1/images/generations', { prompt: 'warm', size: '64x64' })).status).toBe(200);
    stepMs = 150;
    const accepted = Array.from({ length: 4 }, () => json('/v1/jobs', { prompt: 'x', size: '64x64' }));
    for (const answer of await Promise.all(accepted)) expect(answer.status).toBe(202);
    const full = await json('/v1/jobs', { prompt: 'x', size: '64x64' });
    expect(full.status).toBe(429);
    expect(Number(full.headers.get('retry-after'))).toBeGreaterThanOrEqual(1);
    await server
      .fetch(new Request('http://x/metrics'))
      .then(async (answer) => expect(await answer.text()).toContain('kontext_queue_waiting 3'));
    for (const answer of await Promise.all(accepted)) {
      const { id } = (await answer.json()) as { id: string };
      expect((await fetch(`${port.url}/v1/jobs/${id}`, { method: 'DELETE' })).status).toBe(204);
    }
  });

  it('ends the job of a client that hangs up', async () => {
    stepMs = 300;
    prompts = [];
    const gone = new AbortController();
    const first = json('/v1/images/generations', { prompt: 'first', size: '64x64' }, { signal: gone.signal });
    await new Promise((resolve) => setTimeout(resolve, 150));
    gone.abort();
    await expect(first).rejects.toThrow();
    stepMs = 0;
    const started = performance.now();
    expect((await json('/v1/images/generations', { prompt: 'second', size: '64x64' })).status).toBe(200);
    expect(performance.now() - started).toBeLessThan(900);
    expect(prompts).toEqual(['first', 'second']);
  });

  it('moderates before it accepts', async () => {
    expect(await refusal(await json('/v1/images/generations', { prompt: 'forbidden fruit' }))).toEqual([
      400,
      'moderation_blocked',
      'prompt',
    ]);
  });
});

describe('jobs', () => {
  it('are accepted, followed from where one left, fetched, and dropped', async () => {
    stepMs = 20;
    const { id } = (await (await json('/v1/jobs', { prompt: 'x', size: '64x64', output_format: 'webp' })).json()) as {
      id: string;
    };
    const text = await (await fetch(`${port.url}/v1/jobs/${id}/events`)).text();
    const events = [...text.matchAll(/^id: (\d+)\nevent: (\w+)/gm)].map(([, seq, type]) => [Number(seq), type]);
    expect(events.at(-1)![1]).toBe('done');
    const late = await fetch(`${port.url}/v1/jobs/${id}/events`, {
      headers: { 'last-event-id': String(events.at(-2)![0]) },
    });
    expect([...(await late.text()).matchAll(/^event: (\w+)/gm)].map(([, type]) => type)).toEqual(['done']);
    const job = (await (await fetch(`${port.url}/v1/jobs/${id}`)).json()) as {
      status: string;
      data: { url: string }[];
    };
    expect(job.status).toBe('done');
    const file = await fetch(new URL(job.data[0]!.url, port.url));
    expect(file.headers.get('content-type')).toBe('image/webp');
    expect((await fetch(`${port.url}/v1/jobs/${id}`, { method: 'DELETE' })).status).toBe(204);
    expect((await fetch(`${port.url}/v1/jobs/${id}`)).status).toBe(404);
    expect((await fetch(new URL(job.data[0]!.url, port.url))).status).toBe(404);
  });

  it.each(['../../etc/passwd', '%2e%2e%2fetc', '00000000-0000-0000-0000-000000000000/../a.png', 'x/0.png'])(
    'files named %s are not there',
    async (name) => {
      expect((await fetch(`${port.url}/v1/files/${name}`)).status).toBe(404);
    },
  );
});

describe('keys', () => {
  it('limit rate and concurrency, and hide jobs from each other', async () => {
    const alice = makeKey('alice');
    const bob = makeKey('bob');
    const entries: ApiKey[] = [{ ...alice.entry, requestsPerMinute: 3, concurrency: 2 }, bob.entry];
    const keyed = createServer({ engine: fakeEngine({ stepMs: 5 }), keys: entries, processMetrics: false });
    const call = (key: string, path: string, body?: unknown) =>
      keyed.fetch(
        new Request(`http://x${path}`, {
          method: body ? 'POST' : 'GET',
          headers: { 'content-type': 'application/json', authorization: `Bearer ${key}` },
          ...(body ? { body: JSON.stringify(body) } : {}),
        }),
      );
    const body = { prompt: 'x', size: '64x64', kontext: { steps: 2 } };
    const three = await Promise.all([1, 2, 3].map(() => call(alice.key, '/v1/images/generations', body)));
    expect(three.map(({ status }) => status).sort()).toEqual([200, 200, 429]);
    expect((await refusal(three.find(({ status }) => status === 429)!))[1]).toBe('concurrency-limit');
    await call(alice.key, '/v1/images/generations', body);
    const limited = await call(alice.key, '/v1/images/generations', body);
    expect([limited.status, Number(limited.headers.get('retry-after')) > 0]).toEqual([429, true]);
    const { id } = (await (await call(bob.key, '/v1/jobs', body)).json()) as { id: string };
    expect((await call(bob.key, `/v1/jobs/${id}`)).status).toBe(200);
    expect((await call(alice.key, `/v1/jobs/${id}`)).status).toBe(404);
    expect((await keyed.fetch(new Request('http://x/v1/models'))).status).toBe(401);
    await keyed.close();
  });
});

describe('the wire', () => {
  it.each([
    ['GET // HTTP/1.1\r\nhost: x\r\n\r\n'],
    ['GET http:// HTTP/1.1\r\nhost: x\r\n\r\n'],
    ['GET /%E0%A4%A HTTP/1.1\r\nhost: x\r\n\r\n'],
    ['POST /v1/images/edits HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n'],
    ['\0\0\0\0\r\n\r\n'],
    [`GET /${'a'.repeat(20_000)} HTTP/1.1\r\nhost: x\r\n\r\n`],
    ['OPTIONS * HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n'],
  ])('survives %j', async (text) => {
    await raw(text, 400);
    expect((await fetch(`${port.url}/healthz`)).status).toBe(200);
  });

  it('does not wait for slow headers or bodies', async () => {
    const started = performance.now();
    await raw('GET /healthz HTTP/1.1\r\nhost: x\r\nx-slow: ', 8_000);
    expect(performance.now() - started).toBeLessThan(4_000);
    const body = await raw(
      'POST /v1/images/generations HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n{',
      8_000,
    );
    expect(body).toMatch(/^(HTTP\/1.1 (408|400)|$)/);
    expect(performance.now() - started).toBeLessThan(9_000);
  });

  it('keeps CORS shut but for the origins it was given, and names requests', async () => {
    const other = await fetch(`${port.url}/healthz`, {
      headers: { origin: 'https://evil.example', 'x-request-id': 'abc-1' },
    });
    expect([other.headers.get('access-control-allow-origin'), other.headers.get('x-request-id')]).toEqual([
      null,
      'abc-1',
    ]);
    const own = await fetch(`${port.url}/v1/jobs`, { method: 'OPTIONS', headers: { origin: 'https://app.example' } });
    expect([own.status, own.headers.get('access-control-allow-origin')]).toEqual([204, 'https://app.example']);
    const odd = await fetch(`${port.url}/healthz`, { headers: { 'x-request-id': 'a b<c>' } });
    expect(odd.headers.get('x-request-id')).toMatch(/^[\w-]{36}$/);
  });
});

it('drains: says no to the balancer, still serves what comes, finishes what it has, then closes', async () => {
  const draining = createServer({ engine: fakeEngine({ stepMs: 100 }), processMetrics: false });
  const own = await listen(draining.fetch, { port: 0 });
  const ask = () =>
    fetch(`${own.url}/v1/images/generations`, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify({ prompt: 'x', size: '64x64', kontext: { steps: 4 } }),
    });
  const before = ask();
  await new Promise((resolve) => setTimeout(resolve, 100));
  draining.beginDrain();
  expect((await fetch(`${own.url}/readyz`)).status).toBe(503);
  const after = ask();
  await new Promise((resolve) => setTimeout(resolve, 100));
  const ended = Promise.all([own.stop(), draining.drain()]);
  expect([(await before).status, (await after).status]).toEqual([200, 200]);
  await ended;
  await expect(fetch(`${own.url}/healthz`)).rejects.toThrow();
  await draining.close();
});

it('describes itself: every option of the table is in the document or said to be elsewhere', () => {
  const text = JSON.stringify(openApiDocument('1.0.0'));
  for (const name of Object.keys(REQUEST_OPTIONS)) {
    if (!(name in NOT_UNDER_KONTEXT)) expect(text, name).toContain(`"${name}":`);
  }
  const { openapi, paths } = JSON.parse(text) as { openapi: string; paths: Record<string, unknown> };
  expect(openapi).toBe('3.1.0');
  expect(Object.keys(paths)).toEqual(expect.arrayContaining(['/v1/images/edits', '/v1/jobs/{id}/events', '/metrics']));
});
