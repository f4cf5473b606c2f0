// A model on a server behind the interface of a model in the page: <kontext-editor> and apps use either without a change.
// Speaks the images API of `kontext serve`; progress and previews come as server-sent events.
import { abortedError, KontextError, type KontextErrorCode } from '../../../runtime/src/errors.ts';
import { decodeImage, toBlob } from '../image/browser.ts';
import { Session } from '../kontext/session.ts';
import { eventStream } from '../kontext/stream.ts';
import type {
  EditRequest,
  EditResult,
  GenerateRequest,
  ImageInput,
  ImageSize,
  KontextEngine,
  LatentsOnly,
  LatentsResult,
  PrepareRequest,
  ProgressEvent,
  StreamEvent,
} from '../kontext/types.ts';
import { type ReceivedEvent, receiveEvents } from './receive.ts';

/** Options of {@link connect}. */
export interface RemoteOptions {
  /** Sent as `Authorization: Bearer …`. A key in a page is everybody's: use short-lived ones or a server of your own in between. */
  apiKey?: string;
  /** Which of the server's models; its first when left out. */
  model?: string;
}

/** An engine whose work a server does. @param url of the server, such as `https://images.example.com` or, for the page's own, `/` */
export function connect(url: string | URL, options: RemoteOptions = {}): KontextEngine {
  return new RemoteKontext(new URL(url, globalThis.location?.href), options);
}

/** Engines' options that cannot cross: the server gives pictures, not latents, and asks nobody which variant goes on. */
const LOCAL_ONLY = ['latents', 'output', 'choose', 'control'] as const;
/** What is not an option of the model but of the call, or has a name of its own in the API. */
const NOT_FORWARDED = ['prompt', 'image', 'references', 'mask', 'images', 'size', 'preview', 'signal', 'onProgress'];
const MAX_PARTIAL_IMAGES = 3;
const DEFAULT_STEPS = 28;

class RemoteKontext implements KontextEngine {
  readonly #closed = new AbortController();

  constructor(
    private readonly url: URL,
    private readonly options: RemoteOptions,
  ) {}

  edit(request: EditRequest & LatentsOnly): Promise<LatentsResult>;
  edit(request: EditRequest): Promise<EditResult>;
  edit(request: EditRequest): Promise<EditResult> {
    return this.#submit(request, 'edits');
  }

  generate(request: GenerateRequest & LatentsOnly): Promise<LatentsResult>;
  generate(request: GenerateRequest): Promise<EditResult>;
  generate(request: GenerateRequest): Promise<EditResult> {
    return this.#submit(request, 'generations');
  }

  stream(request: EditRequest | GenerateRequest): AsyncIterable<StreamEvent> {
    return eventStream(request, (observed) =>
      'image' in observed ? this.edit(observed as EditRequest) : this.generate(observed),
    );
  }

  session(image: ImageInput): Session {
    return new Session(this, image, (input) => decodeImage(input, 'picture of the session'));
  }

  /** Asks whether the server takes work; what is loaded there is its own affair. */
  async prepare({ signal }: PrepareRequest = {}): Promise<void> {
    const response = await this.#fetch('readyz', signal ? { signal } : {});
    if (!response.ok) throw new KontextError('closed', 'The server takes no work at the moment. Try again later.');
  }

  async close(): Promise<void> {
    this.#closed.abort(new KontextError('closed', 'This connection was closed.'));
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  async #submit(request: EditRequest | GenerateRequest, route: 'edits' | 'generations'): Promise<EditResult> {
    const started = performance.now();
    const { signal, onProgress } = request;
    const body = await this.#form(request);
    const init: RequestInit = { method: 'POST', body, ...(signal && { signal }) };
    if (route === 'generations') {
      init.body = JSON.stringify(
        Object.fromEntries([...body].map(([name, value]) => [name, jsonField(name, value as string)])),
      );
      init.headers = { 'content-type': 'application/json' };
    }
    const response = await this.#fetch(`v1/images/${route}`, init);
    if (!response.ok) throw errorFrom(await response.json().catch(() => undefined), response.status);
    const completed: ReceivedEvent[] = [];
    let progress = 0;
    for await (const event of receiveEvents(response)) {
      if (event.type === 'error') throw errorFrom(event, 500);
      if (event.type === 'kontext.queued') onProgress?.({ type: 'queued', ahead: Number(event.ahead), progress });
      else if (event.type === 'kontext.progress') {
        progress = Number(event.progress);
        onProgress?.(progressOf(event, progress));
      } else if (event.type.endsWith('.partial_image')) await preview(event, progress, request);
      else if (event.type.endsWith('.completed')) completed.push(event);
    }
    if (signal?.aborted) throw abortedError(signal);
    if (completed.length === 0)
      throw new KontextError('download-failed', 'The server ended its answer before the picture.');
    onProgress?.({ type: 'done', progress: 1 });
    return resultOf(completed, performance.now() - started);
  }

