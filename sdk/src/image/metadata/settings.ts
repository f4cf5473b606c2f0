// What a picture was made with, from its file back to options of a request. Files come from anywhere: nothing in them is taken that the
// table of options does not know, and what is left out is told.
import { KontextError } from '../../../../runtime/src/errors.ts';
import { REQUEST_OPTIONS, type RequestOption } from '../../kontext/options.ts';
import { isJpeg, isWebp, jpegExif, webpExif } from './containers.ts';
import { readExif } from './exif.ts';
import { PARAMETERS, readParameters } from './parameters.ts';
import { isPng, readPngText } from './png-text.ts';
import type { Found, MadeWith, PictureSettings, Unused } from './types.ts';

/**
 * The settings in a picture's file: our own, or those of Stable Diffusion's web interfaces and whoever writes like them (`parameters`
 * in PNG, `UserComment` in JPEG and WebP).
 *
 * @param file the whole file
 * @throws KontextError `image-invalid` when it is no PNG, JPEG or WebP file, is damaged, or says nothing
 */
export function settingsIn(file: Uint8Array): PictureSettings {
  const { own, comment } = textsIn(file);
  const found = (own !== undefined && readOwn(own)) || (comment !== undefined && readParameters(comment));
  if (found) return checked(found);
  throw new KontextError(
    'image-invalid',
    'This picture does not say how it was made: there are no settings in its file that can be read.',
  );
}

/** Our JSON and others' text, as the file has them. */
function textsIn(file: Uint8Array): { own?: string | undefined; comment?: string | undefined } {
  if (isPng(file)) return { own: readPngText(file), comment: readPngText(file, PARAMETERS) };
  const block = isJpeg(file) ? jpegExif(file) : isWebp(file) ? webpExif(file) : undefined;
  if (block) return readExif(block);
  if (isJpeg(file) || isWebp(file)) return {};
  throw new KontextError('image-invalid', 'Settings are read from PNG, JPEG and WebP files; this is none of them.');
}

/** Of a load or of the result; another request has its own. */
const NOT_OPTIONS: readonly string[] = ['width', 'height', 'conditioning', 'precision', 'model'];
const PICTURES: Record<string, string> = {
  mask: 'the picture is not in the file; give it again as mask',
  references: 'the pictures are not in the file; give them again as references',
  adapters: 'their files are not in the picture; give them again',
};

/** What {@link writeOwn} writes; undefined when it is something else. */
function readOwn(text: string): Found | undefined {
  const file = parsed(text) as { prompt?: unknown; seed?: unknown; options?: unknown } | undefined;
  if (typeof file !== 'object' || file === null || typeof file.options !== 'object' || file.options === null) {
    return undefined;
  }
  const { width, height, ...rest } = file.options as Record<string, unknown>;
  const options: [string, unknown][] = [
    ['prompt', file.prompt],
    ['size', Number.isInteger(width) && Number.isInteger(height) ? `${width}x${height}` : undefined],
  ];
  if (typeof file.seed === 'string' && /^\d{1,20}$/.test(file.seed)) options.push(['seed', BigInt(file.seed)]);
  const unused: Unused[] = [];
  for (const [name, value] of Object.entries(rest)) {
    if (NOT_OPTIONS.includes(name) || (name === 'trueCfgScale' && value === 1)) continue;
    const picture = Object.hasOwn(PICTURES, name) ? PICTURES[name] : undefined;
    if (picture === undefined) options.push([name, value]);
    // The picture that was edited is a reference too, and is given anyway.
    else if (!Array.isArray(value) || value.length > (name === 'references' ? 1 : 0))
      unused.push({ name, reason: picture });
  }
  return { options: Object.fromEntries(options), unused };
}

/** Our own text: everything, exactly. */
export function writeOwn({ prompt, seed, ...options }: MadeWith): string {
  return JSON.stringify({ software: 'kontext-webgpu', prompt, seed: String(seed), options });
}

/** Beyond it a text is none of ours. */
const MAX_TEXT = 2 ** 20;

function parsed(text: string): unknown {
  if (text.length > MAX_TEXT) return undefined;
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

function checked({ options, unused }: Found): PictureSettings {
  const taken: Record<string, unknown> = {};
  const left = [...unused];
  for (const [name, value] of Object.entries(options)) {
    if (name === 'prompt') {
      if (typeof value === 'string') taken.prompt = value;
      continue;
    }
    const option: RequestOption | undefined = Object.hasOwn(REQUEST_OPTIONS, name)
      ? REQUEST_OPTIONS[name as keyof typeof REQUEST_OPTIONS]
      : undefined;
    const whyNot = option ? refusal(option, value) : 'there is no such option';
    if (whyNot === undefined) taken[name] = typeof value === 'bigint' ? numberWhereItFits(value) : value;
    else left.push({ name: name.slice(0, 64), reason: whyNot });
  }
  return { options: taken, unused: left };
}

const numberWhereItFits = (value: bigint): number | bigint =>
  value <= BigInt(Number.MAX_SAFE_INTEGER) ? Number(value) : value;

/** Why a value cannot be one of an option. What depends on other options is the request's to say. */
function refusal(option: RequestOption, value: unknown): string | undefined {
  switch (option.kind) {
    case 'integer':
    case 'number': {
      const whole = option.kind === 'number' || Number.isInteger(value);
      const fits = typeof value === 'number' && whole && value >= option.min && value <= option.max;
      return fits
        ? undefined
        : `it must be ${whole ? 'a number' : 'a whole number'} from ${option.min} to ${option.max}`;
    }
    case 'choice':
      return option.choices.includes(value as string) ? undefined : `it must be one of ${option.choices.join(', ')}`;
    case 'switch':
      return typeof value === 'boolean' ? undefined : 'it must be true or false';
    case 'text':
      return typeof value === 'string' ? undefined : 'it must be a text';
    case 'seed':
      return typeof value === 'bigint' && value < 2n ** 64n ? undefined : 'it must be a whole number below 2⁶⁴';
    case 'size': {
      const [, width, height] = /^(\d{1,5})x(\d{1,5})$/.exec(typeof value === 'string' ? value : '') ?? [];
      return Number(width) % 16 === 0 && Number(height) % 16 === 0 ? undefined : 'its sides must be multiples of 16';
    }
    case 'numbers': {
      const numbers = Array.isArray(value) && value.length <= 1000 && value.every((one) => Number.isFinite(one));
      return numbers ? undefined : 'it must be a list of numbers';
    }
    case 'picture':
    case 'latents':
      return 'it is not in the file';
    default:
      return isPlain(value) ? undefined : 'it must be an object of plain values';
  }
}

function isPlain(value: unknown): boolean {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) return false;
  const values = Object.values(value);
  return values.length <= 32 && values.every((one) => ['number', 'string', 'boolean'].includes(typeof one));
}
