// A bundle changed by someone who knows the format: every hash on the way is right again afterwards.
import { createHash } from 'node:crypto';
import type { BundleBody, BundleManifest, BundleSource } from '../../kernels-codegen/src/bundle/types.ts';

export const sha256 = (text: string) => createHash('sha256').update(text).digest('hex');

export interface Tampering {
  /** A kernel's text. */
  wgsl?: (text: string, label: string, component: string) => string;
  /** A program's body, in place. */
  body?: (body: BundleBody) => void;
  /** The manifest before its digest is made, in place. */
  manifest?: (manifest: BundleManifest) => void;
}

/** @param files of `writeBundle` */
export function tamper(files: ReadonlyMap<string, string>, change: Tampering): Map<string, string> {
  const manifest = JSON.parse(files.get('manifest.json')!) as BundleManifest;
  const texts: Record<string, string> = {};
  for (const [path, text] of files) if (path.startsWith('modules/')) Object.assign(texts, JSON.parse(text));
  const changed = new Map([...files].filter(([path]) => !/^(modules|programs|manifest)/.test(path)));
  const modules: Record<string, string> = {};
  const bodies = new Map<string, string>();
  for (const entry of manifest.programs) {
    const known = bodies.get(entry.body);
    if (known) {
      entry.body = known;
      continue;
    }
    const body = JSON.parse(files.get(`programs/${entry.body}.json`)!) as BundleBody;
    for (const kernel of body.kernels) {
      const wgsl = change.wgsl?.(texts[kernel.module]!, kernel.label, body.component) ?? texts[kernel.module]!;
      kernel.module = sha256(wgsl);
      modules[kernel.module] = wgsl;
    }
    change.body?.(body);
    const text = JSON.stringify(body);
    bodies.set(entry.body, sha256(text));
    entry.body = sha256(text);
    changed.set(`programs/${entry.body}.json`, text);
  }
  const pack = JSON.stringify(modules);
  const file = sha256(pack);
  changed.set(`modules/${file}.json`, pack);
  manifest.modules = [{ file, bytes: pack.length, holds: Object.keys(modules) }];
  change.manifest?.(manifest);
  const { signature, ...unsigned } = manifest;
  const digest = sha256(JSON.stringify({ ...unsigned, digest: '' }));
  changed.set('manifest.json', JSON.stringify({ ...unsigned, digest, ...(signature && { signature }) }));
  return changed;
}

/** Files of a bundle as a source, as an imported bundle is one. */
export const sourceOf = (files: ReadonlyMap<string, string>, label = 'The bundle under test'): BundleSource => ({
  label,
  read: async (path) => {
    const text = files.get(path);
    if (text === undefined) throw new Error('no such file');
    return JSON.parse(text);
  },
});
