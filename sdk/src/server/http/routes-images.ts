// POST /v1/images/generations and /v1/images/edits: a job whose client waits for it.
// The answer is OpenAI's; when the client leaves, the job ends.
import { KontextError } from '../../../../runtime/src/errors.ts';
import type { JobEvent, JobImage, JobResult } from '../jobs/types.ts';
import { enqueue, readRequest, type ServerContext } from './accept.ts';
import { ApiError, fromJson, toApiError } from './errors.ts';
import type { Client } from './job-request.ts';
import type { ImageBody } from './schema.ts';
import { eventResponse, type ServerSentEvent } from './sse.ts';

/** What a waiting client gets. */
export async function answerImages(
  context: ServerContext,
  request: Request,
  route: 'generations' | 'edits',
  client: Client,
): Promise<Response> {
  const read = await readRequest(context, request, route);
  const { body } = read;
  const spec = await enqueue(context, read, client);
  const gone = new AbortController();
  const leave = () => {
    gone.abort();
    void context.queue.cancel(spec.id).then(() => context.queue.forget(spec.id));
  };
  if (request.signal.aborted) leave();
  request.signal.addEventListener('abort', leave, { once: true });
  const events = context.queue.events(spec.id, 0, gone.signal);
  if (body.stream) return eventResponse(streamed(context, events, route, body, request.signal, leave), leave);
  try {
    for await (const event of events) {
      if (event.type === 'done') return Response.json(await answerOf(context, event.result, body));
      throwIfEnded(event);
    }
    throw new KontextError('aborted', 'The client left.');
  } finally {
    request.signal.removeEventListener('abort', leave);
    if (body.response_format !== 'url') void context.queue.forget(spec.id);
  }
}

function throwIfEnded(event: JobEvent): void {
  if (event.type === 'failed') throw fromJson(event.error);
  if (event.type === 'cancelled') throw new ApiError(499, 'cancelled', 'The job was cancelled.');
}

/** OpenAI's events: `image_edit.partial_image`, `image_edit.completed`; the same for generations. */
async function* streamed(
  context: ServerContext,
  events: AsyncIterable<JobEvent>,
  route: 'generations' | 'edits',
  body: ImageBody,
  signal: AbortSignal,
  leave: () => void,
): AsyncGenerator<ServerSentEvent, void, void> {
  const kind = route === 'edits' ? 'image_edit' : 'image_generation';
  try {
    for await (const event of events) {
      if (event.type === 'progress' || event.type === 'queued') {
        // A name of our own: OpenAI's clients pass on what they do not know.
        const { type, seq: _, ...fields } = event;
        yield { event: `kontext.${type}`, data: { type: `kontext.${type}`, ...fields } };
      } else if (event.type === 'partial') {
        const type = `${kind}.partial_image`;
        const data = {
          type,
          partial_image_index: event.index,
          step: event.step,
          ...(await imageFields(context, event.image, body)),
        };
        yield { event: type, data };
      } else if (event.type === 'done') {
        const { result } = event;
        for (const image of result.images) {
          const type = `${kind}.completed`;
          const data = {
            type,
            usage: usage(result),
            kontext: details(result),
            ...(await imageFields(context, image, body)),
          };
          yield { event: type, data };
        }
      } else throwIfEnded(event);
    }
  } catch (error) {
    if (!signal.aborted) yield { event: 'error', data: { type: 'error', ...toApiError(error).toJSON() } };
  } finally {
    signal.removeEventListener('abort', leave);
  }
}

async function imageFields(context: ServerContext, image: JobImage, body: ImageBody): Promise<Record<string, unknown>> {
  const bytes = await stored(context, image);
  return {
    b64_json: Buffer.from(bytes).toString('base64'),
    created_at: Math.floor(Date.now() / 1000),
    size: `${image.width}x${image.height}`,
    quality: body.quality ?? 'auto',
    background: 'opaque',
    output_format: image.format,
  };
}

async function answerOf(context: ServerContext, result: JobResult, body: ImageBody): Promise<Record<string, unknown>> {
  const data: Record<string, unknown>[] = [];
  for (const image of result.images) {
    if (body.response_format === 'url') data.push({ url: `${context.origin}/v1/files/${image.key}` });
    else data.push({ b64_json: Buffer.from(await stored(context, image)).toString('base64') });
  }
  const [first] = result.images;
  return {
    created: Math.floor(Date.now() / 1000),
    data,
    background: 'opaque',
    output_format: first!.format,
    quality: body.quality ?? 'auto',
    size: `${first!.width}x${first!.height}`,
    usage: usage(result),
    kontext: details(result),
  };
}

async function stored({ store }: ServerContext, { key }: JobImage): Promise<Uint8Array> {
  const bytes = await store.get(key);
  if (bytes) return bytes;
  throw new ApiError(500, 'result-lost', 'The picture was made but is no longer stored. Send the request again.');
}

/** Beyond OpenAI's fields: what it takes to make the same picture again. */
export function details({
  seed,
  options,
  truncated,
  evaluations,
  skipped,
  timings,
}: JobResult): Record<string, unknown> {
  return { seed, options, truncated, evaluations, ...(skipped !== undefined && { skipped }), timings };
}

/** OpenAI's names for token counts. */
export function usage({ usage: { textTokens, imageTokens, outputTokens } }: JobResult): Record<string, unknown> {
  return {
    input_tokens: textTokens + imageTokens,
    input_tokens_details: { text_tokens: textTokens, image_tokens: imageTokens },
    output_tokens: outputTokens,
    total_tokens: textTokens + imageTokens + outputTokens,
  };
}
