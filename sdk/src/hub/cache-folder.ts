// The cache that Hugging Face's own tools fill: a model that was downloaded by them is used as it is.
// Layout: <cache>/models--owner--name/{refs/<revision>, snapshots/<commit>/<file>}, files being links into blobs/.
import type { HubAddress } from './address.ts';
import { environment } from './repository.ts';

/** Folder of the snapshot that the cache has of a revision; undefined when there is none. */
export async function cachedSnapshot({ repository, revision }: HubAddress): Promise<string | undefined> {
  const { readFile, stat } = await import('node:fs/promises');
  const { join } = await import('node:path');
  const folder = join(await hubCache(), `models--${repository.replace('/', '--')}`);
  const named = await readFile(join(folder, 'refs', revision), 'utf8').catch(() => undefined);
  const commit = named?.trim() ?? revision;
  if (!/^[\da-f]{40,64}$/.test(commit)) return undefined;
  const snapshot = join(folder, 'snapshots', commit);
  return (await stat(snapshot).catch(() => undefined))?.isDirectory() ? snapshot : undefined;
}

async function hubCache(): Promise<string> {
  const { homedir } = await import('node:os');
  const { join } = await import('node:path');
  const own = environment('HF_HUB_CACHE') ?? environment('HUGGINGFACE_HUB_CACHE');
  if (own) return own;
  const home =
    environment('HF_HOME') ?? join(environment('XDG_CACHE_HOME') ?? join(homedir(), '.cache'), 'huggingface');
  return join(home, 'hub');
}

/** Where our own downloads go. */
export async function downloadFolder(repository: string, commit: string, folder: string | undefined): Promise<string> {
  const { homedir } = await import('node:os');
  const { join } = await import('node:path');
  const base = folder ?? join(environment('XDG_CACHE_HOME') ?? join(homedir(), '.cache'), 'kontext-webgpu');
  return join(base, repository.replace('/', '--'), commit);
}
