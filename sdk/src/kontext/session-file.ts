// A session as one JSON text: pictures as compressed pixels, so that what comes back is bit for bit what went out. The text may lie inside
// a PNG file of the current picture. Loaded only when a session is exported or imported.
import { KontextError } from '../../../runtime/src/errors.ts';
import { isPng, readPngChunk, writePngChunk } from '../image/metadata/png-text.ts';
import { checkImageSize, checkPixels, type PixelImage } from '../image/pixels.ts';
import { deflate, encodePng, inflate } from '../image/png-write.ts';
import type { AdapterOptions, ImageInput, Turn } from './types.ts';

/** What a session is made of. */
export interface SessionContents {
  first: ImageInput;
  turns: readonly Turn[];
  position: number;
}

const FORMAT = 'kontext-session';
const VERSION = 2;
/** Of the PNG file: ancillary, private, safe to copy. */
const CHUNK = 'kxSs';
/** Characters of a session's text, and bytes of floats in it, that are read. */
const MAX_TEXT = 2 ** 28;
const MAX_FLOAT_BYTES = 2 ** 26;

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
    parent: turn.parent,
    prompt: turn.prompt,
    options: await options(turn.options),
    resolved: turn.resolved,
    image: await packPixels(turn.image),
  }));
  return JSON.stringify({
    format: FORMAT,
    version: VERSION,
    first: await pixels(first),
    turns: await Promise.all(packed),
    position,
  });
}

/** A PNG file of the picture with the session's text in it. */
export async function writeSessionPng(text: string, picture: PixelImage): Promise<Uint8Array<ArrayBuffer>> {
  return writePngChunk(await encodePng(picture), CHUNK, await deflate(new TextEncoder().encode(text)));
}

/** @throws KontextError `invalid-request` when it is not what {@link writeSession} or {@link writeSessionPng} write */
export async function readSession(file: string | Uint8Array | ArrayBuffer | Blob): Promise<SessionContents> {
  try {
    const contents = JSON.parse(typeof file === 'string' ? file : await textIn(file));
    if (contents?.format !== FORMAT || contents.version !== VERSION || !Array.isArray(contents.turns)) {
      throw new Error('it is of another kind');
    }
    const turns: Turn[] = [];
    // One after the other: each may hold a large picture.
    for (const [i, turn] of contents.turns.entries()) turns.push(await readTurn(turn, i + 1));
    const first = await unpackValue(contents.first);
    if (!isPixels(first)) throw new Error('the first picture is missing');
    const { position } = contents;
    if (!isTurnNumber(position, turns.length)) throw new Error('its position is none of its turns');
    return { first, turns, position };
  } catch (cause) {
    throw new KontextError(
      'invalid-request',
      `This is no exported session: ${String((cause as Error).message).replace(/\.$/, '')}.`,
      {},
      { cause },
    );
  }
}

async function textIn(file: Uint8Array | ArrayBuffer | Blob): Promise<string> {
  const bytes =
    file instanceof Uint8Array ? file : new Uint8Array(file instanceof Blob ? await file.arrayBuffer() : file);
  if (!isPng(bytes)) return new TextDecoder().decode(bytes);
  const packed = readPngChunk(bytes, CHUNK);
  if (!packed) throw new Error('this picture holds none');
  return new TextDecoder().decode(await inflate(new Uint8Array(packed), MAX_TEXT));
}

async function readTurn(turn: Record<keyof Turn, unknown>, id: number): Promise<Turn> {
  const { prompt, options, resolved, parent } = turn;
  const sound = typeof prompt === 'string' && typeof options === 'object' && options !== null;
  // A turn begins at one that was made before it.
  if (!sound || !isTurnNumber(parent, id - 1)) throw new Error('a turn is damaged');
  const entries: [string, unknown][] = [];
  for (const [name, value] of Object.entries(options)) {
    if (!Array.isArray(value)) entries.push([name, await unpackValue(value)]);
    else {
      const list: unknown[] = [];
      for (const one of value) list.push(await unpackValue(one));
      entries.push([name, list]);
    }
  }
  const image = await unpackValue(turn.image);
  if (!isPixels(image)) throw new Error('a picture is missing');
  return {
    id,
    parent,
    prompt,
    options: Object.fromEntries(entries) as Turn['options'],
    resolved: resolved as Turn['resolved'],
    image,
  };
}

const isTurnNumber = (value: unknown, last: number): value is number =>
  typeof value === 'number' && Number.isInteger(value) && value >= 0 && value <= last;

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
  if (packed.$ === 'floats') return new Float32Array((await unpack(packed.data, MAX_FLOAT_BYTES)).buffer);
  if (packed.$ !== 'pixels') throw new Error('a value is of an unknown kind');
  const { width, height, data16 } = packed;
  checkImageSize(width, height, 'picture');
  const samples = 4 * width * height;
  const data = await unpack(packed.data, samples);
  const deep = data16 === undefined ? {} : { data16: new Uint16Array((await unpack(data16, 2 * samples)).buffer) };
  return checkPixels({ width, height, data, ...deep }, 'session’s picture', 'own');
}

async function pack(bytes: Uint8Array | Uint8ClampedArray): Promise<string> {
  const packed = await deflate(bytes);
  let text = '';
  // In pieces, because a call takes only so many arguments.
  for (let at = 0; at < packed.length; at += 8192) text += String.fromCharCode(...packed.subarray(at, at + 8192));
  return btoa(text);
}

function unpack(text: string, limit: number): Promise<Uint8Array<ArrayBuffer>> {
  return inflate(
    Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0)),
    limit,
  );
}
