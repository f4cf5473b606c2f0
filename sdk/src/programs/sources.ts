// Where a bundle's files are: a folder, a URL, or the module that `kontext compile` writes beside them.
// A bundle imported as a module is a source already.

import type { BundleSource } from '../../../kernels-codegen/src/bundle/types.ts';
import { KontextError } from '../../../runtime/src/errors.ts';
import { justInTime, type ProgramProvider } from '../kontext/programs.ts';
import { localPath } from '../model/files.ts';
import { bundlePrograms } from './bundle.ts';

/** Option `programs` of `Kontext.load`: an imported bundle, its folder or URL, or a provider of one's own. */
export type Programs = string | URL | BundleSource | ProgramProvider;

/** Without a bundle programs are compiled in this process when asked for. */
export function openPrograms(programs: Programs | undefined): ProgramProvider {
  if (programs === undefined) return justInTime();
  if (typeof programs !== 'string' && !(programs instanceof URL)) {
    return 'read' in programs ? bundlePrograms(programs) : programs;
  }
  const path = localPath(programs);
  return bundlePrograms(path === undefined ? bundleUrl(programs) : bundleFolder(path));
}

/** A folder written by `kontext compile` (Node, Deno). */
export function bundleFolder(folder: string): BundleSource {
  return {
    label: `The bundle ${folder}`,
    async read(path) {
      const { readFile } = await import('node:fs/promises');
      return JSON.parse(await readFile(`${folder}/${path}`, 'utf8'));
    },
  };
}

/** A bundle on a server: `url` is its folder. */
export function bundleUrl(url: string | URL): BundleSource {
  const base = String(url).replace(/\/?$/, '/');
  return {
    label: `The bundle ${base}`,
    async read(path) {
      const response = await fetch(base + path);
      if (response.ok) return response.json();
      throw new KontextError('download-failed', `HTTP ${response.status} for ${base}${path}.`, {
        status: response.status,
      });
    },
  };
}
