// A session as one JSON text: pictures as compressed pixels, so that what comes back is bit for bit what went out.
// Loaded only when a session is exported or imported.
import { KontextError } from '../../../runtime/src/errors.ts';
import { checkPixels, type PixelImage } from '../image/pixels.ts';
import type { AdapterOptions, ImageInput, Turn } from './types.ts';

/** What a session is made of. */
export interface SessionContents {
  first: ImageInput;
  turns: readonly Turn[];
  position: number;
}

const FORMAT = 'kontext-session';

/** A value that JSON has no form for. */
type Packed =
  | { $: 'pixels'; width: number; height: number; data: string; data16?: string }
  | { $: 'floats'; data: string }
  | { $: 'bigint'; data: string };

/** Options of a turn whose values are pictures, or lists of them. */
const PICTURES: readonly string[] = ['mask', 'control', 'references'];

/** @param decode opens pictures that are files, URLs or page pictures */
export async function writeSession(
  { first, turns, position }: SessionContents,
  decode: (input: ImageInput) => Promise<PixelImage>,
): Promise<string> {
  const pixels = async (input: ImageInput) => packPixels(isPixels(input) ? input : await decode(input));
  const options = async (given: Turn['options']) => {
    const entries = Object.entries(given).map(async ([name, value]) => {
      if (name === 'adapters') return [name, (value as AdapterOptions[]).map(packAdapter)];
      if (!PICTURES.includes(name)) return [name, await packValue(value)];
      return [name, Array.isArray(value) ? await Promise.all(value.map(pixels)) : await pixels(value as ImageInput)];
    });
    return Object.fromEntries(await Promise.all(entries));
  };
  const packed = turns.map(async (turn) => ({
    prompt: turn.prompt,
    options: await options(turn.options),
    resolved: turn.resolved,
    image: await packPixels(turn.image),
  }));
  return JSON.stringify({
    format: FORMAT,
    version: 1,
    first: await pixels(first),
    turns: await Promise.all(packed),
    position,
  });
}

/** @throws KontextError `invalid-request` when `text` is not what {@link writeSession} writes */
export async function readSession(text: string): Promise<SessionContents> {
  try {
    const file = JSON.parse(text);
    if (file?.format !== FORMAT || file.version !== 1 || !Array.isArray(file.turns))
      throw new Error('it is of another kind');
    const turns = file.turns.map(async (turn: Record<'prompt' | 'options' | 'resolved' | 'image', never>) => {
      if (typeof turn.prompt !== 'string' || typeof turn.options !== 'object') throw new Error('a turn is damaged');
      const options = await Promise.all(
        Object.entries(turn.options).map(async ([name, value]) => [
          name,
          Array.isArray(value) ? await Promise.all(value.map(unpackValue)) : await unpackValue(value),
        ]),
      );
      const image = (await unpackValue(turn.image)) as PixelImage;
      return { prompt: turn.prompt, options: Object.fromEntries(options), resolved: turn.resolved, image };
    });
    const read: Turn[] = await Promise.all(turns);
    const first = (await unpackValue(file.first)) as PixelImage;
    const position = Number.isInteger(file.position) ? Math.max(0, Math.min(read.length, file.position)) : read.length;
    if (![first, ...read.map(({ image }) => image)].every(isPixels)) throw new Error('a picture is missing');
    return { first, turns: read, position };
  } catch (cause) {
    throw new KontextError(
      'invalid-request',
      `This is no exported session: ${(cause as Error).message.replace(/\.$/, '')}.`,
      {},
      { cause },
    );
  }
}

const isPixels = (input: unknown): input is PixelImage =>
  typeof input === 'object' && input !== null && 'data' in input && 'width' in input && 'height' in input;

async function packPixels({ width, height, data, data16 }: PixelImage): Promise<Packed> {
  const deep = data16 && { data16: await pack(new Uint8Array(data16.buffer, data16.byteOffset, data16.byteLength)) };
  return { $: 'pixels', width, height, data: await pack(data), ...deep };
}

/** Where an adapter's file is, when that is text. One that was given as bytes is found by its name, among those of `Kontext.load`. */
function packAdapter({ source, ...rest }: AdapterOptions, index: number): AdapterOptions {
  if (typeof source === 'string') return { ...rest, source };
  if (source instanceof URL) return { ...rest, source: source.href };
  const name = typeof source === 'object' && 'name' in source && source.name;
  return { name: name || `adapter ${index + 1}`, ...rest };
}

async function packValue(value: unknown): Promise<unknown> {
  if (typeof value === 'bigint') return { $: 'bigint', data: String(value) };
  if (!(value instanceof Float32Array)) return value;
  return { $: 'floats', data: await pack(new Uint8Array(value.buffer, value.byteOffset, value.byteLength)) };
}

async function unpackValue(value: unknown): Promise<unknown> {
  if (typeof value !== 'object' || value === null || !('$' in value)) return value;
  const packed = value as Packed;
  if (packed.$ === 'bigint') return BigInt(packed.data);
  const bytes = await unpack(packed.data);
  if (packed.$ === 'floats') return new Float32Array(bytes.buffer);
  if (packed.$ !== 'pixels') throw new Error('a value is of an unknown kind');
  const { width, height, data16 } = packed;
  const deep = data16 === undefined ? {} : { data16: new Uint16Array((await unpack(data16)).buffer) };
  return checkPixels({ width, height, data: bytes, ...deep }, 'session’s picture', 'own');
}

async function pack(bytes: Uint8Array | Uint8ClampedArray): Promise<string> {
  const stream = new Blob([bytes as BlobPart]).stream().pipeThrough(new CompressionStream('deflate'));
  const packed = new Uint8Array(await new Response(stream).arrayBuffer());
  let text = '';
  // In pieces, because a call takes only so many arguments.
  for (let at = 0; at < packed.length; at += 8192) text += String.fromCharCode(...packed.subarray(at, at + 8192));
  return btoa(text);
}

async function unpack(text: string): Promise<Uint8Array<ArrayBuffer>> {
  const packed = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream('deflate'));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}
