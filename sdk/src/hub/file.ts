// One file on the hub, `hf:owner/name[@revision]:file`, as a part of a model.
import { KontextError } from '../../../runtime/src/errors.ts';
import { type ByteSource, fileBytes } from '../../../runtime/src/weights/bytes.ts';
import { parseHubAddress } from './address.ts';
import { downloadFiles, type HubLoad, hasDisk } from './download.ts';
import { openRepository } from './repository.ts';

/** @throws KontextError `invalid-request` without a file in the address; `download-failed`; `aborted` */
export async function openHubFile(text: string, load: HubLoad = {}): Promise<ByteSource> {
  const address = parseHubAddress(text);
  const { file } = address;
  if (file === undefined) {
    throw new KontextError('invalid-request', `${text} is a whole repository; name a file of it: ${text}:FILE.`);
  }
  if (hasDisk()) {
    const { cachedSnapshot } = await import('./cache-folder.ts');
    const { stat } = await import('node:fs/promises');
    const snapshot = await cachedSnapshot(address);
    if (snapshot && (await stat(`${snapshot}/${file}`).catch(() => undefined))?.isFile()) {
      return fileBytes(`${snapshot}/${file}`);
    }
    const repository = await openRepository(address, load, load.signal);
    return fileBytes(`${await downloadFiles(repository, [file], load)}/${file}`);
  }
  const { downloadToPage, pageFiles } = await import('./to-page.ts');
  const repository = await openRepository(address, load, load.signal);
  const files = await pageFiles(repository);
  if (repository.files.has(file)) await downloadToPage(repository, files, [file], load);
  const bytes = await files.open(file, load.signal);
  if (bytes) return bytes;
  throw new KontextError('download-failed', `${repository.label} has no file ${file}.`, { file });
}
