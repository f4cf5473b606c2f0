// What requests may say, once: these schemas check them, and the OpenAPI document is made from them.
// Names and values are OpenAI's images API's; our own options stand under `kontext` and come from the SDK's table.
import { z } from 'zod';
import { REQUEST_OPTIONS, type RequestOption } from '../../kontext/options.ts';

/** Largest `n`: OpenAI's bound. */
export const MAX_IMAGES = 10;
/** Largest `partial_images`: OpenAI's bound. */
export const MAX_PARTIAL_IMAGES = 3;
/** Adapters of one request. */
const MAX_ADAPTERS = 16;
/** Steps of a request, and one more. */
const MAX_NUMBERS = 1001;
/** Characters of a prompt: OpenAI's bound. */
const MAX_TEXT = 32_000;

/** Options with a name of their own in the API, or that only an engine in the process can honour. */
export const NOT_UNDER_KONTEXT: Readonly<Record<string, string>> = {
  images: 'n',
  size: 'size',
  references: 'image',
  mask: 'mask',
  control: 'only in the process',
  latents: 'only in the process',
};

/** The SDK's table of options as fields. */
function tableFields(): Record<string, z.ZodType> {
  const fields: Record<string, z.ZodType> = {};
  for (const [name, option] of Object.entries<RequestOption>(REQUEST_OPTIONS)) {
    const field = name in NOT_UNDER_KONTEXT ? undefined : fieldOf(option);
    if (!field) continue;
    const only = option.only === undefined ? '' : 'edits: ';
    fields[name] = field.describe(only + option.help).optional();
  }
  return fields;
}

/** Undefined for kinds that JSON from a client must not fill: a string that is a path or a URL to the engine. */
function fieldOf(option: RequestOption): z.ZodType | undefined {
  switch (option.kind) {
    case 'choice':
      return z.enum(option.choices as [string, ...string[]]);
    case 'switch':
      return z.boolean();
    case 'integer':
      return z.number().int().min(option.min).max(option.max);
    case 'number':
      return z.number().min(option.min).max(option.max);
    case 'seed':
      return z.union([z.number().int(), z.string().regex(/^-?\d{1,20}$/)]);
    case 'text':
      return z.string().max(MAX_TEXT);
    case 'numbers':
      return z.array(z.number()).min(1).max(MAX_NUMBERS);
    case 'sides':
      return z.partialRecord(z.enum(['left', 'right', 'top', 'bottom']), z.number().int().min(0));
    case 'cache':
      // A name, or numbers by name; the SDK knows which.
      return z.union([
        z.string().max(100),
        z.record(z.string(), z.union([z.string().max(100), z.number(), z.boolean()])),
      ]);
    default:
      return undefined;
  }
}

/** Options of `edit()` and `generate()` that OpenAI has no name for. */
export const kontextOptions = z
  .strictObject({
    ...tableFields(),
    adapters: z
      .array(
        z.strictObject({
          name: z.string().min(1).max(200),
          scale: z.union([z.number(), z.record(z.string().max(200), z.number())]).optional(),
        }),
      )
      .max(MAX_ADAPTERS)
      .describe('adapters that the server was given, by name, with other strengths; left out: all of them as given')
      .optional(),
    priority: z.number().int().min(0).max(9).describe('0 is served first; the key bounds it').optional(),
  })
  .describe('options of this server beyond the images API');

const common = {
  prompt: z.string().min(1).max(MAX_TEXT).describe('what to make or to change'),
  model: z.string().max(200).describe('one of GET /v1/models; the first when left out').optional(),
  n: z.number().int().min(1).max(MAX_IMAGES).describe('pictures, with the seeds seed, seed+1, …').optional(),
  size: z
    .string()
    .regex(/^(auto|\d{2,4}x\d{2,4})$/)
    .describe('auto, or WIDTHxHEIGHT in multiples of 16')
    .optional(),
  quality: z
    .enum(['auto', 'low', 'medium', 'high', 'standard', 'hd'])
    .describe("share of the model's steps: low a third, medium two thirds, the rest all; kontext.steps wins")
    .optional(),
  output_format: z.enum(['png', 'jpeg', 'webp']).describe('default png').optional(),
  output_compression: z.number().int().min(0).max(100).describe('quality of JPEG and WebP; default 92').optional(),
  response_format: z.enum(['b64_json', 'url']).describe('default b64_json').optional(),
  stream: z.boolean().describe('answer with server-sent events').optional(),
  partial_images: z
    .number()
    .int()
    .min(0)
    .max(MAX_PARTIAL_IMAGES)
    .describe('rough pictures on the way; needs stream')
    .optional(),
  background: z.enum(['auto', 'opaque']).describe('results are always opaque').optional(),
  user: z.string().max(200).describe('end user, for fairness between the users of one key').optional(),
  kontext: kontextOptions.optional(),
};

/** A picture in a JSON body. */
export const pictureReference = z
  .union([
    z.string().describe('data: URL with base64, or an http(s) URL where the server allows its host'),
    z.strictObject({ image_url: z.string() }),
  ])
  .describe('a picture');

/** Body of `POST /v1/images/generations`. */
export const generationBody = z.strictObject(common);

/** Body of `POST /v1/images/edits` as JSON; the multipart form has files for `image`, `image[]` and `mask`. */
export const editBody = z.strictObject({
  ...common,
  image: z
    .union([pictureReference, z.array(pictureReference).min(1).max(16)])
    .describe('the picture to edit, then further references')
    .optional(),
  images: z.array(pictureReference).min(1).max(16).describe('the same under its newer name').optional(),
  mask: pictureReference
    .describe('transparent where the picture changes, or white if it has no transparency')
    .optional(),
  input_fidelity: z.literal('high').describe('what is not asked to change is always kept').optional(),
});

/** Body of `POST /v1/jobs` as JSON: an edit when it has a picture, else a generation. */
export const jobBody = editBody.omit({ stream: true, response_format: true });

/** A checked generation or edit, pictures apart. */
export type ImageBody = z.infer<typeof editBody>;

/** Fields that forms carry as text and JSON as numbers or booleans. */
export const FORM_TYPES: Record<string, 'number' | 'boolean'> = {
  n: 'number',
  output_compression: 'number',
  partial_images: 'number',
  stream: 'boolean',
};
