// The files of a model by their names inside its folder: on disk, on a server, or wherever an app keeps them.
// Everything above asks for names and byte ranges, so a new place to keep models is one function.
import { KontextError } from '../../../runtime/src/errors.ts';
import { jsonProblem } from '../../../runtime/src/json.ts';
import { shownUrl } from '../../../runtime/src/net/retry.ts';
import { refusedPermission } from '../../../runtime/src/permission.ts';
import { type ByteSource, blobBytes, fileBytes, memoryBytes } from '../../../runtime/src/weights/bytes.ts';
import { isMissing, type UrlBytesOptions, urlBytes } from '../../../runtime/src/weights/url.ts';
import { addressBelow } from './place-names.ts';

/** A place where a model's files are. Implement it to load from anywhere else. */
export interface ModelFiles {
  /** For error messages: the folder or URL. */
  readonly label: string;
  /** The file of this name (with `/` between folders), or undefined when there is none. */
  open(name: string, signal?: AbortSignal): Promise<ByteSource | undefined>;
  /** Names at the top of the folder, where the place can tell. */
  list?(): Promise<string[]>;
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
  const url = new URL(base);
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

/** Files of a folder on disk (Node, Deno). */
export function folderFiles(folder: string): ModelFiles {
  return {
    label: folder,
    async open(name) {
      const { stat } = await import('node:fs/promises');
      const path = `${folder}/${name}`;
      const found = await stat(path).catch((cause: unknown) => {
        const refused = refusedPermission(cause);
        if (refused)
          throw new KontextError('weights-invalid', `Cannot open ${path}. ${refused}`, { file: path }, { cause });
        return undefined;
      });
      return found?.isFile() ? fileBytes(path) : undefined;
    },
    async list() {
      const { readdir } = await import('node:fs/promises');
      return readdir(folder);
    },
  };
}

/** @throws KontextError `weights-invalid` or `download-failed` when it cannot be opened */
export async function openFile(input: FileInput, signal?: AbortSignal): Promise<ByteSource> {
  if (input instanceof Uint8Array) return memoryBytes(input);
  if (input instanceof Blob) return blobBytes(input);
  if (typeof input === 'object' && !(input instanceof URL)) return input;
  const path = localPath(input);
  return path === undefined ? urlBytes(input, signal ? { signal } : {}) : fileBytes(path);
}

/** The path of a string or file URL; undefined for what must be fetched. In a page everything is fetched. */
export function localPath(place: string | URL): string | undefined {
  const text = String(place);
  if (/^file:/i.test(text)) {
    // Windows paths have a drive after the slash.
    return decodeURIComponent(new URL(text).pathname).replace(/^\/([a-z]:)/i, '$1');
  }
  const isPage = typeof process === 'undefined' || !process.versions?.node;
  return /^[a-z][a-z0-9+.-]+:/i.test(text) || isPage ? undefined : text;
}

/** A whole file as text, closed afterwards; for configs and tokenizers, a few MB at most. */
export async function readText(bytes: ByteSource, signal?: AbortSignal): Promise<string> {
  try {
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
