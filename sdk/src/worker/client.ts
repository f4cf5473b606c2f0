// The engine in a dedicated worker, behind the interface it has in the page: decoding, tokenizing, compiling and readback
// happen there, so the page's own thread stays free.
import { abortedError, KontextError, type KontextErrorJSON } from '../../../runtime/src/errors.ts';
import type { AdapterReport } from '../../../runtime/src/gpu/report.ts';
import { isHubAddress } from '../hub/address.ts';
import type { DownloadProgress } from '../hub/transfer.ts';
import { decodeImage, toPortable } from '../image/browser.ts';
import type { PixelImage } from '../image/pixels.ts';
import { Session as EngineSession } from '../kontext/session.ts';
import { eventStream } from '../kontext/stream.ts';
import type {
  ChooseVariants,
  EditRequest,
  EditResult,
  GenerateRequest,
  ImageInput,
  KontextEngine,
  LatentsOnly,
  LatentsResult,
  PrepareRequest,
  ProgressEvent,
  Session,
  StreamEvent,
} from '../kontext/types.ts';
import type { BflFiles } from '../model/open.ts';
import { pageUrl } from './page-url.ts';
import type { Call, FromWorker, PortableOptions, PortableSource, ToWorker } from './protocol.ts';

/** Options of `Kontext.load` in a worker: those of the engine in the page, without functions, and the worker itself. */
export interface WorkerOptions extends PortableOptions {
  /** Cancels loading: it rejects with `aborted`, and the worker ends. */
  signal?: AbortSignal;
  /** Told of downloads from the hub, over all files: bytes, rate, time left. */
  onDownload?: (event: DownloadProgress) => void;
  /** The worker, or the URL of its script; for set-ups whose bundler does not find `worker.js` beside this module. */
  worker?: Worker | string | URL;
}

/** A model in a worker. */
export type Kontext = WorkerEngine;

/** Loads FLUX.1 Kontext models in workers of their own. */
export const Kontext = {
  /**
   * Starts a worker and opens the model in it.
   *
   * @param source URL of a folder, or single files as URLs, Files or bytes
   * @throws KontextError `webgpu-unavailable`, `weights-invalid`, `tokenizer-invalid`, `download-failed`, `feature-missing`,
   *   `invalid-request`, `aborted`
   */
  load: (source: string | URL | BflFiles, options?: WorkerOptions): Promise<Kontext> =>
    WorkerEngine.open(source, options),
};

interface Pending {
  resolve(value: unknown): void;
  reject(error: unknown): void;
  onProgress?: ((event: ProgressEvent) => void) | undefined;
  choose?: ((previews: PixelImage[]) => ReturnType<ChooseVariants>) | undefined;
}

/** {@link KontextEngine} in a worker of its own. Made by `Kontext.load`. */
export class WorkerEngine implements KontextEngine {
  readonly #worker: Worker;
  readonly #pending = new Map<number, Pending>();
  #lastId = 0;
  #adapter: AdapterReport | undefined;
  #ended: KontextError | undefined;

