// Runs one job with an engine: pictures from the store in, finished files into the store, events on the way.
// Knows neither HTTP nor the queue, so that a server and a worker on Redis share it.
import { KontextError } from '../../../../runtime/src/errors.ts';
import { encodeImage, type ImageFormat } from '../../image/node.ts';
import type { PixelImage } from '../../image/pixels.ts';
import type {
  EditRequest,
  EditResult,
  GenerateRequest,
  ImageInput,
  KontextEngine,
  ProgressEvent,
} from '../../kontext/types.ts';
import { ApiError, isTransient } from '../http/errors.ts';
import { maskFrom } from './mask.ts';
import type {
  BlobStore,
  JobEventBody,
  JobImage,
  JobOutcome,
  JobResult,
  JobSpec,
  ProgressDetail,
  TokenUsage,
} from './types.ts';

/** Progress is told this often at most: an event a step of a fast model would be more work than the step. */
const PROGRESS_INTERVAL_MS = 200;
/** A lost device is opened again by the engine; a job is begun again this often before the loss is its error. */
const TRANSIENT_RETRIES = 2;

/**
 * Never rejects: whatever happens becomes an outcome.
 *
 * @param emit called in order; its promise is not waited for
 */
export async function runJob(
  engine: KontextEngine,
  spec: JobSpec,
  store: BlobStore,
  emit: (event: JobEventBody) => void,
  signal: AbortSignal,
): Promise<JobOutcome> {
  for (let attempt = 0; ; attempt++) {
    try {
      return { type: 'done', result: await attemptJob(engine, spec, store, emit, signal) };
    } catch (error) {
      if (signal.aborted) return { type: 'cancelled' };
      const known = error instanceof KontextError;
      if (known && isTransient(error.code) && attempt < TRANSIENT_RETRIES) continue;
      if (known) return { type: 'failed', error: error.toJSON() };
      if (error instanceof ApiError) return { type: 'failed', error: { code: error.code, message: error.message } };
      // Whatever else it is might quote what it should not.
      return { type: 'failed', error: { code: 'internal', message: 'The worker failed.' } };
    }
  }
}

async function attemptJob(
  engine: KontextEngine,
  spec: JobSpec,
  store: BlobStore,
  emit: (event: JobEventBody) => void,
  signal: AbortSignal,
): Promise<JobResult> {
  const partials = new Partials(spec, store, emit);
  const onProgress = progressEmitter(emit, (event) => partials.take(event));
  const request = {
    ...(await requestOf(spec, store)),
    ...partials.request(),
    seed: BigInt(spec.seed),
    signal,
    onProgress,
  };
  const result: EditResult =
    'image' in request ? await engine.edit(request as EditRequest) : await engine.generate(request as GenerateRequest);
  await partials.settled();
  const images: JobImage[] = [];
  for (const [i, image] of result.images.entries()) images.push(await write(spec, store, `${i}`, image));
  return {
    images,
    seed: String(result.seed),
    options: result.options,
    truncated: result.truncated,
    usage: usageOf(result),
    evaluations: result.evaluations,
    ...(result.skipped !== undefined && { skipped: result.skipped }),
    timings: result.timings,
  };
}

async function requestOf(spec: JobSpec, store: BlobStore): Promise<Record<string, unknown>> {
  if (spec.kind === 'generate') return spec.request;
  const [image, ...references] = await Promise.all(spec.pictures.map(({ key }) => fetched(store, key)));
  const mask = spec.mask ? await maskFrom(await fetched(store, spec.mask.key), spec.mask.from) : undefined;
  return { ...spec.request, image: image!, ...(references.length > 0 && { references }), ...(mask && { mask }) };
}

async function fetched(store: BlobStore, key: string): Promise<ImageInput> {
  const bytes = await store.get(key);
  if (bytes) return bytes;
  throw new KontextError('image-invalid', 'The picture of this job is no longer stored; send the request again.');
}

async function write(spec: JobSpec, store: BlobStore, name: string, image: PixelImage): Promise<JobImage> {
  const format: ImageFormat = spec.output.format;
  const bytes = await encodeImage(image, format, { quality: spec.output.quality });
  const key = `${spec.id}/${name}.${format}`;
  await store.put(key, bytes);
  return { key, format, bytes: bytes.length, width: image.width, height: image.height };
}

/** Previews at even steps of the denoising, numbered; the engine offers one every so many steps. */
class Partials {
  #taken = 0;
  #writes: Promise<void> = Promise.resolve();

  constructor(
    private readonly spec: JobSpec,
    private readonly store: BlobStore,
    private readonly emit: (event: JobEventBody) => void,
  ) {}

  request(): { preview?: { every: number } } {
    const { partialImages, request } = this.spec;
    if (partialImages === 0) return {};
    return { preview: { every: Math.max(1, Math.floor((request.steps as number) / (partialImages + 1))) } };
  }

  take(event: ProgressEvent): void {
    if (event.type !== 'preview' || event.image !== 0 || this.#taken >= this.spec.partialImages) return;
    const index = this.#taken++;
    this.#writes = this.#writes.then(async () => {
      const image = await write(this.spec, this.store, `partial-${index}`, event.preview);
      this.emit({ type: 'partial', index, step: event.step, image });
    });
    // A failure is the job's when the writes are waited for; until then it must not end the process.
    this.#writes.catch(() => {});
  }

  settled(): Promise<void> {
    return this.#writes;
  }
}

function progressEmitter(
  emit: (event: JobEventBody) => void,
  observe: (event: ProgressEvent) => void,
): (event: ProgressEvent) => void {
  let last = Number.NEGATIVE_INFINITY;
  return (event) => {
    observe(event);
    if (event.type === 'queued' || event.type === 'preview' || event.type === 'done') return;
    const now = performance.now();
    if (event.type !== 'stage' && now - last < PROGRESS_INTERVAL_MS) return;
    last = now;
    const { progress, remainingMs, ...detail } = event;
    emit({
      type: 'progress',
      progress,
      ...(remainingMs !== undefined && { remainingMs }),
      detail: detail as ProgressDetail,
    });
  };
}

/** A token is 16×16 pixels. */
function usageOf({ options, images }: EditResult): TokenUsage {
  const tokens = (sum: number, { width, height }: { width: number; height: number }) =>
    sum + Math.ceil(width / 16) * Math.ceil(height / 16);
  return {
    textTokens: options.maxSequenceLength,
    imageTokens: options.references.reduce(tokens, 0),
    outputTokens: images.reduce(tokens, 0),
  };
}
