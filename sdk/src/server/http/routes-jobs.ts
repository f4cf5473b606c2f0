// /v1/jobs: work that outlives its request. Accept, look, follow, cancel, fetch.
import { createHash } from 'node:crypto';
import type { JobEvent, JobImage, JobState } from '../jobs/types.ts';
import { enqueue, type ReadRequest, readRequest, type ServerContext } from './accept.ts';
import { ApiError } from './errors.ts';
import type { Client } from './job-request.ts';
import { details, usage } from './routes-images.ts';
import { eventResponse, type ServerSentEvent } from './sse.ts';

/** `POST /v1/jobs`: 202 with the job; the same Idempotency-Key gives the same job. */
export async function postJob(context: ServerContext, request: Request, client: Client): Promise<Response> {
  const key = request.headers.get('idempotency-key');
  if (key !== null && !/^[\x21-\x7e]{1,200}$/.test(key)) {
    throw new ApiError(400, 'invalid-request', 'Idempotency-Key must be 1 to 200 visible characters.');
  }
  const read = await readRequest(context, request, 'jobs');
  if (key === null) return accepted(context, (await enqueue(context, read, client)).id);
  const [own, digest] = [crypto.randomUUID(), digestOf(read)];
  const known = await context.queue.remember(client.id, key, own, digest);
  if (known.digest !== digest) {
    throw new ApiError(422, 'idempotency-mismatch', 'This Idempotency-Key was used with another body. Use a new one.');
  }
  // A key whose first request was refused tries again under the same id; a queue takes each id once.
  if (known.id === own || !(await context.queue.state(known.id))) await enqueue(context, read, client, known.id);
  return accepted(context, known.id);
}

/** `GET /v1/jobs/ID`. */
export async function getJob(context: ServerContext, id: string, client: Client): Promise<Response> {
  return Response.json(view(context, await ownJob(context, id, client)));
}

/** `DELETE /v1/jobs/ID`: ends it if it has not ended, and drops its pictures if it has. */
export async function deleteJob(context: ServerContext, id: string, client: Client): Promise<Response> {
  await ownJob(context, id, client);
  if (!(await context.queue.cancel(id))) await context.queue.forget(id);
  return new Response(null, { status: 204 });
}

/** `GET /v1/jobs/ID/events`: from the start, or after Last-Event-ID. */
export async function jobEvents(
  context: ServerContext,
  request: Request,
  id: string,
  client: Client,
): Promise<Response> {
  await ownJob(context, id, client);
  const after = Number(request.headers.get('last-event-id') ?? 0);
  const gone = new AbortController();
  const leave = () => gone.abort();
  request.signal.addEventListener('abort', leave, { once: true });
  const events = context.queue.events(id, Number.isInteger(after) && after > 0 ? after : 0, gone.signal);
  return eventResponse(named(context, events), leave);
}

/** `GET /v1/files/ID/NAME`: a finished picture. The id is the secret, as with signed links; it ends with the job. */
export async function getFile({ store }: ServerContext, id: string, name: string): Promise<Response> {
  const [, format] = /^(?:partial-)?\d\.(png|jpeg|webp)$/.exec(name) ?? [];
  const bytes = format && /^[\w-]{36}$/.test(id) ? await store.get(`${id}/${name}`) : undefined;
  if (!bytes) throw new ApiError(404, 'not-found', 'There is no such picture, or its time is over.');
  return new Response(bytes, {
    headers: {
      'content-type': `image/${format}`,
      'cache-control': 'private, max-age=3600',
      'x-content-type-options': 'nosniff',
    },
  });
}

async function accepted(context: ServerContext, id: string): Promise<Response> {
  const state = await context.queue.state(id);
  const body = state ? view(context, state) : { id, object: 'job', status: 'queued' };
  return Response.json(body, { status: 202, headers: { location: `/v1/jobs/${id}` } });
}

async function ownJob({ queue }: ServerContext, id: string, client: Client): Promise<JobState> {
  const state = /^[\w-]{36}$/.test(id) ? await queue.state(id) : undefined;
  const owner = state?.spec.client;
  if (state && (owner === client.id || owner?.startsWith(`${client.id}/`))) return state;
  throw new ApiError(404, 'not-found', 'There is no such job, or its time is over.');
}

/** A job as its client sees it. */
function view(context: ServerContext, { spec, status, progress, outcome }: JobState): Record<string, unknown> {
  return {
    id: spec.id,
    object: 'job',
    status,
    progress,
    model: spec.model,
    kind: spec.kind,
    created: Math.floor(spec.acceptedAt / 1000),
    ...(outcome?.type === 'failed' && { error: outcome.error }),
    ...(outcome?.type === 'done' && {
      data: outcome.result.images.map((image) => fileView(context, image)),
      usage: usage(outcome.result),
      kontext: details(outcome.result),
    }),
  };
}

function fileView({ origin }: ServerContext, { key, format, width, height, bytes }: JobImage): Record<string, unknown> {
  return { url: `${origin}/v1/files/${key}`, format, width, height, bytes };
}

async function* named(
  context: ServerContext,
  events: AsyncIterable<JobEvent>,
): AsyncGenerator<ServerSentEvent, void, void> {
  for await (const { seq, ...event } of events) {
    const data =
      event.type === 'partial'
        ? { type: 'partial', index: event.index, step: event.step, image: fileView(context, event.image) }
        : event.type === 'done'
          ? {
              type: 'done',
              data: event.result.images.map((image) => fileView(context, image)),
              usage: usage(event.result),
              kontext: details(event.result),
            }
          : event;
    yield { event: event.type, data, id: seq };
  }
}

function digestOf({ body, pictures, mask }: ReadRequest): string {
  const hash = createHash('sha256').update(JSON.stringify(body));
  for (const { bytes } of [...pictures, ...(mask ? [mask] : [])]) hash.update(`\n${bytes.length}\n`).update(bytes);
  return hash.digest('hex');
}