  private constructor(worker: Worker) {
    this.#worker = worker;
    worker.addEventListener('message', ({ data }: MessageEvent<FromWorker>) => this.#receive(data));
    worker.addEventListener('error', ({ message }) => this.#end(crashed(message)));
  }

  /** Behind `Kontext.load`. @internal */
  static async open(source: string | URL | BflFiles, options: WorkerOptions = {}): Promise<WorkerEngine> {
    const { signal, worker, onDownload, ...rest } = options;
    if (signal?.aborted) throw abortedError(signal);
    const engine = new WorkerEngine(startWorker(worker));
    try {
      const opening = engine.#ask<AdapterReport>(
        (id) => ({
          type: 'open',
          id,
          source: portableSource(source),
          options: portableOptions(rest),
          tells: onDownload !== undefined,
        }),
        // Opening tells of nothing but downloads.
        { signal, onProgress: onDownload as Pending['onProgress'] },
      );
      engine.#adapter = await opening;
      return engine;
    } catch (error) {
      engine.#worker.terminate();
      throw error;
    }
  }

  /** What the GPU is and offers, as it was when the model was opened. */
  get adapter(): AdapterReport | undefined {
    return this.#adapter;
  }

  edit(request: EditRequest & LatentsOnly): Promise<LatentsResult>;
  edit(request: EditRequest): Promise<EditResult>;
  async edit(request: EditRequest): Promise<EditResult> {
    const { signal, onProgress, choose, ...plain } = request;
    const transfer: Transferable[] = [];
    if (plain.image) plain.image = await toPortable(plain.image, 'input image', transfer);
    // What is no list is refused in the worker, like every other wrong option.
    if (Array.isArray(plain.references)) {
      plain.references = await Promise.all(
        plain.references.map((image, i) => toPortable(image, `reference image ${i + 1}`, transfer)),
      );
    }
    if (plain.mask) plain.mask = await toPortable(plain.mask, 'mask', transfer);
    if (plain.control) plain.control = await toPortable(plain.control, 'control picture', transfer);
    const call = { method: 'edit' as const, request: plain, chooses: choose !== undefined };
    return this.#call(call, { signal, onProgress, choose, transfer });
  }

  generate(request: GenerateRequest & LatentsOnly): Promise<LatentsResult>;
  generate(request: GenerateRequest): Promise<EditResult>;
  async generate(request: GenerateRequest): Promise<EditResult> {
    const { signal, onProgress, choose, ...plain } = request;
    const transfer: Transferable[] = [];
    if (plain.control) plain.control = await toPortable(plain.control, 'control picture', transfer);
    const call = { method: 'generate' as const, request: plain, chooses: choose !== undefined };
    return this.#call(call, { signal, onProgress, choose, transfer });
  }

  stream(request: EditRequest | GenerateRequest): AsyncIterable<StreamEvent> {
    return eventStream(request, (observed) => ('image' in observed ? this.edit(observed) : this.generate(observed)));
  }

  session(image: ImageInput): Session {
    return new EngineSession(this, image, (input) => decodeImage(input, 'picture of the session'));
  }

  async prepare(request: PrepareRequest = {}): Promise<void> {
    const { signal, onProgress, ...plain } = request;
    await this.#call({ method: 'prepare', request: plain }, { signal, onProgress });
  }

  async close(): Promise<void> {
    if (this.#ended) return;
    await this.#ask((id) => ({ type: 'close', id }), {});
    this.#end(new KontextError('closed', 'This model was closed. Load it again with Kontext.load().'));
  }

  /** The same as {@link WorkerEngine.close}, for `await using`. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  #call<T>(call: Call, more: Callbacks): Promise<T> {
    return this.#ask((id) => ({ type: 'call', id, ...call }), more);
  }

  /** Posts a message and waits for its answer; an abort is passed on and ends when the worker has stopped. */
  async #ask<T>(message: (id: number) => ToWorker, callbacks: Callbacks): Promise<T> {
    const { signal, onProgress, choose, transfer = [] } = callbacks;
    if (this.#ended) throw this.#ended;
    if (signal?.aborted) throw abortedError(signal);
    const id = ++this.#lastId;
    const forward = () => this.#worker.postMessage({ type: 'abort', id } satisfies ToWorker);
    try {
      return await new Promise<T>((resolve, reject) => {
        this.#pending.set(id, {
          resolve: resolve as Pending['resolve'],
          reject,
          onProgress,
          choose: choose && ((previews) => choose(previews, signal ?? new AbortController().signal)),
        });
        signal?.addEventListener('abort', forward, { once: true });
        try {
          this.#worker.postMessage(message(id), transfer);
        } catch (cause) {
          reject(notPortable(cause));
        }
      });
    } catch (error) {
      if (error instanceof KontextError && error.code === 'aborted') throw abortedError(signal);
      throw error;
    } finally {
      this.#pending.delete(id);
      signal?.removeEventListener('abort', forward);
    }
  }

  #receive(message: FromWorker): void {
    const pending = this.#pending.get(message.id);
    switch (message.type) {
      case 'event':
        pending?.onProgress?.(message.event as ProgressEvent);
        break;
      case 'choose':
        void this.#choose(message.id, message.previews, pending?.choose);
        break;
      case 'done':
        pending?.resolve(message.value);
        break;
      case 'failed':
        pending?.reject(revive(message.error));
        break;
    }
  }

  /** Asks the page which variants go on; what its function throws ends the request. */
  async #choose(id: number, previews: PixelImage[], choose: Pending['choose']): Promise<void> {
    try {
      const answer = await choose!(previews);
      this.#worker.postMessage({ type: 'chosen', id, answer } satisfies ToWorker);
    } catch (error) {
      const plain =
        error instanceof KontextError ? error.toJSON() : { message: String((error as Error)?.message ?? error) };
      this.#worker.postMessage({ type: 'not-chosen', id, error: plain } satisfies ToWorker);
    }
  }

  #end(error: KontextError): void {
    this.#ended = error;
    this.#worker.terminate();
    for (const { reject } of this.#pending.values()) reject(error);
    this.#pending.clear();
  }
}

