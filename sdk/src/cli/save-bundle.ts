// Writes a bundle's files to a folder: a new folder appears whole, a bundle that is there is replaced at one moment.
// Programs and kernels are named by their hashes, so new ones lie beside old ones until the manifest says which count.
import { mkdir, readdir, rename, rm, stat } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { KontextError } from '../../../runtime/src/errors.ts';
import { statIfThere } from '../files/stat.ts';
import { writeAllOrNone, writeWhole } from '../files/whole.ts';
import { assertFolderWritable } from './outputs.ts';

/** What names the others, in the order it is put in place: a reader who sees the manifest finds everything it names. */
const HEADS = ['package.json', 'index.d.ts', 'index.js', 'manifest.json'];

/** Folders whose files are named by hashes. */
const HASHED = ['modules', 'programs', 'wgsl'];

/**
 * @param files contents by path, as `writeBundle` gives them
 * @throws KontextError `invalid-request` when the folder holds something else, or cannot be written; it is then as it was
 */
export async function saveBundle(folder: string, files: ReadonlyMap<string, string>): Promise<void> {
  await assertReplaceable(folder);
  if (!(await statIfThere(folder).catch((cause: Error) => cannot(folder, cause)))) return create(folder, files);
  await writeHashed(folder, files);
  await writeAllOrNone(HEADS.map((name) => ({ path: join(folder, name), bytes: files.get(name)! })));
  await prune(folder, files);
}

/** @throws KontextError `invalid-request` when something else lies there, or nothing can be written there */
export async function assertReplaceable(folder: string): Promise<void> {
  const there = (path: string) => statIfThere(path).catch((cause: Error) => cannot(folder, cause));
  if ((await there(folder)) && !(await there(join(folder, 'manifest.json')))) {
    throw new KontextError(
      'invalid-request',
      `${folder} exists and is no bundle; it will not be replaced. Give another -o DIR.`,
      { path: folder },
    );
  }
  await assertFolderWritable(dirname(folder), true);
}

async function create(folder: string, files: ReadonlyMap<string, string>): Promise<void> {
  const fresh = `${folder}.${process.pid}.tmp`;
  try {
    await makeFolder(fresh);
    await writeHashed(fresh, files);
    await writeAllOrNone(HEADS.map((name) => ({ path: join(fresh, name), bytes: files.get(name)! })));
    await rename(fresh, folder).catch((cause: Error) => cannot(folder, cause));
  } finally {
    // What went wrong before is the error to tell.
    await rm(fresh, { recursive: true, force: true }).catch(() => {});
  }
}

async function writeHashed(folder: string, files: ReadonlyMap<string, string>): Promise<void> {
  for (const [path, text] of files) {
    if (HEADS.includes(path)) continue;
    const place = join(folder, path);
    await makeFolder(dirname(place));
    const { size } = await stat(place).catch(() => ({ size: -1 }));
    if (size !== Buffer.byteLength(text)) await writeWhole(place, text);
  }
}

/** Removes what the new manifest does not name, and nothing that is not a bundle's. What cannot be removed now is by the next one. */
async function prune(folder: string, files: ReadonlyMap<string, string>): Promise<void> {
  for (const sub of HASHED) {
    for (const name of await readdir(join(folder, sub)).catch(() => [] as string[])) {
      const ours = sub === 'wgsl' ? /-[0-9a-f]{8}\.wgsl$/.test(name) : /^[0-9a-f]{64}\.json$/.test(name);
      if (ours && !files.has(`${sub}/${name}`)) await rm(join(folder, sub, name), { force: true }).catch(() => {});
    }
  }
}

async function makeFolder(folder: string): Promise<void> {
  await mkdir(folder, { recursive: true }).catch((cause: Error) => cannot(folder, cause));
}

function cannot(folder: string, cause: Error): never {
  throw new KontextError('invalid-request', `Cannot write ${folder}: ${cause.message}.`, { path: folder }, { cause });
}
