// A model on the hub as files to load from: out of Hugging Face's own cache, or downloaded to disk, or kept in the browser.
import { KontextError } from '../../../runtime/src/errors.ts';
import { folderFiles, type ModelFiles } from '../model/files.ts';
import { openModel } from '../model/open.ts';
import { WEIGHTS } from '../model/weight-names.ts';
import { parseHubAddress } from './address.ts';
import { withCompanions } from './companions.ts';
import { assertOnline, downloadFiles, type HubLoad, hasDisk } from './download.ts';
import { openRepository, repositoryFiles } from './repository.ts';

/**
 * @param text `hf:owner/name[@revision]`
 * @returns files that are complete and verified: on disk, in a page in the browser's storage; with `headersOnly` where they are
 * @throws KontextError `download-failed`, `invalid-request`, `aborted`
 */
export async function openHub(text: string, load: HubLoad = {}): Promise<ModelFiles> {
  const address = parseHubAddress(text);
  if (address.file !== undefined) {
    throw new KontextError(
      'invalid-request',
      `${text} is one file. A model is a repository (hf:${address.repository}); a file can be one of its parts: { transformer: '${text}', … }.`,
    );
  }
  const { signal } = load;
  if (!hasDisk()) {
    const { downloadToPage, pageFiles } = await import('./to-page.ts');
    const repository = await openRepository(address, load, signal);
    if (load.headersOnly) return repositoryFiles(repository);
    const files = await pageFiles(repository);
    await downloadToPage(repository, files, await neededFiles(files, signal), load);
    return files;
  }
  const { cachedSnapshot, downloadFolder } = await import('./cache-folder.ts');
  const snapshot = await cachedSnapshot(address);
  if (snapshot && (await isComplete(snapshot, signal))) return folderFiles(snapshot);
  assertOnline(text);
  const repository = await openRepository(address, load, signal);
  // Files have their names only when they are whole.
  const folder = await downloadFolder(address.repository, repository.commit, load.folder);
  if (await isComplete(folder, signal)) return folderFiles(folder);
  if (load.headersOnly) return repositoryFiles(repository);
  return folderFiles(await downloadFiles(repository, await neededFiles(repositoryFiles(repository), signal), load));
}

/**
 * Downloads what a model needs of a repository, or with a `:file` that one file with what belongs to it (the other parts of a split one).
 *
 * @param into folder; default one below the user's cache, by repository and commit
 * @returns the folder
 */
export async function downloadHub(text: string, load: HubLoad = {}, into?: string): Promise<string> {
  const address = parseHubAddress(text);
  const repository = await openRepository(address, load, load.signal);
  const { file } = address;
  const files = repositoryFiles(repository);
  const companions = file !== undefined && repository.files.has(file);
  const names = companions
    ? await withCompanions(files, file, load.signal)
    : file !== undefined
      ? [file]
      : await neededFiles(files, load.signal);
  return downloadFiles(repository, names, load, into);
}

/**
 * Opening a model reads headers and configs only, and so tells which of a repository's files it consists of: many hold the transformer
 * twice, in diffusers' shards and as one file, and a file of weights that opening gave back is none of the model's.
 */
async function neededFiles(files: ModelFiles, signal: AbortSignal | undefined): Promise<string[]> {
  const names = new Set<string>();
  let opening = true;
  const observed: ModelFiles = {
    ...files,
    async open(name, openSignal, links) {
      const bytes = await files.open(name, openSignal, links);
      if (!bytes) return undefined;
      names.add(name);
      const close = async () => {
        if (opening && WEIGHTS.test(name)) names.delete(name);
        await bytes.close();
      };
      return { ...bytes, close };
    },
  };
  const model = await openModel(observed, signal);
  opening = false;
  await model.close();
  return [...names].sort();
}

async function isComplete(folder: string, signal: AbortSignal | undefined): Promise<boolean> {
  try {
    await (await openModel(folderFiles(folder), signal)).close();
    return true;
  } catch (error) {
    if (error instanceof KontextError && error.code === 'aborted') throw error;
    return false;
  }
}
