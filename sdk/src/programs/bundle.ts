// A bundle as a source of programs: picks the one for a component, a shape and a device, without the compiler.
// Everything is checked on the way from disk to the GPU: version, signature, hashes, structure, model, features, limits.

import type {
  BundleBody,
  BundleEntry,
  BundleManifest,
  BundleModules,
  BundleSource,
  BundleStored,
} from '../../../kernels-codegen/src/bundle/types.ts';
import type { AdapterRoom } from '../../../kernels-codegen/src/graph/room.ts';
import type { TargetProfile } from '../../../kernels-codegen/src/targets/types.ts';
import { KontextError } from '../../../runtime/src/errors.ts';
import type { AdapterReport } from '../../../runtime/src/gpu/report.ts';
import type { ModuleRoom } from '../../../runtime/src/program/adapter-rooms.ts';
import { checkProgram, list, record, text, validateProgram } from '../../../runtime/src/program/check.ts';
import type { Program } from '../../../runtime/src/program/types.ts';
import type { Precision } from '../kontext/options.ts';
import type { ProgramProvider, ProgramRequest } from '../kontext/programs.ts';
import { lackingHint } from './lacking.ts';
import { checkManifest, hash } from './manifest.ts';
import { checkModel } from './model.ts';
import type { PublicKey } from './signature.ts';

export type { BundleEntry, BundleManifest, BundleSource } from '../../../kernels-codegen/src/bundle/types.ts';

/** The version of bundles this reads; the writer is in the compiler, which must not be loaded for a number. */
const BUNDLE_SCHEMA = 1;

/**
 * What `Kontext.load(model, { programs: bundle })` takes its programs from.
 *
 * Its methods throw `program-mismatch` for another schema version, another model, or when no program matches (saying why),
 * `program-invalid` for files that are missing or were changed or signed by another key, `feature-missing` and `limit-too-small` for
 * devices. What could not be read is read again when next asked for.
 *
 * @param keys when given, one of them must have signed the bundle
 */
export function bundlePrograms(source: BundleSource, keys?: readonly PublicKey[]): ProgramProvider {
  const packs: Packs = new Map();
  let opened: Promise<BundleManifest> | undefined;
  let device: AdapterReport | undefined;
  const manifest = () => {
    opened ??= readManifest(source, keys).catch((error: unknown) => {
      opened = undefined;
      throw error;
    });
    return opened;
  };
  return {
    async specs(model) {
      const { specs, model: name } = await manifest();
      checkModel(model, specs, name);
      return specs;
    },
    async target(report, precision) {
      device = report;
      return chooseTarget(await manifest(), report, precision);
    },
    async program(request) {
      const entry = findEntry(await manifest(), request);
      if (device) checkProgram(entryAsProgram(entry), device);
      return assemble(source, await manifest(), entry, packs);
    },
  };
}

/**
 * @param keys when given, one of them must have signed the bundle
 * @throws KontextError `program-mismatch`, `program-invalid`
 */
export async function readManifest(source: BundleSource, keys?: readonly PublicKey[]): Promise<BundleManifest> {
  const { signature, ...manifest } = record(await readFile(source, 'manifest.json'), 'manifest');
  if (manifest.schema !== BUNDLE_SCHEMA) {
    const schema = typeof manifest.schema === 'number' ? manifest.schema : undefined;
    throw new KontextError(
      'program-mismatch',
      `${source.label} has schema ${schema}; this version reads ${BUNDLE_SCHEMA}. Run kontext compile again with the installed version.`,
      { schema, supported: BUNDLE_SCHEMA },
    );
  }
  if ((await sha256(JSON.stringify({ ...manifest, digest: '' }))) !== manifest.digest) {
    throw changed(source, 'manifest.json');
  }
  if (keys) {
    const { verifyBundle } = await import('./signature.ts');
    await verifyBundle(source.label, manifest.digest as string, signature, keys);
  }
  return checkManifest(manifest, source.label);
}

/** The whole program of an entry, every hash on the way checked. */
export function readEntry(source: BundleSource, manifest: BundleManifest, entry: BundleEntry): Promise<Program> {
  return assemble(source, manifest, entry, new Map());
}

/** Packs of modules that were read, by hash; kept because all programs of a target need the same few. */
type Packs = Map<string, Promise<BundleModules>>;

