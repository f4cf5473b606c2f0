// The files of a model by their names inside its folder: on disk, on a server, or wherever an app keeps them.
// Everything above asks for names and byte ranges, so a new place to keep models is one function.
import { asKontextError, KontextError, shown, throwIfAborted } from '../../../runtime/src/errors.ts';
import { jsonProblem } from '../../../runtime/src/json.ts';
import { shownUrl } from '../../../runtime/src/net/retry.ts';
import { abortable } from '../../../runtime/src/net/wait.ts';
import { type ByteSource, blobBytes, fileBytes, memoryBytes } from '../../../runtime/src/weights/bytes.ts';
import { guardSource } from '../../../runtime/src/weights/guard.ts';
import { isMissing, type UrlBytesOptions, urlBytes } from '../../../runtime/src/weights/url.ts';
import { type Links, namesBelow, pathBelow } from './folder-paths.ts';
import { addressBelow } from './place-names.ts';

/** A place where a model's files are. Implement it to load from anywhere else. */
export interface ModelFiles {
  /** For error messages: the folder or URL. */
  readonly label: string;
  /** The one file that was named in the folder's place: its networks go before those of all others. */
  readonly file?: string;
  /**
   * The file of this name (with `/` between folders), or undefined when there is none.
   *
   * @param links `follow` for names that do not come from a file of the model: a place on disk then opens links that leave it
   */
  open(name: string, signal?: AbortSignal, links?: 'inside' | 'follow'): Promise<ByteSource | undefined>;
  /** Names in the folder, or in one inside it, where the place can tell. */
  list?(folder?: string): Promise<string[]>;
}

/** A file that knows its place: the other files of its folder open by their names, as for a path. */
export interface PlacedFile extends ByteSource {
  beside(name: string, links?: Links): Promise<ByteSource | undefined>;
  /** Whether the place knows its names, so that a question for what is not there reaches no server. */
  readonly listed: boolean;
}

/** One file: a path (Node, Deno), a URL, a Blob, or bytes. */
export type FileInput = string | URL | Blob | Uint8Array | ByteSource;

/**
 * Files below a URL, read by range requests. A file is missing when the server says so (404, 410), or shows a web page in its
 * place, as servers of single-page apps do.
 *
 * @param options headers of an app's own, hosts that may be asked, attempts
 */
export function urlFiles(base: string | URL, options: Omit<UrlBytesOptions, 'signal'> = {}): ModelFiles {
  const url = addressOf(base);
  return {
    label: shownUrl(url.href),
    async open(name, signal) {
      try {
        return await urlBytes(addressBelow(url, name), { ...options, signal });
      } catch (error) {
        if (isMissing(error)) return undefined;
        throw error;
      }
    },
  };
}

/** Files of a folder on disk (Node, Deno). Unless `open` is told to follow, a link may lead out of it only within the hub cache that the folder belongs to. */
export function folderFiles(folder: string): ModelFiles {
  if (typeof folder !== 'string' || folder.includes('\0')) {
    throw new KontextError('invalid-request', `${shown(folder)} is no path of a folder.`);
  }
  return {
    label: folder,
    async open(name, _signal, links?: Links) {
      const path = await pathBelow(folder, name, links);
      return path === undefined ? undefined : guardSource(await fileBytes(path));
    },
    async list(inside = '') {
      const { readdir } = await import('node:fs/promises');
      return inside === '' ? readdir(folder) : namesBelow(`${folder}/${inside}`);
    },
  };
}

/** An app's own place held to its contract: its files are checked sources, its errors ours. @throws KontextError `invalid-request` when it is none */
export function guardFiles(files: ModelFiles): ModelFiles {
  if (typeof files?.open !== 'function' || (files.list !== undefined && typeof files.list !== 'function')) {
    throw new KontextError(
      'invalid-request',
      'A model is the path or URL of its folder, its files one by one, or a place with a function open(name), and perhaps list().',
    );
  }
  const label = typeof files.label === 'string' ? files.label : 'own files';
  const told = (error: unknown): never => {
    throw asKontextError(error, 'weights-invalid', `The files of ${label} cannot be opened`);
  };
  return {
    label,
    ...(typeof files.file === 'string' && { file: files.file }),
    async open(name, signal, links) {
      throwIfAborted(signal);
      const opening = Promise.resolve().then(() => files.open(name, signal, links));
      const source = await abortable(opening, signal).catch(told);
      return source === undefined || source === null ? undefined : guardSource(source);
    },
    ...(files.list && {
      async list(folder?: string) {
        const names: unknown = await Promise.resolve(files.list!(folder)).catch(told);
        if (Array.isArray(names) && names.every((name) => typeof name === 'string')) return names;
        throw new KontextError('invalid-request', `list() of ${label} must give names.`);
      },
    }),
  };
}

