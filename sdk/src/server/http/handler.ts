// Request in, Response out: routes, keys, request ids, errors, logs and metrics around the images and jobs routes.
// Runs wherever fetch's types do: Node, Deno, and inside Express, Hono, Fastify or Next through their adapters.
import { Hono } from 'hono';
import type { ServerContext } from './accept.ts';
import { ApiError, toApiError } from './errors.ts';
import type { Admission, Doorkeeper } from './keys.ts';
import type { Logger } from './logger.ts';
import type { Metrics } from './metrics.ts';
import { openApiDocument } from './openapi.ts';
import { answerImages } from './routes-images.ts';
import { deleteJob, getFile, getJob, jobEvents, postJob } from './routes-jobs.ts';

/** What the routes need beyond {@link ServerContext}. */
export interface HandlerContext extends ServerContext {
  doorkeeper: Doorkeeper;
  metrics: Metrics;
  log: Logger;
  /** Origins that browsers may call from; none by default. */
  corsOrigins: readonly string[];
  /** Of the package. */
  version: string;
  /** The built-in page and its files; undefined serves none. */
  page?: (path: string) => Promise<Response | undefined>;
  /** Whether it takes work. */
  ready: () => Promise<boolean>;
}

/** The server as a function. */
export function createFetchHandler(context: HandlerContext): (request: Request) => Promise<Response> {
  const app = new Hono<{ Bindings: { requestId: string } }>();
  const { doorkeeper, queue } = context;

  /** Admits a request that makes work, and counts it until its answer has ended. */
  const working = async (request: Request, work: (admission: Admission) => Promise<Response>): Promise<Response> => {
    const admission = doorkeeper.admit(request.headers.get('authorization'));
    try {
      return released(await work(admission), admission.release);
    } catch (error) {
      admission.release();
      throw error;
    }
  };
  const client = (request: Request) => ({
    id: doorkeeper.identify(request.headers.get('authorization'))?.id ?? 'anonymous',
    priority: 0,
  });

  app.post('/v1/images/generations', ({ req }) =>
    working(req.raw, (admission) => answerImages(context, req.raw, 'generations', admission.client)),
  );
  app.post('/v1/images/edits', ({ req }) =>
    working(req.raw, (admission) => answerImages(context, req.raw, 'edits', admission.client)),
  );
  app.post('/v1/jobs', ({ req }) => working(req.raw, (admission) => postJob(context, req.raw, admission.client)));
  app.get('/v1/jobs/:id', ({ req }) => getJob(context, req.param('id'), client(req.raw)));
  app.delete('/v1/jobs/:id', ({ req }) => deleteJob(context, req.param('id'), client(req.raw)));
  app.get('/v1/jobs/:id/events', ({ req }) => jobEvents(context, req.raw, req.param('id'), client(req.raw)));
  app.get('/v1/files/:id/:name', ({ req }) => getFile(context, req.param('id'), req.param('name')));
  app.get('/v1/models', async ({ req }) => {
    client(req.raw);
    const data = (await queue.models()).map(({ name }) => ({
      id: name,
      object: 'model',
      created: 0,
      owned_by: 'kontext-webgpu',
    }));
    return Response.json({ object: 'list', data });
  });
  app.get('/healthz', () => new Response('ok\n'));
  app.get('/readyz', async () =>
    (await context.ready()) ? new Response('ready\n') : new Response('not ready\n', { status: 503 }),
  );
  app.get(
    '/metrics',
    async () =>
      new Response(await context.metrics.text(queue), { headers: { 'content-type': context.metrics.contentType } }),
  );
  app.get('/openapi.json', () => Response.json(openApiDocument(context.version)));

  app.notFound(async ({ req }) => {
    const page = req.method === 'GET' ? await context.page?.(new URL(req.url).pathname) : undefined;
    return (
      page ??
      failure(
        new ApiError(404, 'not-found', `There is no ${req.method} ${req.path}. GET /openapi.json lists what there is.`),
      )
    );
  });
  app.onError((error, { req, env }) => {
    const known = toApiError(error);
    if (known.status >= 500)
      context.log.error({ requestId: env.requestId, route: req.path, error: String(error.stack ?? error) }, 'failed');
    return failure(known);
  });
  return (request) => observed(context, request, (id) => app.fetch(request, { requestId: id }) as Promise<Response>);
}

function failure(error: ApiError): Response {
  // 499 is a log's convention for a client that left; it has no reason phrase and is never read.
  return Response.json(error.toJSON(), { status: error.status, headers: error.headers() });
}

/** Request id, CORS, log and metrics around one request. */
async function observed(
  { log, metrics, corsOrigins }: HandlerContext,
  request: Request,
  answer: (requestId: string) => Promise<Response>,
): Promise<Response> {
  const given = request.headers.get('x-request-id');
  const requestId = given !== null && /^[\w-]{1,64}$/.test(given) ? given : crypto.randomUUID();
  const started = performance.now();
  const { pathname } = new URL(request.url);
  const origin = request.headers.get('origin');
  const cors = origin !== null && corsOrigins.includes(origin) ? corsHeaders(origin) : {};
  const response =
    request.method === 'OPTIONS' && origin !== null ? new Response(null, { status: 204 }) : await answer(requestId);
  response.headers.set('x-request-id', requestId);
  for (const [name, value] of Object.entries(cors)) response.headers.set(name, value);
  const { status } = response;
  return released(response, () => {
    const seconds = (performance.now() - started) / 1000;
    const route = routeLabel(pathname);
    metrics.request(route, status, seconds);
    log.info({ requestId, method: request.method, route, status, ms: Math.round(seconds * 1000) }, 'answered');
  });
}

function corsHeaders(origin: string): Record<string, string> {
  return {
    'access-control-allow-origin': origin,
    'access-control-allow-methods': 'GET, POST, DELETE',
    'access-control-allow-headers': 'authorization, content-type, idempotency-key, last-event-id, x-request-id',
    'access-control-expose-headers': 'x-request-id, retry-after, location',
    'access-control-max-age': '600',
    vary: 'origin',
  };
}

/** Ids and unknown paths do not become labels. */
function routeLabel(path: string): string {
  if (/^\/v1\/(images\/(generations|edits)|jobs|models)$/.test(path)) return path;
  if (/^\/v1\/jobs\/[^/]+(\/events)?$/.test(path)) return path.replace(/^\/v1\/jobs\/[^/]+/, '/v1/jobs/:id');
  if (path.startsWith('/v1/files/')) return '/v1/files/:id/:name';
  return ['/', '/healthz', '/readyz', '/metrics', '/openapi.json'].includes(path) ? path : 'other';
}

/** The same answer, with `done` called once its work is over: at once, or when its events have ended or nobody reads them. */
function released(response: Response, done: () => void): Response {
  if (!response.body || !response.headers.get('content-type')?.startsWith('text/event-stream')) {
    done();
    return response;
  }
  const reader = response.body.getReader();
  const body = new ReadableStream<Uint8Array>(
    {
      async pull(controller) {
        try {
          const { done: ended, value } = await reader.read();
          if (!ended) return controller.enqueue(value);
          controller.close();
          done();
        } catch (error) {
          done();
          controller.error(error);
        }
      },
      async cancel(reason) {
        done();
        await reader.cancel(reason);
      },
    },
    { highWaterMark: 0 },
  );
  return new Response(body, { status: response.status, headers: response.headers });
}
