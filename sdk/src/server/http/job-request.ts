// From a checked body to a job: fills in what must be fixed at acceptance, and refuses what the engine would refuse later.
// The seed is drawn here, so that a job that runs twice after a crash gives the same picture.
import { checkRequest } from '../../kontext/request.ts';
import { chooseSizes } from '../../kontext/sizes.ts';
import type { EditRequest, GenerateRequest, ImageSize } from '../../kontext/types.ts';
import type { JobSpec, OfferedModel, StoredPicture } from '../jobs/types.ts';
import { ApiError } from './errors.ts';
import type { ImageBody } from './schema.ts';

/** Who asks, and what its key allows. */
export interface Client {
  /** Fairness and limits go by it. */
  id: string;
  /** Smallest number it may ask for; 0 is served first. */
  priority: number;
}

/** Share of the model's steps by `quality`. */
const QUALITY_STEPS = { auto: 1, low: 1 / 3, medium: 2 / 3, high: 1, standard: 1, hd: 1 } as const;
const DEFAULT_STEPS = 28;
/** As `encodeImage`'s default. */
const DEFAULT_COMPRESSION = 92;

/**
 * @param pictures already in the store; none for a generation
 * @throws KontextError `invalid-request`, ApiError 400, 404
 */
export function jobFrom(
  body: ImageBody,
  {
    id,
    client,
    pictures,
    mask,
    models,
  }: {
    id: string;
    client: Client;
    pictures: StoredPicture[];
    mask?: JobSpec['mask'];
    models: readonly OfferedModel[];
  },
): JobSpec {
  const model = body.model === undefined ? models[0] : models.find(({ name }) => name === body.model);
  if (!model) throw unknownModel(body.model, models);
  if (body.partial_images && !body.stream) {
    throw new ApiError(400, 'invalid-request', 'partial_images needs stream: true.', { param: 'partial_images' });
  }
  const { priority: wantedPriority, ...rest } = body.kontext ?? {};
  const { seed: wantedSeed, ...options } = rest as Record<string, unknown> & { seed?: number | string };
  const request: JobSpec['request'] = {
    ...options,
    prompt: body.prompt,
    // Own sigmas bring their number of steps along.
    ...(!(options.steps === undefined && options.sigmas) && {
      steps: (options.steps as number | undefined) ?? stepsOf(body, model),
    }),
    ...(body.n !== undefined && { images: body.n }),
    ...(body.size !== undefined && body.size !== 'auto' && { size: parseSize(body.size) }),
  };
  const kind = pictures.length > 0 ? 'edit' : 'generate';
  // Everything but the pictures' content is checked before the job is accepted.
  const placeholder =
    kind === 'edit'
      ? {
          image: pictures[0]!.key,
          references: pictures.slice(1).map(({ key }) => key),
          ...(mask && { mask: mask.key }),
        }
      : {};
  const checked = checkRequest(
    { ...request, ...placeholder } as unknown as EditRequest | GenerateRequest,
    model.defaults,
  );
  const { target, references } = chooseSizes(checked, pictures, model.defaults);
  return {
    id,
    client: body.user === undefined ? client.id : `${client.id}/${body.user}`,
    priority: Math.max(client.priority, wantedPriority ?? DEFAULT_PRIORITY),
    model: model.name,
    kind,
    request,
    seed: seedOf(wantedSeed),
    pictures,
    ...(mask && { mask }),
    output: {
      format: body.output_format ?? 'png',
      quality: Math.max(1, body.output_compression ?? DEFAULT_COMPRESSION),
    },
    partialImages: body.partial_images ?? 0,
    shape: [target, ...references].map(({ width, height }) => `${width}x${height}`).join('+'),
    work: (checked.steps * checked.images * [target, ...references].reduce(area, 0)) / MEGAPIXEL,
    acceptedAt: Date.now(),
  };
}

/** What a request without a wish gets. */
export const DEFAULT_PRIORITY = 5;
const MEGAPIXEL = 1024 * 1024;

const area = (sum: number, { width, height }: ImageSize) => sum + width * height;

function stepsOf({ quality }: ImageBody, { defaults }: OfferedModel): number {
  return Math.max(1, Math.round((defaults.steps ?? DEFAULT_STEPS) * QUALITY_STEPS[quality ?? 'auto']));
}

function parseSize(text: string): ImageSize {
  const [width, height] = text.split('x').map(Number);
  return { width: width!, height: height! };
}

function seedOf(wanted: number | string | undefined): string {
  const seed = wanted === undefined ? -1n : BigInt(wanted);
  return String(seed < 0n ? BigInt(crypto.getRandomValues(new Uint32Array(1))[0]!) : seed);
}

function unknownModel(name: string | undefined, models: readonly OfferedModel[]): ApiError {
  if (models.length === 0) return new ApiError(503, 'no-workers', 'No worker is running.', { retryAfterSeconds: 5 });
  const known = models.map((model) => `"${model.name}"`).join(', ');
  return new ApiError(404, 'model-not-found', `There is no model "${name}"; this server has ${known}.`, {
    param: 'model',
  });
}