/** @throws KontextError `weights-invalid` or `download-failed` when it cannot be opened */
export async function openFile(input: FileInput, signal?: AbortSignal): Promise<ByteSource> {
  if (input instanceof Uint8Array) return guardSource(memoryBytes(input));
  if (input instanceof Blob) return guardSource(blobBytes(input));
  if (typeof input === 'object' && !(input instanceof URL)) return guardSource(input);
  if (typeof input !== 'string' && !(input instanceof URL)) {
    throw new KontextError(
      'invalid-request',
      'A file must be a path, a URL, a Blob, bytes, or a source with size, read and close.',
    );
  }
  const path = localPath(input);
  return path === undefined ? urlBytes(input, signal ? { signal } : {}) : guardSource(await fileBytes(path));
}

/** @throws KontextError `invalid-request` */
function addressOf(text: string | URL): URL {
  if (typeof text === 'string' || text instanceof URL) {
    try {
      return new URL(text);
    } catch {
      // Told below.
    }
  }
  throw new KontextError('invalid-request', `${shown(text)} is no URL.`);
}

/**
 * The path of a string or file URL; undefined for what must be fetched. In a page everything is fetched.
 *
 * @throws KontextError `invalid-request` for a file URL that is broken
 */
export function localPath(place: string | URL): string | undefined {
  const text = String(place);
  if (/^file:/i.test(text)) {
    if (/%(?![0-9a-f]{2})|%00/i.test(text)) throw new KontextError('invalid-request', `${shown(text)} is no file URL.`);
    // Windows paths have a drive after the slash.
    return decodeURIComponent(new URL(text).pathname).replace(/^\/([a-z]:)/i, '$1');
  }
  const isPage = typeof process === 'undefined' || !process.versions?.node;
  if (/^[a-z][a-z0-9+.-]+:/i.test(text) || isPage) return undefined;
  // Shells expand it; configurations and programs do not.
  const home = process.env.HOME ?? process.env.USERPROFILE;
  return home !== undefined && /^~(?=[\\/]|$)/.test(text) ? home + text.slice(1) : text;
}

/** Whether a path is a folder; false when there is nothing. */
export async function isFolder(path: string): Promise<boolean> {
  const { stat } = await import('node:fs/promises');
  const found = await stat(path).catch(() => undefined);
  // What is not there is reported as a folder that has no model, unless its name is a file's.
  return found ? found.isDirectory() : !/\.[a-z0-9]{2,11}$/i.test(path);
}

/** Of a config or a tokenizer; T5's is 2.4 MB. */
const MAX_TEXT_BYTES = 64 * 2 ** 20;

/** A whole file as text, closed afterwards; for configs and tokenizers. @throws KontextError `weights-invalid` beyond 64 MiB */
export async function readText(bytes: ByteSource, signal?: AbortSignal): Promise<string> {
  try {
    if (bytes.size > MAX_TEXT_BYTES) {
      throw new KontextError(
        'weights-invalid',
        `${bytes.name} has ${bytes.size} bytes; a config or tokenizer has at most ${MAX_TEXT_BYTES}.`,
        { file: bytes.name },
      );
    }
    return new TextDecoder().decode(await bytes.read(0, bytes.size, signal));
  } finally {
    await bytes.close();
  }
}

/** A whole file as a JSON object, closed afterwards. @throws KontextError with `code` naming the file */
export async function readJson(
  bytes: ByteSource,
  code: 'weights-invalid' | 'tokenizer-invalid',
  signal?: AbortSignal,
): Promise<Record<string, unknown>> {
  const text = await readText(bytes, signal);
  const refuse = (problem: string) =>
    new KontextError(code, `${bytes.name} is not valid JSON: ${problem}.`, { file: bytes.name });
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (error) {
    throw refuse(jsonProblem(error));
  }
  if (typeof value === 'object' && value !== null && !Array.isArray(value)) return value as Record<string, unknown>;
  throw refuse('it holds no object');
}
