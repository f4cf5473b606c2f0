// Checks the structure of a bundle's manifest: right hashes say who wrote it last, not that it is sound.
// Everything that later code indexes, loops over or puts into a path is what it must be, or the bundle is refused here.
import type { BundleManifest, BundleShape } from '../../../kernels-codegen/src/bundle/types.ts';
import {
  fail,
  integer,
  list,
  number,
  oneOf,
  record,
  text,
  validateRequirements,
} from '../../../runtime/src/program/check.ts';
import { WEIGHT_FORMATS } from '../../../runtime/src/program/formats.ts';
import { checkSpecBounds } from '../model/spec-bounds.ts';

/** By the type, so that a component that is new to the compiler is not forgotten here. */
const COMPONENTS = Object.keys({
  clip: true,
  t5: true,
  modulation: true,
  denoise: true,
  'denoise-first': true,
  'denoise-rest': true,
  'denoise-skip': true,
  'denoise-tell': true,
  'denoise-given': true,
  'denoise-nag': true,
  'denoise-region': true,
  'taylor-update': true,
  'taylor-predict': true,
  euler: true,
  sampler: true,
  cfg: true,
  'cfg-zero': true,
  'keep-known': true,
  'vae-encode': true,
  'vae-decode': true,
  'tile-blend': true,
  'tile-finish': true,
} satisfies Record<BundleShape['component'], true>);
const PARTS = ['clip', 't5', 'transformer', 'vae'];
const TIERS = ['f32', 'f16', 'subgroups', 'subgroup-matrix'];
const QUANTIZATIONS = ['none', 'f16', 'q8', 'q4'];

/**
 * @param value the parsed file
 * @param label for messages
 * @throws KontextError `program-invalid` with the path of what is wrong
 */
export function checkManifest(value: unknown, label: string): BundleManifest {
  const manifest = record(value, 'manifest');
  hash(manifest.digest, 'manifest.digest');
  text(manifest.model, 'manifest.model');
  checkSpecBounds(manifest.specs, label, 'program-invalid');
  for (const [part, formats] of Object.entries(record(manifest.stored ?? {}, 'manifest.stored'))) {
    oneOf(part, PARTS, 'manifest.stored');
    for (const [name, format] of Object.entries(record(formats, `manifest.stored.${part}`))) {
      oneOf(format, WEIGHT_FORMATS, `manifest.stored.${part}.${name}`);
    }
  }
  const targets = new Set<unknown>();
  list(manifest.targets, 'manifest.targets').forEach((item, i) => {
    const at = `manifest.targets[${i}]`;
    const target = record(item, at);
    text(target.name, `${at}.name`);
    oneOf(target.tier, TIERS, `${at}.tier`);
    for (const [name, limit] of Object.entries(record(target.limits, `${at}.limits`))) {
      integer(limit, `${at}.limits.${name}`, 0);
    }
    if (targets.has(target.name)) fail(`${at}.name`, 'is there twice');
    targets.add(target.name);
  });
  list(manifest.programs, 'manifest.programs').forEach((item, i) => {
    const at = `manifest.programs[${i}]`;
    const entry = record(item, at);
    oneOf(record(entry.shape, `${at}.shape`).component, COMPONENTS, `${at}.shape.component`);
    if (!targets.has(entry.target)) fail(`${at}.target`, 'is none of the targets');
    oneOf(entry.quantization, QUANTIZATIONS, `${at}.quantization`);
    text(entry.label, `${at}.label`);
    record(entry.facts, `${at}.facts`);
    validateRequirements(entry.requires);
    hash(entry.body, `${at}.body`);
    for (const name of ['bytes', 'kernels', 'dispatches']) integer(entry[name], `${at}.${name}`, 0);
    number(entry.flops, `${at}.flops`);
    const memory = record(entry.memory, `${at}.memory`);
    for (const name of ['ports', 'weights']) integer(memory[name], `${at}.memory.${name}`, 0);
    for (const bytes of list(memory.slabs, `${at}.memory.slabs`)) integer(bytes, `${at}.memory.slabs`, 0);
  });
  list(manifest.modules, 'manifest.modules').forEach((item, i) => {
    const at = `manifest.modules[${i}]`;
    const pack = record(item, at);
    hash(pack.file, `${at}.file`);
    integer(pack.bytes, `${at}.bytes`, 0);
    for (const module of list(pack.holds, `${at}.holds`)) hash(module, `${at}.holds`);
  });
  return value as BundleManifest;
}

/** File names in a bundle are hashes: a path that could lead elsewhere cannot be written. */
export function hash(value: unknown, path: string): void {
  if (typeof value !== 'string' || !/^[0-9a-f]{64}$/.test(value)) fail(path, 'is no SHA-256');
}
