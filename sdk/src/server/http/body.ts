// Bodies of requests, bounded while they are read: JSON or multipart to fields and files.
// Parsing is the platform's (`Response.formData`); what is ours are the limits, because it has none.
import { collect } from '../../../../runtime/src/net/collect.ts';
import { ApiError } from './errors.ts';
import { FORM_TYPES } from './schema.ts';

/** What a body holds, before any schema has seen it. */
export interface ParsedBody {
  /** As JSON would hold them. */
  fields: Record<string, unknown>;
  /** Files by the name of their part, in order; `image[]` is `image`. */
  files: Map<string, Blob[]>;
}

/** @throws ApiError 400 when it cannot be parsed, 413 above `maxBytes`, 415 for another content type */
export async function readBody(request: Request, maxBytes: number): Promise<ParsedBody> {
  const type = request.headers.get('content-type') ?? '';
  const bytes = await readBounded(request, maxBytes);
  if (/^application\/json\b/i.test(type)) return { fields: parseJson(bytes), files: new Map() };
  if (/^multipart\/form-data\b/i.test(type)) return parseForm(bytes, type);
  throw new ApiError(415, 'unsupported-media-type', 'Send application/json or multipart/form-data.');
}

async function readBounded(request: Request, maxBytes: number): Promise<Uint8Array<ArrayBuffer>> {
  const tooLarge = () =>
    new ApiError(413, 'body-too-large', `The body is larger than ${maxBytes} bytes, which is the limit here.`);
  if (Number(request.headers.get('content-length') ?? 0) > maxBytes) throw tooLarge();
  try {
    return await collect(request.body, maxBytes, tooLarge);
  } catch (error) {
    if (error instanceof ApiError) throw error;
    throw new ApiError(400, 'body-incomplete', 'The body ended before it was complete.');
  }
}

function parseJson(bytes: Uint8Array): Record<string, unknown> {
  let value: unknown;
  try {
    value = JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(bytes));
  } catch {
    throw new ApiError(400, 'invalid-json', 'The body is not valid JSON.');
  }
  if (typeof value === 'object' && value !== null && !Array.isArray(value)) return value as Record<string, unknown>;
  throw new ApiError(400, 'invalid-json', 'The body must be a JSON object.');
}

async function parseForm(bytes: Uint8Array<ArrayBuffer>, type: string): Promise<ParsedBody> {
  let form: FormData;
  try {
    form = await new Response(bytes, { headers: { 'content-type': type } }).formData();
  } catch {
    throw new ApiError(400, 'invalid-multipart', 'The multipart body cannot be parsed.');
  }
  const fields: Record<string, unknown> = {};
  const files = new Map<string, Blob[]>();
  for (const [name, value] of form as unknown as Iterable<[string, string | Blob]>) {
    if (typeof value === 'string') setField(fields, name, value);
    else {
      const key = name.replace(/\[\d*\]$/, '');
      files.set(key, [...(files.get(key) ?? []), value]);
    }
  }
  return { fields, files };
}

/** `kontext` may be JSON in one part, or `kontext[seed]` a part each, as OpenAI's client writes nested values. */
function setField(fields: Record<string, unknown>, name: string, text: string): void {
  const nested = /^kontext\[(\w+)\]$/.exec(name);
  if (nested) {
    const inner = isRecord(fields.kontext) ? fields.kontext : {};
    fields.kontext = { ...inner, [nested[1]!]: jsonOrText(text) };
  } else if (name === 'kontext') {
    const value = jsonOrText(text);
    if (!isRecord(value)) throw new ApiError(400, 'invalid-request', 'kontext must be a JSON object.', { param: name });
    fields.kontext = value;
  } else if (FORM_TYPES[name] === 'number') {
    fields[name] = text.trim() === '' ? text : Number.isNaN(Number(text)) ? text : Number(text);
  } else if (FORM_TYPES[name] === 'boolean') {
    fields[name] = text === 'true' ? true : text === 'false' ? false : text;
  } else {
    fields[name] = text;
  }
}

/** Numbers, booleans, objects as such; a long whole number stays text, since JSON's numbers would round it. */
function jsonOrText(text: string): unknown {
  if (/^-?\d{16,}$/.test(text)) return text;
  try {
    return JSON.parse(text) as unknown;
  } catch {
    return text;
  }
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}
