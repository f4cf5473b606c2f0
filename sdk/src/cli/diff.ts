// `kontext compile --diff A B`: what changed between two bundles, for reviews and release notes.
// Programs are matched by target, quantisation and shape; kernels by their labels, because their hashes are what changes.
import type { BundleEntry, BundleManifest, BundleSource } from '../programs/bundle.ts';
import { readEntry, readManifest } from '../programs/bundle.ts';

/** A line for each difference from `a` to `b`. @throws KontextError `program-invalid`, `program-mismatch` */
export async function diffBundles(a: BundleSource, b: BundleSource): Promise<string[]> {
  const [old, fresh] = [await readManifest(a), await readManifest(b)];
  const [before, after] = [index(old), index(fresh)];
  const lines: string[] = [];
  if (old.model !== fresh.model) lines.push(`model: ${old.model} → ${fresh.model}`);
  if (JSON.stringify(old.specs) !== JSON.stringify(fresh.specs)) lines.push('model: other widths or depths');
  for (const { name, tier } of fresh.targets) {
    const known = old.targets.find((target) => target.name === name);
    if (!known) lines.push(`+ target ${name} (${tier})`);
    else if (JSON.stringify(known) !== JSON.stringify(fresh.targets.find((target) => target.name === name)))
      lines.push(`~ target ${name}: another profile`);
  }
  for (const { name } of old.targets) {
    if (!fresh.targets.some((target) => target.name === name)) lines.push(`- target ${name}`);
  }
  for (const [key, entry] of before) if (!after.has(key)) lines.push(`- ${nameOf(entry)}`);
  for (const [key, entry] of after) {
    const known = before.get(key);
    if (!known) {
      lines.push(`+ ${nameOf(entry)}: ${entry.kernels} kernels, ${entry.dispatches} dispatches`);
      continue;
    }
    const changes = numbers(known, entry);
    if (JSON.stringify(known.requires) !== JSON.stringify(entry.requires)) changes.push('other requirements');
    if (changes.length === 0 && known.body === entry.body) continue;
    lines.push(`~ ${nameOf(entry)}: ${changes.join(', ') || 'same numbers'}`);
    if (known.body === entry.body) continue;
    const kernels = await Promise.all([kernelsOf(a, old, known), kernelsOf(b, fresh, entry)]);
    const details = kernelChanges(...kernels);
    if (details.length === 0) details.push('the same kernels on other ranges, weights or constants');
    lines.push(...details.map((detail) => `    ${detail}`));
  }
  const modules = new Set(old.modules.flatMap(({ holds }) => holds));
  const created = fresh.modules.flatMap(({ holds }) => holds).filter((hash) => !modules.delete(hash)).length;
  if (created > 0 || modules.size > 0) lines.push(`WGSL modules: ${created} new, ${modules.size} gone`);
  return lines;
}

function index({ programs }: BundleManifest): Map<string, BundleEntry> {
  return new Map(programs.map((p) => [`${p.target} ${p.quantization} ${JSON.stringify(p.shape)}`, p]));
}

const nameOf = ({ label, quantization }: BundleEntry): string => `${label} (${quantization})`;

const MiB = 2 ** 20;

function numbers(old: BundleEntry, entry: BundleEntry): string[] {
  const slabs = ({ memory }: BundleEntry) => memory.slabs.reduce((sum, bytes) => sum + bytes, 0) / MiB;
  const rows: [what: string, before: number, after: number][] = [
    ['kernels', old.kernels, entry.kernels],
    ['dispatches', old.dispatches, entry.dispatches],
    ['GFLOP', old.flops / 1e9, entry.flops / 1e9],
    ['slabs MiB', slabs(old), slabs(entry)],
    ['ports MiB', old.memory.ports / MiB, entry.memory.ports / MiB],
    ['weights MiB', old.memory.weights / MiB, entry.memory.weights / MiB],
  ];
  return rows.flatMap(([what, x, y]) => (x === y ? [] : [`${what} ${Number(x.toFixed(2))} → ${Number(y.toFixed(2))}`]));
}

type KernelTexts = Map<string, { texts: string[]; dispatches: number }>;

/** Texts and uses of a program's kernels by label; several kernels may share one. */
async function kernelsOf(source: BundleSource, manifest: BundleManifest, entry: BundleEntry): Promise<KernelTexts> {
  const program = await readEntry(source, manifest, entry);
  const kernels: KernelTexts = new Map();
  program.kernels.forEach(({ label, wgsl }, i) => {
    const known = kernels.get(label) ?? { texts: [], dispatches: 0 };
    kernels.set(label, known);
    known.texts.push(wgsl);
    known.dispatches += program.dispatches.filter(({ kernel }) => kernel === i).length;
  });
  return kernels;
}

function kernelChanges(before: KernelTexts, after: KernelTexts): string[] {
  const gone = [...before].flatMap(([label, { dispatches }]) =>
    after.has(label) ? [] : [`- ${label}, ${dispatches} dispatches`],
  );
  const rest = [...after].flatMap(([label, { texts, dispatches }]) => {
    const old = before.get(label);
    if (!old) return [`+ ${label}, ${dispatches} dispatches`];
    const same = new Set(old.texts);
    const changed = texts.filter((text) => !same.has(text)).length;
    const notes = [
      ...(old.texts.length === texts.length ? [] : [`kernels ${old.texts.length} → ${texts.length}`]),
      ...(old.dispatches === dispatches ? [] : [`dispatches ${old.dispatches} → ${dispatches}`]),
      ...(changed === 0 ? [] : [`${changed} of ${texts.length} texts differ`]),
    ];
    return notes.length === 0 ? [] : [`~ ${label}: ${notes.join(', ')}`];
  });
  return [...gone, ...rest];
}