interface Callbacks {
  signal?: AbortSignal | undefined;
  onProgress?: ((event: ProgressEvent) => void) | undefined;
  choose?: ChooseVariants | undefined;
  transfer?: Transferable[];
}

function startWorker(given: WorkerOptions['worker']): Worker {
  if (given instanceof Worker) return given;
  if (given !== undefined) return crossing(pageUrl(given));
  try {
    // In one expression with its URL, because that is what bundlers look for; and only here, or Vite inlines the script.
    return new Worker(new URL('./worker.js', import.meta.url), { type: 'module', name: 'kontext' });
  } catch {
    // Unbundled and from another origin, which the constructor refuses.
    return crossing(new URL(import.meta.url.replace(/[^/]*$/, 'worker.js')));
  }
}

/** Workers must be of the page's own origin; a module they import need not. */
function crossing(script: URL): Worker {
  if (script.origin === location.origin) return new Worker(script, { type: 'module', name: 'kontext' });
  const blob = new Blob([`import ${JSON.stringify(script.href)};`], { type: 'text/javascript' });
  const url = URL.createObjectURL(blob);
  const worker = new Worker(url, { type: 'module', name: 'kontext' });
  worker.addEventListener('message', () => URL.revokeObjectURL(url), { once: true });
  return worker;
}

function portableSource(source: string | URL | BflFiles): PortableSource {
  if (isHubAddress(source)) return source;
  return typeof source === 'string' || source instanceof URL ? pageUrl(source).href : source;
}

function portableOptions(options: PortableOptions): PortableOptions {
  const { host, programs, previewDecoder, profile } = options;
  const isUrl = typeof previewDecoder === 'string' || previewDecoder instanceof URL;
  return {
    ...options,
    ...(host?.wasmUrl && { host: { ...host, wasmUrl: pageUrl(host.wasmUrl).href } }),
    ...(programs !== undefined && { programs: portablePrograms(programs) }),
    ...((typeof profile === 'string' || profile instanceof URL) && { profile: pageUrl(profile).href }),
    ...(isUrl && { previewDecoder: pageUrl(previewDecoder).href }),
  };
}

function portablePrograms(programs: NonNullable<PortableOptions['programs']>): PortableOptions['programs'] {
  const signed = typeof programs === 'object' && 'bundle' in programs;
  return signed ? { ...programs, bundle: pageUrl(programs.bundle).href } : pageUrl(programs).href;
}

function notPortable(cause: unknown): KontextError {
  return new KontextError(
    'invalid-request',
    `This cannot be sent to a worker: ${(cause as Error).message}. Give plain values, URLs, Blobs or pixels, or load the model ` +
      'in the page.',
    {},
    { cause },
  );
}

function revive(error: KontextErrorJSON | { message: string; stack?: string }): Error {
  if ('code' in error) return KontextError.fromJSON(error);
  const revived = new Error(error.message);
  if (error.stack) revived.stack = error.stack;
  return revived;
}

function crashed(message: string | undefined): KontextError {
  return message
    ? new KontextError('closed', `The worker of this model stopped: ${message}. Load the model again.`)
    : new KontextError(
        'download-failed',
        "The worker's script could not be loaded. It is worker.js beside client.js; give its URL or a Worker as option `worker`.",
      );
}

export { KontextError, type KontextErrorCode } from '../../../runtime/src/errors.ts';
export { type BlobOptions, decodeImage, toBlob, toCanvas, toImageBitmap, toImageData } from '../image/browser.ts';
export type { PixelDepth, PixelImage } from '../image/pixels.ts';
export type * from '../kontext/types.ts';
export type { BflFiles } from '../model/open.ts';
export type { PublicKey } from '../programs/signature.ts';
export type { PortableSignedPrograms } from './protocol.ts';
