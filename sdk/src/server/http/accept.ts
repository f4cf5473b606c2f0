// From a request to an accepted job: body, pictures, checks, moderation, queue. Each refusal comes before the next cost.
import type { BlobStore, JobQueue, JobSpec, StoredPicture } from '../jobs/types.ts';
import { readBody } from './body.ts';
import { ApiError } from './errors.ts';
import { type Client, jobFrom } from './job-request.ts';
import { type CheckedPicture, checkPicture, fetchPicture, type PictureLimits } from './pictures.ts';
import { editBody, generationBody, type ImageBody, jobBody } from './schema.ts';
import { validate } from './validate.ts';

/** What a moderation hook is shown. */
export interface ModerationRequest {
  /** What to make or to change. */
  prompt: string;
  /** What to steer away from. */
  negativePrompt?: string;
  /** Files as they were sent: the picture to edit, then references. */
  pictures: readonly Uint8Array[];
  /** Name of the key, and the end user behind it where the request names one. */
  client: string;
}

/** What every route works with. */
export interface ServerContext {
  queue: JobQueue;
  store: BlobStore;
  /** Bounds on what clients send. */
  limits: PictureLimits & { maxBodyBytes: number };
  /** Undefined: everything is allowed. A sentence: why not. */
  moderate?: (request: ModerationRequest) => Promise<string | undefined> | string | undefined;
  /** Scheme, host and port of the links in answers. */
  origin: string;
}

/** A request that was read and whose pictures are fit to be decoded; nothing of it is stored yet. */
export interface ReadRequest {
  /** Checked fields. */
  body: ImageBody;
  /** The picture to edit, then references. */
  pictures: CheckedPicture[];
  /** Where to change. */
  mask?: CheckedPicture;
}

/** Which body a route takes. */
export type ImageRoute = 'generations' | 'edits' | 'jobs';

/** @throws ApiError 400, 413, 415 */
export async function readRequest(
  { limits }: ServerContext,
  request: Request,
  route: ImageRoute,
): Promise<ReadRequest> {
  const { fields, files } = await readBody(request, limits.maxBodyBytes);
  const body = validate<ImageBody>(SCHEMAS[route], fields);
  for (const name of files.keys()) {
    if (route === 'generations' || (name !== 'image' && name !== 'mask')) {
      throw new ApiError(400, 'invalid-request', `Unknown file ${name}.`, { param: name });
    }
  }
  const sources = picturesOf(body, files.get('image'));
  if (route === 'edits' && sources.length === 0) {
    throw new ApiError(400, 'invalid-request', 'image is missing: send the picture to edit.', { param: 'image' });
  }
  const maskSource = files.get('mask')?.[0] ?? referenceOf(body.mask);
  if (maskSource !== undefined && sources.length === 0) {
    throw new ApiError(400, 'invalid-request', 'mask needs an image.', { param: 'mask' });
  }
  const pictures = await Promise.all(sources.map((source) => load(source, 'image', limits, request.signal)));
  const mask = maskSource === undefined ? undefined : await load(maskSource, 'mask', limits, request.signal);
  return { body, pictures, ...(mask && { mask }) };
}

/**
 * @param id the job's; a job of this id that is there already is left as it is
 * @throws ApiError, KontextError `invalid-request`; nothing is left in the store then
 */
export async function enqueue(
  context: ServerContext,
  { body, pictures, mask }: ReadRequest,
  client: Client,
  id: string = crypto.randomUUID(),
): Promise<JobSpec> {
  const { queue, store } = context;
  const keyed = ({ width, height }: CheckedPicture, name: string): StoredPicture => ({
    key: `${id}/${name}`,
    width,
    height,
  });
  const spec = jobFrom(body, {
    id,
    client,
    pictures: pictures.map((picture, i) => keyed(picture, `input-${i}`)),
    ...(mask && { mask: { ...keyed(mask, 'mask'), from: mask.hasAlpha ? 'alpha' : 'luminance' } }),
    models: await queue.models(),
  });
  await moderated(context, spec, pictures);
  try {
    for (const [i, { bytes }] of pictures.entries()) await store.put(spec.pictures[i]!.key, bytes);
    if (mask) await store.put(spec.mask!.key, mask.bytes);
    await queue.add(spec);
  } catch (error) {
    await store.remove(`${id}/`);
    throw error;
  }
  return spec;
}

const SCHEMAS = { generations: generationBody, edits: editBody, jobs: jobBody } as const;

type Source = Blob | string;

function picturesOf(body: ImageBody, files: Blob[] | undefined): Source[] {
  if (files) return files;
  const given = body.images ?? body.image ?? [];
  return (Array.isArray(given) ? given : [given]).map((reference) => referenceOf(reference)!);
}

function referenceOf(reference: string | { image_url: string } | undefined): string | undefined {
  return typeof reference === 'object' ? reference.image_url : reference;
}

async function load(
  source: Source,
  param: string,
  limits: PictureLimits,
  signal: AbortSignal,
): Promise<CheckedPicture> {
  const bytes =
    typeof source === 'string'
      ? await fetchPicture(source, param, limits, signal)
      : new Uint8Array(await source.arrayBuffer());
  return checkPicture(bytes, param, limits);
}

async function moderated({ moderate }: ServerContext, spec: JobSpec, pictures: CheckedPicture[]): Promise<void> {
  const { prompt, negativePrompt } = spec.request;
  const reason = await moderate?.({
    prompt,
    ...(typeof negativePrompt === 'string' && { negativePrompt }),
    pictures: pictures.map(({ bytes }) => bytes),
    client: spec.client,
  });
  if (reason !== undefined) throw new ApiError(400, 'moderation_blocked', reason, { param: 'prompt' });
}
