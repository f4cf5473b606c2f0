// Divides WGSL modules into files: one for each set of targets that share them.
// A bundle of many targets and sizes has thousands of modules; one file each would be as many requests, one file a download of all.

import type { BundleModules, ModulePack } from './types.ts';

export interface Module {
  /** SHA-256 of `wgsl`. */
  hash: string;
  label: string;
  wgsl: string;
  /** Names of the targets whose programs use it. */
  targets: Set<string>;
}

/**
 * @param modules in the order of first use, which is kept: kernels that resemble each other compress well as neighbours
 * @returns what the manifest says of the files, and their texts by hash
 */
export async function packModules(
  modules: readonly Module[],
): Promise<{ packs: ModulePack[]; texts: Map<string, string> }> {
  const groups = new Map<string, Module[]>();
  for (const module of modules) {
    const key = [...module.targets].sort().join();
    const group = groups.get(key);
    if (group) group.push(module);
    else groups.set(key, [module]);
  }
  const packs: ModulePack[] = [];
  const texts = new Map<string, string>();
  for (const group of groups.values()) {
    const text = JSON.stringify(
      Object.fromEntries(group.map(({ hash, wgsl }) => [hash, wgsl])) satisfies BundleModules,
    );
    const file = await sha256(text);
    texts.set(file, text);
    packs.push({ file, bytes: new TextEncoder().encode(text).length, holds: group.map(({ hash }) => hash) });
  }
  return { packs, texts };
}

export async function sha256(text: string): Promise<string> {
  const digest = await crypto.subtle.digest('SHA-256', new TextEncoder().encode(text));
  return Array.from(new Uint8Array(digest), (byte) => byte.toString(16).padStart(2, '0')).join('');
}
