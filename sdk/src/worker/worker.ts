// The script of the worker: an engine that answers messages.
// One engine a worker, so that two models in a page share nothing and the loss of one leaves the other alone.

import { abortedError, type KontextErrorJSON } from '../../../runtime/src/errors.ts';
import { Kontext, KontextError } from '../browser.ts';
import type { DownloadProgress } from '../hub/transfer.ts';
import type { ChooseVariants, EditRequest, LatentsResult, ProgressEvent } from '../kontext/types.ts';
import type { Call, FromWorker, ToWorker } from './protocol.ts';

let engine: Kontext | undefined;
const running = new Map<number, AbortController>();
/** What the page has been asked for, by call. */
const choices = new Map<number, { resolve(answer: number | readonly number[]): void; reject(error: Error): void }>();

addEventListener('message', ({ data }: MessageEvent<ToWorker>) => {
  if (data.type === 'abort') running.get(data.id)?.abort();
  else if (data.type === 'chosen') choices.get(data.id)?.resolve(data.answer);
  else if (data.type === 'not-chosen') choices.get(data.id)?.reject(revived(data.error));
  else void answer(data);
});

type Incoming = Exclude<ToWorker, { type: 'abort' | 'chosen' | 'not-chosen' }>;

async function answer(message: Incoming): Promise<void> {
  const { id } = message;
  const stop = new AbortController();
  running.set(id, stop);
  try {
    const value = await perform(message, stop.signal);
    post({ type: 'done', id, ...(value && { value }) }, value && 'latents' in value ? buffersOf(value) : []);
  } catch (error) {
    post({ type: 'failed', id, error: plain(error) });
  } finally {
    running.delete(id);
    choices.delete(id);
  }
}

async function perform(message: Incoming, signal: AbortSignal) {
  if (message.type === 'open') {
    const { id, options, source, tells } = message;
    const onDownload = (event: DownloadProgress) => post({ type: 'event', id, event });
    engine = await Kontext.load(source, { ...options, signal, ...(tells && { onDownload }) });
    return engine.adapter;
  }
  if (!engine) throw new KontextError('closed', 'This worker has no model.');
  if (message.type === 'close') {
    await engine.close();
    return undefined;
  }
  const onProgress = (event: ProgressEvent) => {
    post({ type: 'event', id: message.id, event }, event.type === 'preview' ? [event.preview.data.buffer] : []);
  };
  const choose: ChooseVariants = (previews) => {
    const asked = new Promise<number | readonly number[]>((resolve, reject) => {
      choices.set(message.id, { resolve, reject });
      signal.addEventListener('abort', () => reject(abortedError(signal)), { once: true });
    });
    post({ type: 'choose', id: message.id, previews: [...previews] });
    return asked;
  };
  const chooses = 'chooses' in message && message.chooses;
  return call(engine, message, { signal, onProgress, ...(chooses && { choose }) });
}

async function call(
  engine: Kontext,
  message: Call,
  callbacks: Pick<EditRequest, 'signal' | 'onProgress' | 'choose'>,
): Promise<LatentsResult | undefined> {
  switch (message.method) {
    case 'edit':
      return engine.edit({ ...message.request, ...callbacks });
    case 'generate':
      return engine.generate({ ...message.request, ...callbacks });
    case 'prepare':
      await engine.prepare({ ...message.request, ...callbacks });
      return undefined;
  }
}

/** The memory of a result, each buffer once. */
function buffersOf(result: LatentsResult & { images?: { data: { buffer: ArrayBuffer } }[] }): ArrayBuffer[] {
  const pictures = result.images?.map(({ data }) => data.buffer) ?? [];
  return [...new Set([...pictures, ...result.latents.map(({ buffer }) => buffer)])];
}

function revived(error: KontextErrorJSON | { message: string }): Error {
  return 'code' in error ? KontextError.fromJSON(error) : new Error(error.message);
}

function plain(error: unknown): (FromWorker & { type: 'failed' })['error'] {
  if (error instanceof KontextError) return error.toJSON();
  const { message, stack } = error instanceof Error ? error : new Error(String(error));
  return { message, ...(stack && { stack }) };
}

function post(message: FromWorker, transfer: Transferable[] = []): void {
  (globalThis as unknown as Worker).postMessage(message, transfer);
}
