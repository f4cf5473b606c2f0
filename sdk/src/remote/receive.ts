// Reads a stream of server-sent events whose data is JSON (WHATWG HTML, section "Server-sent events").
import { KontextError } from '../../../runtime/src/errors.ts';

/** One event's data. */
export type ReceivedEvent = { type: string } & Record<string, unknown>;

/** Longest single event: a picture of 4096×4096 in base64, with room. */
const MAX_EVENT_CHARACTERS = 256 * 2 ** 20;

/** Events in order, until the answer ends. @throws KontextError `download-failed` when it is none of the kind */
export async function* receiveEvents(response: Response): AsyncGenerator<ReceivedEvent, void, void> {
  if (!response.headers.get('content-type')?.startsWith('text/event-stream') || !response.body) {
    throw new KontextError('download-failed', 'The server did not answer with events; is it kontext serve?');
  }
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let pending: string[] = [];
  let length = 0;
  let tail = '';
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      length += value.length;
      if (length > MAX_EVENT_CHARACTERS)
        throw new KontextError('download-failed', 'The server sent an event without end.');
      // A blank line ends an event; it may be cut between two reads.
      const at = (tail + value).indexOf('\n\n');
      pending.push(value);
      tail = value.slice(-1);
      if (at < 0) continue;
      const messages = pending.join('').split('\n\n');
      const rest = messages.pop()!;
      pending = rest === '' ? [] : [rest];
      length = rest.length;
      tail = rest.slice(-1);
      for (const message of messages) {
        const event = parse(message);
        if (event) yield event;
      }
    }
  } finally {
    await reader.cancel().catch(() => {});
  }
}

function parse(message: string): ReceivedEvent | undefined {
  const data = message
    .split('\n')
    .filter((line) => line.startsWith('data:'))
    .map((line) => line.slice(5).replace(/^ /, ''))
    .join('\n');
  if (data === '') return undefined;
  try {
    return JSON.parse(data) as ReceivedEvent;
  } catch (cause) {
    throw new KontextError('download-failed', 'The server sent an event that is not JSON.', {}, { cause });
  }
}
