// The pictures a command line names: files, folders, URLs, and `-` for standard input.
import { readdir, stat } from 'node:fs/promises';
import { basename, extname, join } from 'node:path';
import { KontextError } from '../../../runtime/src/errors.ts';
import { RASTER_FORMATS } from '../image/raster-formats.ts';
import { demoPicture } from '../model/demo.ts';
import { usage } from './grammar.ts';

/** One picture to work on. */
export interface Input {
  /** As the user wrote it, or its path below a folder the user wrote. */
  label: string;
  /** What the engine opens. */
  picture: string | Uint8Array;
}

/** Beyond it standard input is no photo but a mistake. */
const MAX_STDIN_BYTES = 2 ** 30;

const PICTURE_ENDINGS = Object.values(RASTER_FORMATS).flat();

/**
 * Files in the order written; a folder stands for the pictures in it by name, not for those in folders below. A file that is not
 * there is an error at once when it is the only one, and left to fail in its turn when others can be worked on.
 *
 * @throws KontextError `image-invalid` naming the file; `invalid-request` for words that look like a prompt without quotes
 */
export async function openInputs(words: readonly string[]): Promise<Input[]> {
  const inputs: Input[] = [];
  if (words.filter((word) => word === '-').length > 1) throw usage('Standard input can be read once: give - once.');
  for (const word of words) {
    if (word === '-') inputs.push({ label: 'standard input', picture: await readStdin() });
    else if (isUrl(word)) inputs.push({ label: word, picture: word });
    else inputs.push(...(await fromDisk(word, words.length > 1)));
  }
  return inputs;
}

/** @throws KontextError `image-invalid` when a path leads nowhere; URLs are not asked */
export async function assertPicture(path: string, role: string): Promise<void> {
  if (isUrl(path)) return;
  const found = await stat(path).catch(() => undefined);
  if (found?.isFile()) return;
  const why = found ? 'it is a folder' : 'there is no such file';
  throw new KontextError('image-invalid', `The ${role} ${path} cannot be opened: ${why}.`, { path });
}

/** The stem of an output's name: `photos/a.jpg` → `a`. */
export function stemOf({ label }: Input): string {
  if (label === 'standard input') return 'stdin';
  const path = isUrl(label) ? new URL(label).pathname : label;
  return basename(path, extname(path)).slice(0, 200) || 'picture';
}

/** Lower-case ending of an input's name with its dot; empty when it has none. */
export function endingOf({ label }: Input): string {
  return extname(isUrl(label) ? new URL(label).pathname : label).toLowerCase();
}

const isUrl = (text: string): boolean => /^(https?|file|data):/i.test(text);

async function fromDisk(path: string, amongOthers: boolean): Promise<Input[]> {
  const found = await stat(path).catch(() => undefined);
  // As the model of that name: what comes along, unless the user has a file called so.
  if (!found && path === 'demo') return [{ label: path, picture: demoPicture() }];
  if (found?.isDirectory()) {
    const names = (await readdir(path)).filter((name) => PICTURE_ENDINGS.includes(extname(name).toLowerCase()));
    if (names.length > 0) return names.sort().map((name) => ({ label: join(path, name), picture: join(path, name) }));
    throw usage(`The folder ${path} holds no pictures (${PICTURE_ENDINGS.join(', ')}).`);
  }
  if (!found && amongOthers && !/[./\\]/.test(path)) {
    throw usage(`There is no picture "${path}". Put the prompt in quotes.`);
  }
  if (!found && !amongOthers) await assertPicture(path, 'input image');
  return [{ label: path, picture: path }];
}

async function readStdin(): Promise<Uint8Array> {
  if (process.stdin.isTTY)
    throw usage('Standard input is a terminal: send a picture into it, or name a file instead of -.');
  const chunks: Buffer[] = [];
  let bytes = 0;
  for await (const chunk of process.stdin as AsyncIterable<Buffer>) {
    chunks.push(chunk);
    bytes += chunk.length;
    if (bytes > MAX_STDIN_BYTES)
      throw usage(`Standard input has more than ${MAX_STDIN_BYTES} bytes; that is no photo.`);
  }
  if (bytes === 0) throw new KontextError('image-invalid', 'Standard input is empty: no picture came.');
  return Buffer.concat(chunks);
}
