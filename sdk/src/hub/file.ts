// One file on the hub, `hf:owner/name[@revision]:file`, as a part of a model, with what belongs to it.
import { KontextError } from '../../../runtime/src/errors.ts';
import { folderFiles, type ModelFiles, type PlacedFile } from '../model/files.ts';
import { parseHubAddress } from './address.ts';
import { folderOf, isWhole, withCompanions } from './companions.ts';
import { assertOnline, downloadFiles, type HubLoad, hasDisk } from './download.ts';
import { openRepository, repositoryFiles } from './repository.ts';

/** @throws KontextError `invalid-request` without a file in the address; `download-failed`; `weights-invalid` when a part of it is missing; `aborted` */
export async function openHubFile(text: string, load: HubLoad = {}): Promise<PlacedFile> {
  const address = parseHubAddress(text);
  const { file } = address;
  if (file === undefined) {
    throw new KontextError('invalid-request', `${text} is a whole repository; name a file of it: ${text}:FILE.`);
  }
  const { signal } = load;
  if (!hasDisk()) {
    const { downloadToPage, pageFiles } = await import('./to-page.ts');
    const repository = await openRepository(address, load, signal);
    if (load.headersOnly) return placed(repositoryFiles(repository), file, load);
    const files = await pageFiles(repository);
    const names = repository.files.has(file) ? await withCompanions(files, file, signal) : [];
    await downloadToPage(repository, files, names, load);
    return placed(files, file, load);
  }
  const { cachedSnapshot } = await import('./cache-folder.ts');
  const snapshot = await cachedSnapshot(address);
  if (snapshot && (await isWhole(folderFiles(snapshot), file, signal)))
    return placed(folderFiles(snapshot), file, load);
  assertOnline(text);
  const repository = await openRepository(address, load, signal);
  if (load.headersOnly) return placed(repositoryFiles(repository), file, load);
  const names = repository.files.has(file) ? await withCompanions(repositoryFiles(repository), file, signal) : [file];
  return placed(folderFiles(await downloadFiles(repository, names, load)), file, load);
}

async function placed(files: ModelFiles, file: string, { signal }: HubLoad): Promise<PlacedFile> {
  const bytes = await files.open(file, signal, 'follow');
  if (!bytes) throw new KontextError('download-failed', `${files.label} has no file ${file}.`, { file });
  return {
    ...bytes,
    listed: true,
    // Opened while the model is: the load's signal ends with the load.
    beside: (name, links) => files.open(folderOf(file) + name, signal, links),
  };
}
