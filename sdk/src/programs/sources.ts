// Where a bundle's files are: a folder, a URL, or the module that `kontext compile` writes beside them.
// A bundle imported as a module is a source already.

import type { BundleSource } from '../../../kernels-codegen/src/bundle/types.ts';
import { KontextError } from '../../../runtime/src/errors.ts';
import { jsonProblem } from '../../../runtime/src/json.ts';
import { justInTime, type ProgramProvider } from '../kontext/programs.ts';
import { localPath } from '../model/files.ts';
import type { PublicKey } from './signature.ts';

/** A bundle, and who must have signed it. It then runs as fast as programs compiled in the process: without bounds checks. */
export interface SignedPrograms {
  /** The imported bundle, its folder or its URL. */
  bundle: string | URL | BundleSource;
  /** Of whoever ran `kontext compile --sign`; of a list any one will do, so that keys can be changed. */
  publicKey: PublicKey | readonly PublicKey[];
}

/** Option `programs` of `Kontext.load`: an imported bundle, its folder or URL, one with the key that signed it, or a provider of one's own. */
export type Programs = string | URL | BundleSource | SignedPrograms | ProgramProvider;

/** Where programs come from, and whether they may run without bounds checks. */
export interface OpenedPrograms {
  provider: ProgramProvider;
  /**
   * True for what this process compiles itself, and for bundles whose signature {@link ProgramProvider.specs} has checked. Whatever
   * else: a kernel with right hashes can still read beyond its buffers.
   */
  trusted: boolean;
}

/**
 * Without a bundle programs are compiled in this process when asked for.
 *
 * @throws KontextError `invalid-request` when `programs` is nothing of the kind
 */
export function openPrograms(programs: Programs | undefined): OpenedPrograms {
  if (programs === undefined) return { provider: justInTime(), trusted: true };
  if (typeof programs === 'object' && programs !== null && 'bundle' in programs) {
    const { bundle, publicKey, ...rest } = programs;
    const unknown = Object.keys(rest)[0];
    if (unknown !== undefined)
      throw invalid(`programs has the unknown field ${unknown}; it takes bundle and publicKey`);
    const keys = Array.isArray(publicKey) ? publicKey : [publicKey];
    if (keys.length === 0 || keys.some((key) => key === undefined || key === null)) {
      throw invalid('programs has a bundle and no publicKey. Name the key that signed it, or give the bundle alone');
    }
    return { provider: lazily(openBundle(bundle), keys), trusted: true };
  }
  if (isProvider(programs)) return { provider: programs, trusted: false };
  return { provider: lazily(openBundle(programs)), trusted: false };
}

/** What reads bundles is loaded by those who have one. */
function lazily(source: BundleSource, keys?: readonly PublicKey[]): ProgramProvider {
  let opened: Promise<ProgramProvider> | undefined;
  const provider = () => {
    opened ??= import('./bundle.ts').then(({ bundlePrograms }) => bundlePrograms(source, keys));
    return opened;
  };
  return {
    specs: async (model) => (await provider()).specs(model),
    target: async (device, precision) => (await provider()).target(device, precision),
    program: async (request) => (await provider()).program(request),
  };
}

function openBundle(bundle: string | URL | BundleSource): BundleSource {
  if (typeof bundle === 'object' && bundle !== null && 'read' in bundle && typeof bundle.read === 'function')
    return bundle;
  if (typeof bundle !== 'string' && !(bundle instanceof URL)) {
    throw invalid('programs must be a bundle: imported, or the path or URL of its folder');
  }
  const path = localPath(bundle);
  return path === undefined ? bundleUrl(bundle) : bundleFolder(path);
}

function isProvider(programs: unknown): programs is ProgramProvider {
  const methods = ['specs', 'target', 'program'] as const;
  return (
    typeof programs === 'object' && methods.every((name) => typeof (programs as ProgramProvider)?.[name] === 'function')
  );
}

const invalid = (problem: string) => new KontextError('invalid-request', `${problem}.`, { option: 'programs' });

function parsed(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch (error) {
    throw new KontextError('program-invalid', `It is not JSON: ${jsonProblem(error)}`);
  }
}

/** A folder written by `kontext compile` (Node, Deno). */
export function bundleFolder(folder: string): BundleSource {
  return {
    label: `The bundle ${folder}`,
    async read(path) {
      const { readFile } = await import('node:fs/promises');
      return parsed(await readFile(`${folder}/${path}`, 'utf8'));
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
      if (response.ok) return parsed(await response.text());
      throw new KontextError('download-failed', `HTTP ${response.status} for ${base}${path}.`, {
        status: response.status,
      });
    },
  };
}
