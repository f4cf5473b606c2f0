// A request as a sequence of events: what `for await` loops over.
// Works on anything that takes a request with `onProgress`, so the worker client shares it.
import { KontextError } from '../../../runtime/src/errors.ts';
import { checkSignal } from './signal.ts';
import { tell } from './tell.ts';
import type { EditRequest, EditResult, GenerateRequest, StreamEvent } from './types.ts';

/**
 * Starts `submit` at the first `next()`; yields its progress, then its result, and throws what it rejects with. Leaving the loop
 * early cancels the request and waits until it has stopped.
 */
export async function* eventStream<R extends EditRequest | GenerateRequest>(
  request: R,
  submit: (request: R) => Promise<EditResult>,
): AsyncGenerator<StreamEvent, void, void> {
  const stop = new AbortController();
  if (typeof request !== 'object' || request === null) {
    throw new KontextError('invalid-request', 'The request must be an object with a prompt.');
  }
  const { signal, onProgress } = request;
  checkSignal(signal);
  const forward = () => stop.abort(signal?.reason);
  if (signal?.aborted) forward();
  signal?.addEventListener('abort', forward, { once: true });
  const waiting: StreamEvent[] = [];
  let wake = () => {};
  const result = submit({
    ...request,
    signal: stop.signal,
    onProgress: (event) => {
      tell('onProgress', onProgress, event);
      waiting.push(event);
      wake();
    },
  });
  let settled = false;
  const ended = result.then(
    () => {
      settled = true;
      wake();
    },
    () => {
      settled = true;
      wake();
    },
  );
  try {
    while (!settled || waiting.length > 0) {
      const event = waiting.shift();
      if (event) yield event;
      else await new Promise<void>((resolve) => (wake = resolve));
    }
    yield { type: 'result', result: await result };
  } finally {
    stop.abort();
    await ended;
    signal?.removeEventListener('abort', forward);
  }
}