async function assemble(
  source: BundleSource,
  manifest: BundleManifest,
  entry: BundleEntry,
  packs: Packs,
): Promise<Program> {
  const path = `programs/${entry.body}.json`;
  const body = record(await readFile(source, path), 'program') as unknown as BundleBody;
  if ((await sha256(JSON.stringify(body))) !== entry.body) throw changed(source, path);
  const kernels = await Promise.all(
    list(body.kernels, 'kernels').map(async (kernel, i) => {
      const { label, module, bindings } = record(kernel, `kernels[${i}]`) as unknown as BundleBody['kernels'][number];
      hash(module, `kernels[${i}].module`);
      const pack = manifest.modules.find(({ holds }) => holds.includes(module));
      if (!pack) throw changed(source, path);
      const file = `modules/${pack.file}.json`;
      const reading = packs.get(pack.file) ?? (readFile(source, file) as Promise<BundleModules>);
      packs.set(pack.file, reading);
      // A failed download is tried again by the next request.
      reading.catch(() => packs.delete(pack.file));
      const modules = record(await reading, file);
      const wgsl = Object.hasOwn(modules, module) ? modules[module] : undefined;
      text(wgsl ?? '', file);
      if (wgsl === undefined || (await sha256(wgsl as string)) !== module) throw changed(source, file);
      return { label, wgsl: wgsl as string, bindings };
    }),
  );
  const { label, facts, requires } = entry;
  const { schema, component, ports, slabs, weights, constants, dispatches } = body;
  const rest = { ports, slabs, weights, constants, kernels, dispatches, facts };
  return validateProgram({ schema, component, label, requires, ...rest });
}

/** The fastest target whose programs this device can run. */
function chooseTarget(manifest: BundleManifest, device: AdapterReport, precision: Precision): TargetProfile {
  const reasons: string[] = [];
  let missing: KontextError | undefined;
  const usable = manifest.targets.flatMap((target) => {
    if (precision !== 'auto' && (target.tier === 'f32') !== (precision === 'f32')) {
      reasons.push(`${target.name}: is of precision ${target.tier === 'f32' ? 'f32' : 'f16'}, not ${precision}`);
      return [];
    }
    const entries = manifest.programs.filter((entry) => entry.target === target.name);
    let fitting = 0;
    const runnable = new Set<string>();
    let problem: KontextError | undefined;
    for (const entry of entries) {
      try {
        checkProgram(entryAsProgram(entry), device);
        fitting++;
        runnable.add(entry.shape.component);
      } catch (error) {
        if (!(error instanceof KontextError)) throw error;
        problem ??= error;
      }
    }
    // One size that fits is enough, but of every component: the samplers' small programs run anywhere.
    const components = new Set(entries.map((entry) => entry.shape.component));
    if (fitting > 0 && runnable.size === components.size) return [{ target, fitting }];
    missing ??= problem;
    reasons.push(`${target.name}: ${problem?.message ?? 'has no programs'}`);
    return [];
  });
  const order = ['f32', 'f16', 'subgroups', 'subgroup-matrix'];
  usable.sort((a, b) => b.fitting - a.fitting || order.indexOf(b.target.tier) - order.indexOf(a.target.tier));
  const best = usable[0];
  if (best) return best.target;
  throw new KontextError(
    missing?.code ?? 'program-mismatch',
    `No target of the bundle fits this device. ${reasons.join('; ')}. Run kontext targets --probe on it and compile for that.`,
    { reasons, ...missing?.details },
  );
}

function findEntry(manifest: BundleManifest, request: ProgramRequest): BundleEntry {
  const { target, quantization = 'none' } = request;
  checkStored(manifest, request);
  const key = shapeKey(request);
  const mine = manifest.programs.filter(
    (entry) => entry.target === target.name && entry.shape.component === request.component,
  );
  const sized = mine.filter((entry) => shapeKey(entry.shape) === key);
  const ranks = 'room' in request ? request.room : undefined;
  const shaped = sized.filter((entry) => hasRoom(entry, ranks)).sort((a, b) => roomOf(a) - roomOf(b));
  const stored = (wanted: string) => (wanted === 'none' && target.tier !== 'f32' ? 'f16' : wanted);
  const { component } = request;
  // As the writer: programs without large matrices are the same for every quantisation.
  const free = component !== 't5' && component !== 'modulation' && !component.startsWith('denoise');
  const found = shaped.find((entry) => free || stored(entry.quantization) === stored(quantization));
  if (found) return found;
  if (sized.length > 0 && shaped.length === 0) throw tooLittleRoom(manifest, request, sized, ranks);
  const [what, has] =
    shaped.length > 0
      ? [`for quantization "${quantization}"`, shaped.map((entry) => `"${entry.quantization}"`)]
      : [`of shape ${key}`, [...new Set(mine.map((entry) => shapeKey(entry.shape)))]];
  throw new KontextError(
    'program-mismatch',
    `The bundle of ${manifest.model} has no ${request.component} program ${what} for target ${target.name}; it has ${has.join(', ') || 'none'}. ${lackingHint(request)}`,
    { component: request.component, shape: key, quantization, target: target.name },
  );
}

