// Where pictures go: every name is known and checked before work starts, and no finished picture is ever lost.
// A picture takes minutes; a missing folder or a full disk must not be found out afterwards.
import { constants } from 'node:fs';
import { access, mkdir, mkdtemp, stat, statfs, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { basename, dirname, extname, join, resolve } from 'node:path';
import { KontextError } from '../../../runtime/src/errors.ts';
import { writeWhole } from '../files/whole.ts';
import { formatOf, type ImageFormat } from '../image/node.ts';
import { usage } from './grammar.ts';
import { endingOf, type Input, stemOf } from './inputs.ts';
import { ask, canAsk } from './terminal.ts';

/** A file to come, or standard output. */
export interface Output {
  /** `-` is standard output. */
  path: string;
  format: ImageFormat;
}

export const IMAGE_FORMATS: readonly ImageFormat[] = ['png', 'jpeg', 'webp'];

/**
 * Names for the pictures of every input, `images` each.
 *
 * @param output `-`, a file, or a folder: one that exists, ends in a slash, or is needed for several inputs
 * @throws KontextError `invalid-request` when names are missing, clash or have no known ending
 */
export async function planOutputs(
  output: string | undefined,
  inputs: readonly Input[],
  images: number,
  wantedFormat: string | undefined,
): Promise<Output[][]> {
  if (output === undefined) throw usage('Where should the picture go? Give -o OUT.');
  const format = IMAGE_FORMATS.find((known) => known === wantedFormat);
  if (wantedFormat !== undefined && !format) {
    throw usage(`--format is "${wantedFormat}"; it must be of ${IMAGE_FORMATS.join(', ')}.`);
  }
  if (output === '-') {
    if (inputs.length > 1 || images > 1) throw usage('Standard output takes one picture. Give a folder: -o DIR/.');
    if (process.stdout.isTTY)
      throw usage('Standard output is a terminal: send it into a file or a program, or give -o FILE.');
    return [[{ path: '-', format: format ?? 'png' }]];
  }
  const isFolder = /[\\/]$/.test(output) || (await stat(output).catch(() => undefined))?.isDirectory();
  if (!isFolder && inputs.length > 1 && extname(output)) {
    throw usage(
      `${inputs.length} pictures do not go into one file. Give a folder: -o ${output.slice(0, -extname(output).length)}/.`,
    );
  }
  const plan = inputs.map((input) => {
    if (!isFolder && inputs.length === 1) {
      const byEnding = formatOf(output);
      if (format && format !== byEnding)
        throw usage(`${output} is ${byEnding} by its ending; leave out --format ${format}.`);
      return numbered(output, byEnding, images);
    }
    const chosen = format ?? formatFor(endingOf(input));
    return numbered(join(output, `${stemOf(input)}.${chosen === 'jpeg' ? 'jpg' : chosen}`), chosen, images);
  });
  assertDistinct(plan, inputs);
  return plan;
}

/**
 * @param bytes what all files together may take, by the most compressible guess that is still safe
 * @throws KontextError `invalid-request` when a folder is missing or not writable, too little space is left, or a file is there and neither
 *   `force` nor the user says that it may go
 */
export async function checkWritable(
  paths: readonly string[],
  { force, bytes, makesFolders, signal }: { force: boolean; bytes: number; makesFolders: boolean; signal: AbortSignal },
): Promise<void> {
  const existing: string[] = [];
  for (const path of paths) {
    const there = await stat(path).catch(() => undefined);
    if (there?.isDirectory()) throw usage(`${path} is a folder. Give -o ${join(path, 'NAME.png')}.`);
    if (there) existing.push(path);
    if (there && !(await can(path, constants.W_OK))) throw usage(`${path} cannot be replaced: it is write-protected.`);
  }
  for (const folder of new Set(paths.map((path) => dirname(resolve(path))))) {
    const base = await assertFolderWritable(folder, makesFolders);
    const free = await statfs(base).then(
      ({ bavail, bsize }) => bavail * bsize,
      // Some network file systems do not tell.
      () => Number.POSITIVE_INFINITY,
    );
    if (free < bytes) {
      throw usage(
        `Only ${kilobytes(free)} are free in ${base}; the result may take ${kilobytes(bytes)}. Free some space or give another -o.`,
      );
    }
  }
  if (existing.length === 0 || force) return;
  const names =
    existing.length === 1 ? existing[0]! : `${existing.slice(0, 3).join(', ')}${existing.length > 3 ? ', …' : ''}`;
  const verb = existing.length === 1 ? 'exists' : 'exist';
  if (canAsk() && (await ask(`${names} ${verb}. Replace?`, signal))) return;
  throw usage(`${names} ${verb}. Give --force to replace, or another -o.`);
}

/**
 * @param makesFolders whether folders that are not there will be made
 * @returns the folder, or the nearest one above it that is there
 * @throws KontextError `invalid-request` when it is missing, no folder or write-protected
 */
export async function assertFolderWritable(folder: string, makesFolders: boolean): Promise<string> {
  const base = await existingFolder(folder, makesFolders);
  if (await can(base, constants.W_OK | constants.X_OK)) return base;
  throw usage(`Cannot write into ${base}: permission denied.`);
}

/**
 * Writes a finished file. When that fails all the same, it is kept in a temporary file.
 *
 * @throws KontextError `invalid-request` naming the file it is kept in
 */
export async function deliver(path: string, bytes: Uint8Array): Promise<void> {
  try {
    if (path === '-') return await writeStdout(bytes);
    await mkdir(dirname(resolve(path)), { recursive: true });
    await writeWhole(path, bytes);
  } catch (cause) {
    const name = path === '-' ? 'stdout.png' : basename(path);
    const kept = await keep(name, bytes);
    const why = cause instanceof KontextError ? cause.message : `Cannot write ${path}: ${(cause as Error).message}.`;
    throw new KontextError(
      'invalid-request',
      kept === undefined ? `${why} Nor could it be kept in a temporary file.` : `${why} It is kept in ${kept}.`,
      { path, ...(kept !== undefined && { kept }) },
      { cause },
    );
  }
}

/** In the system's folder for temporary files, which may be another disk. */
async function keep(name: string, bytes: Uint8Array): Promise<string | undefined> {
  try {
    const path = join(await mkdtemp(join(tmpdir(), 'kontext-')), name);
    await writeFile(path, bytes);
    return path;
  } catch {
    return undefined;
  }
}

function writeStdout(bytes: Uint8Array): Promise<void> {
  return new Promise((resolve, reject) => {
    process.stdout.once('error', reject);
    process.stdout.write(bytes, (error) => (error ? reject(error) : resolve()));
  });
}

/** `out.png` → `out-1.png`, `out-2.png`, … */
function numbered(path: string, format: ImageFormat, images: number): Output[] {
  if (images === 1) return [{ path, format }];
  const ending = extname(path);
  const stem = path.slice(0, path.length - ending.length);
  return Array.from({ length: images }, (_, i) => ({ path: `${stem}-${i + 1}${ending}`, format }));
}

/** The input's own format where it can be written, else PNG. */
function formatFor(ending: string): ImageFormat {
  return ending === '.jpg' || ending === '.jpeg' ? 'jpeg' : ending === '.webp' ? 'webp' : 'png';
}

function assertDistinct(plan: readonly (readonly Output[])[], inputs: readonly Input[]): void {
  const owners = new Map<string, string>();
  for (const [i, outputs] of plan.entries()) {
    for (const { path } of outputs) {
      const label = inputs[i]!.label;
      const other = owners.get(resolve(path));
      if (other !== undefined) throw usage(`${other} and ${label} would both be written to ${path}. Run them apart.`);
      owners.set(resolve(path), label);
    }
  }
}

/** The folder itself, or where it will be made the nearest one above that is there. */
async function existingFolder(folder: string, makesFolders: boolean): Promise<string> {
  for (let at = folder; ; at = dirname(at)) {
    const there = await stat(at).catch(() => undefined);
    if (there?.isDirectory()) return at;
    if (there) throw usage(`Cannot write into ${at}: it is no folder.`);
    if (!makesFolders || at === dirname(at))
      throw usage(`Cannot write into ${folder}: there is no such folder. Make it first.`);
  }
}

const can = (path: string, mode: number): Promise<boolean> =>
  access(path, mode).then(
    () => true,
    () => false,
  );

const kilobytes = (bytes: number): string => `${Math.ceil(bytes / 1000).toLocaleString('en')} kB`;
