// Where what idle time measured is kept: beside downloads in Node, with cached models in a page.
import { openStore } from '../cache/store.ts';
import { environment } from '../hub/repository.ts';

/** Texts by name. */
export interface TuningStore {
  read(name: string): Promise<string | undefined>;
  write(name: string, text: string): Promise<void>;
}

/** The platform's; in a page that may keep nothing, one that forgets. */
export async function openTuningStore(): Promise<TuningStore> {
  return typeof process === 'object' && process.versions?.node !== undefined ? folderStore() : pageStore();
}

/** Files in `folder`, by default in the user's cache. */
export async function folderStore(folder?: string): Promise<TuningStore> {
  const { join } = await import('node:path');
  const { homedir } = await import('node:os');
  const cache = environment('XDG_CACHE_HOME') ?? join(homedir(), '.cache');
  const place = folder ?? join(cache, 'kontext-webgpu', 'tuning');
  const fileOf = (name: string) => join(place, `${name.slice(0, 200)}.json`);
  return {
    async read(name) {
      const { readFile } = await import('node:fs/promises');
      return readFile(fileOf(name), 'utf8').catch(() => undefined);
    },
    async write(name, text) {
      // Not by the module that writes files whole: it imports Node's own, which a page's bundle cannot have.
      const { mkdir, rename, writeFile } = await import('node:fs/promises');
      await mkdir(place, { recursive: true });
      const partial = `${fileOf(name)}.${process.pid}.part`;
      await writeFile(partial, text);
      await rename(partial, fileOf(name));
    },
  };
}

async function pageStore(): Promise<TuningStore> {
  const pieces = await openStore('kontext-tuning');
  return {
    async read(name) {
      const bytes = await pieces?.get('profiles', name);
      return bytes && new TextDecoder().decode(bytes);
    },
    write: async (name, text) => pieces?.put('profiles', name, new TextEncoder().encode(text)),
  };
}