  async #form(request: EditRequest | GenerateRequest): Promise<FormData> {
    for (const name of LOCAL_ONLY) {
      if ((request as unknown as Record<string, unknown>)[name] === undefined) continue;
      throw new KontextError('invalid-request', `${name} is not possible over HTTP; use an engine in this process.`);
    }
    const form = new FormData();
    form.set('prompt', request.prompt);
    form.set('stream', 'true');
    if (this.options.model !== undefined) form.set('model', this.options.model);
    if (request.images !== undefined) form.set('n', String(request.images));
    if (typeof request.size === 'object') form.set('size', `${request.size.width}x${request.size.height}`);
    else if (request.size === 'input' && 'image' in request) form.set('size', await inputSize(request.image));
    if (request.preview) {
      const count = Math.floor((request.steps ?? DEFAULT_STEPS) / request.preview.every);
      form.set('partial_images', String(Math.min(MAX_PARTIAL_IMAGES, Math.max(0, count))));
    }
    const options = Object.entries(request).filter(
      ([name, value]) => !NOT_FORWARDED.includes(name) && value !== undefined,
    );
    const plain = options.map(([name, value]) => [name, typeof value === 'bigint' ? String(value) : value]);
    if (plain.length > 0) form.set('kontext', JSON.stringify(Object.fromEntries(plain)));
    if (!('image' in request)) return form;
    for (const image of [request.image, ...(request.references ?? [])])
      form.append('image', await fileOf(image), 'image.png');
    const { mask } = request as { mask?: ImageInput };
    if (mask !== undefined) form.set('mask', await fileOf(mask), 'mask.png');
    return form;
  }

  async #fetch(path: string, init: RequestInit): Promise<Response> {
    const { apiKey } = this.options;
    const headers = {
      ...(init.headers as Record<string, string>),
      ...(apiKey && { authorization: `Bearer ${apiKey}` }),
    };
    const signals = [this.#closed.signal, ...(init.signal ? [init.signal] : [])];
    try {
      return await fetch(new URL(path, this.url), { ...init, headers, signal: AbortSignal.any(signals) });
    } catch (cause) {
      if (this.#closed.signal.aborted) throw this.#closed.signal.reason;
      if (init.signal?.aborted) throw abortedError(init.signal);
      throw new KontextError('download-failed', `The server at ${this.url.host} did not answer.`, {}, { cause });
    }
  }
}

function jsonField(name: string, value: string): unknown {
  return name === 'prompt' || name === 'model' || name === 'size' ? value : (JSON.parse(value) as unknown);
}

async function fileOf(input: ImageInput): Promise<Blob> {
  // Files go as they are: the server reads more formats and colour profiles than a canvas keeps.
  if (input instanceof Blob) return input;
  return toBlob(await decodeImage(input, 'picture'));
}

/** As the engine's `size: 'input'`: floored to multiples of 16. */
async function inputSize(input: ImageInput): Promise<string> {
  const { width, height } = await decodeImage(input, 'picture');
  return `${width - (width % 16)}x${height - (height % 16)}`;
}

async function pictureOf(event: ReceivedEvent) {
  const bytes = Uint8Array.from(atob(String(event.b64_json)), (char) => char.charCodeAt(0));
  return decodeImage(bytes, 'result');
}

async function preview(
  event: ReceivedEvent,
  progress: number,
  { onProgress }: EditRequest | GenerateRequest,
): Promise<void> {
  onProgress?.({ type: 'preview', image: 0, step: Number(event.step), preview: await pictureOf(event), progress });
}

function progressOf(event: ReceivedEvent, progress: number): ProgressEvent {
  const { remainingMs, detail } = event as unknown as { remainingMs?: number; detail: ProgressEvent };
  return { ...detail, progress, ...(remainingMs !== undefined && { remainingMs }) };
}

async function resultOf(events: readonly ReceivedEvent[], totalMs: number): Promise<EditResult> {
  const images = await Promise.all(events.map(pictureOf));
  const { seed, options, truncated, evaluations, skipped, timings } = events[0]!.kontext as {
    seed: string;
    options: EditResult['options'] & ImageSize;
    truncated: boolean;
    evaluations: number;
    skipped?: number;
    timings: EditResult['timings'];
  };
  const seeds = events.map((_, i) => {
    const exact = BigInt.asUintN(64, BigInt(seed) + BigInt(i));
    return exact <= BigInt(Number.MAX_SAFE_INTEGER) ? Number(exact) : exact;
  });
  return {
    image: images[0]!,
    images,
    latents: [],
    seed: seeds[0]!,
    seeds,
    options,
    truncated,
    evaluations,
    ...(skipped !== undefined && { skipped }),
    timings: { ...timings, totalMs },
    memory: { weightBytes: 0, adapterBytes: 0, activationBytes: 0, peakBytes: 0 },
  };
}

const CODES: Record<number, KontextErrorCode> = {
  400: 'invalid-request',
  413: 'image-invalid',
  429: 'closed',
  503: 'closed',
};

function errorFrom(body: unknown, status: number): KontextError {
  const { error } = (body ?? {}) as { error?: { message?: string; code?: string } };
  const known = /^(invalid-request|image-invalid|out-of-memory|device-lost|limit-too-small|closed|aborted)$/;
  const code = known.test(error?.code ?? '') ? (error!.code as KontextErrorCode) : (CODES[status] ?? 'download-failed');
  return new KontextError(code, error?.message ?? `The server answered ${status}.`, { status });
}