/** Programs read matrices as one model holds them: a packed or quantised one needs a bundle compiled for it. */
function checkStored(manifest: BundleManifest, { component, stored = {} }: ProgramRequest): void {
  const part = partOf(component);
  // Samplers and tiles read no weights, whatever their requests carry.
  if (part === undefined) return;
  const own = manifest.stored?.[part] ?? {};
  const names = new Set([...Object.keys(stored), ...Object.keys(own)]);
  const differing = [...names].find((name) => stored[name] !== own[name]);
  if (differing === undefined) return;
  const held = (format: string | undefined) => format ?? 'plain floats';
  throw new KontextError(
    'program-mismatch',
    `The bundle of ${manifest.model} reads ${differing} as ${held(own[differing])}; this model holds it as ${held(stored[differing])}. Compile one for this model with kontext compile --model, or leave \`programs\` out.`,
    { component, tensor: differing },
  );
}

function partOf(component: ProgramRequest['component']): keyof BundleStored | undefined {
  if (component === 'clip' || component === 't5') return component;
  if (component === 'vae-encode' || component === 'vae-decode') return 'vae';
  return component === 'modulation' || component.startsWith('denoise') ? 'transformer' : undefined;
}

/** Rank of the adapters that an entry has room for; 0 for none. */
function roomOf({ shape }: BundleEntry): number {
  const room = 'room' in shape ? shape.room : undefined;
  return typeof room === 'number' ? room : 0;
}

/** A program without room for requests without adapters; else one with enough at every layer. */
function hasRoom(entry: BundleEntry, needed: AdapterRoom | undefined): boolean {
  if (needed === undefined || typeof needed === 'number') return roomOf(entry) === (needed ?? 0);
  return lackingRoom(entry, needed) === undefined;
}

function lackingRoom({ facts }: BundleEntry, needed: Readonly<Record<string, number>>) {
  const rooms = Array.isArray(facts.adapters) ? (facts.adapters as readonly Partial<ModuleRoom>[]) : [];
  const ranks = new Map(rooms.map((room) => [room?.module, room?.rank ?? 0]));
  const lacking = Object.entries(needed).find(([module, rank]) => !((ranks.get(module) ?? 0) >= rank));
  return lacking && { module: lacking[0], needed: lacking[1], room: ranks.get(lacking[0]) ?? 0 };
}

function tooLittleRoom(
  manifest: BundleManifest,
  { component, target }: ProgramRequest,
  sized: readonly BundleEntry[],
  ranks: AdapterRoom | undefined,
): KontextError {
  const best = [...sized].sort((a, b) => roomOf(b) - roomOf(a))[0]!;
  const lacking = typeof ranks === 'object' ? lackingRoom(best, ranks) : undefined;
  const why = lacking
    ? `with room for adapters of rank ${lacking.needed} at ${lacking.module}; it has ${lacking.room}`
    : 'without room for adapters';
  return new KontextError(
    'program-mismatch',
    `The bundle of ${manifest.model} has no ${component} program ${why} for target ${target.name}. Compile one with kontext compile --lora-rank, or leave \`programs\` out.`,
    { component, target: target.name, ...lacking },
  );
}

/** All that tells programs of one component apart, in one order of names. */
function shapeKey(request: object): string {
  const skipped = ['component', 'spec', 'target', 'quantization', 'room', 'stored'];
  const fields = Object.entries(request).filter(([name, value]) => !skipped.includes(name) && value !== undefined);
  const sorted = (value: unknown): unknown =>
    value && typeof value === 'object' && !Array.isArray(value)
      ? Object.fromEntries(Object.entries(value).sort(([a], [b]) => (a < b ? -1 : 1)))
      : value;
  return JSON.stringify(sorted(Object.fromEntries(fields)), (_, value: unknown) => sorted(value));
}

/** What `checkProgram` reads of a program is all in its entry. */
function entryAsProgram({ label, requires }: BundleEntry): Program {
  return { label, requires } as Program;
}

async function readFile(source: BundleSource, path: string): Promise<unknown> {
  try {
    return await source.read(path);
  } catch (cause) {
    throw new KontextError(
      'program-invalid',
      `${source.label}: ${path} cannot be read: ${(cause as Error).message}`,
      { path },
      { cause },
    );
  }
}

function changed(source: BundleSource, path: string): KontextError {
  return new KontextError(
    'program-invalid',
    `${source.label}: ${path} is not what was compiled: its hash differs. Compile or copy the bundle again.`,
    { path },
  );
}

async function sha256(text: string): Promise<string> {
  const digest = await crypto.subtle.digest('SHA-256', new TextEncoder().encode(text));
  return Array.from(new Uint8Array(digest), (byte) => byte.toString(16).padStart(2, '0')).join('');
}
