// Builds a bundle of the real model for many sizes, targets and quantisations, and shows every program in it to Dawn.
// Used by a quick test with one size and by `npm run check:bundles` with all of them.

import { gzipSync } from 'node:zlib';
import type { BundleSource } from '../../kernels-codegen/src/bundle/types.ts';
import { writeBundle } from '../../kernels-codegen/src/bundle/write.ts';
import { FLUX1_KONTEXT_DEV } from '../../kernels-codegen/src/models/specs.ts';
import type { Quantization } from '../../kernels-codegen/src/plan/weight-request.ts';
import { targetByName } from '../../kernels-codegen/src/targets/profiles.ts';
import { readEntry, readManifest } from '../../sdk/src/programs/bundle.ts';
import { shapesFor } from '../../sdk/src/programs/shapes.ts';
import { openNullDevice } from '../support/null-device.ts';
import { encodeLarge } from './null-encode.ts';

export interface MatrixReport {
  seconds: { wall: number; cpu: number };
  files: number;
  bytes: number;
  gzipped: number;
  modules: number;
  /** Entries of the manifest, and the programs that differ in more than their label. */
  programs: { listed: number; distinct: number };
  validated: { programs: number; dispatches: number; structural: number; largeKernels: number };
}

export interface Matrix {
  sizes: readonly (readonly [number, number])[];
  targets: readonly string[];
  quantizations: readonly Quantization[];
}

/** @throws Error with what Dawn says of the first program it refuses */
export async function checkMatrix(
  matrix: Matrix,
  onProgress: (line: string) => void = () => {},
): Promise<MatrixReport> {
  const targets = matrix.targets.map(targetByName);
  const sizes = matrix.sizes.map(([width, height]) => ({ width, height }));
  const shapes = shapesFor({ sizes, references: undefined, steps: [28], textTokens: 512 });
  const started = { wall: performance.now(), cpu: process.cpuUsage() };
  const files = await writeBundle({
    model: 'FLUX.1 Kontext [dev]',
    specs: FLUX1_KONTEXT_DEV,
    shapes,
    targets,
    quantizations: matrix.quantizations,
  });
  const cpu = process.cpuUsage(started.cpu);
  const seconds = { wall: (performance.now() - started.wall) / 1000, cpu: (cpu.user + cpu.system) / 1e6 };
  const texts = [...files.values()];
  const manifest = await readManifest(inMemory(files));
  onProgress(`built in ${seconds.wall.toFixed(1)} s (${seconds.cpu.toFixed(1)} s of CPU)`);
  return {
    seconds,
    files: files.size,
    bytes: texts.reduce((sum, text) => sum + Buffer.byteLength(text), 0),
    gzipped: texts.reduce((sum, text) => sum + gzipSync(text).length, 0),
    modules: manifest.modules.reduce((sum, { holds }) => sum + holds.length, 0),
    programs: { listed: manifest.programs.length, distinct: new Set(manifest.programs.map(({ body }) => body)).size },
    validated: await validate(files, onProgress),
  };
}

/** Each distinct program of each target, read as the runtime reads it, on a device with that target's features. */
export async function validate(files: Map<string, string>, onProgress: (line: string) => void = () => {}) {
  const source = inMemory(files);
  const manifest = await readManifest(source);
  const counts = { programs: 0, dispatches: 0, structural: 0, largeKernels: 0 };
  for (const target of manifest.targets) {
    const device = await openNullDevice(target);
    const seen = new Set<string>();
    for (const entry of manifest.programs) {
      if (entry.target !== target.name || seen.has(entry.body)) continue;
      seen.add(entry.body);
      for (const [limit, needed] of Object.entries(entry.requires.limits)) {
        if (needed > target.limits[limit as keyof typeof target.limits])
          throw new Error(`${entry.label} needs ${limit} of ${needed}`);
      }
      const encoded = await encodeLarge(device, await readEntry(source, manifest, entry));
      counts.programs++;
      counts.dispatches += encoded.dispatches;
      counts.structural += encoded.structural;
      counts.largeKernels += encoded.largeKernels;
    }
    device.device.destroy();
    onProgress(`${target.name}: ${seen.size} distinct programs validated`);
  }
  return counts;
}

/** Files are parsed once: readers of single entries would parse the modules for each. */
function inMemory(files: Map<string, string>): BundleSource {
  const parsed = new Map<string, unknown>();
  return {
    label: 'The bundle of the matrix',
    async read(path) {
      const text = files.get(path);
      if (text === undefined) throw new Error('no such file');
      if (path.startsWith('programs/')) return JSON.parse(text);
      const value = parsed.get(path) ?? JSON.parse(text);
      parsed.set(path, value);
      return value;
    },
  };
}
