// Server-sent events: one string an event, comments while nothing happens, so that proxies keep the line open.
// Pull-driven: a client that does not read holds up only itself, and nothing piles up for it.

/** One message of a stream. */
export interface ServerSentEvent {
  /** `event:` line. */
  event: string;
  /** `data:` line, as JSON. */
  data: unknown;
  /** `id:` line, for Last-Event-ID. */
  id?: number;
}

const HEARTBEAT_MS = 15_000;

/**
 * @param events ends the answer when it ends
 * @param onGone called when the client leaves before the end
 */
export function eventResponse(events: AsyncIterable<ServerSentEvent>, onGone: () => void): Response {
  const encoder = new TextEncoder();
  const iterator = events[Symbol.asyncIterator]();
  let pending: Promise<IteratorResult<ServerSentEvent>> | undefined;
  const body = new ReadableStream<Uint8Array>(
    {
      async pull(controller) {
        pending ??= iterator.next();
        let timer: NodeJS.Timeout | undefined;
        const silence = new Promise<'silence'>((resolve) => {
          timer = setTimeout(resolve, HEARTBEAT_MS, 'silence');
        });
        try {
          const next = await Promise.race([pending, silence]);
          if (next === 'silence') {
            controller.enqueue(encoder.encode(': waiting\n\n'));
            return;
          }
          pending = undefined;
          if (next.done) controller.close();
          else controller.enqueue(encoder.encode(format(next.value)));
        } finally {
          clearTimeout(timer);
        }
      },
      async cancel() {
        onGone();
        await iterator.return?.();
      },
    },
    { highWaterMark: 0 },
  );
  return new Response(body, {
    headers: {
      'content-type': 'text/event-stream; charset=utf-8',
      'cache-control': 'no-store',
      'x-accel-buffering': 'no',
    },
  });
}

function format({ event, data, id }: ServerSentEvent): string {
  return `${id === undefined ? '' : `id: ${id}\n`}event: ${event}\ndata: ${JSON.stringify(data)}\n\n`;
}
