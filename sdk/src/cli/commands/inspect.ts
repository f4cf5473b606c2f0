// `kontext inspect BUNDLE`: what is in a bundle, for people: kernels, layers, memory over time, and how fast it could be.
// Reads the bundle as the runtime does, so a broken one is refused here with the same words.
import { writeFile } from 'node:fs/promises';
import type { Dispatch, Program } from '../../../../runtime/src/program/types.ts';
import {
  type BundleEntry,
  type BundleManifest,
  type BundleSource,
  readEntry,
  readManifest,
} from '../../programs/bundle.ts';
import { bundleFolder } from '../../programs/sources.ts';
import { defineCommand, usage } from '../grammar.ts';
import { checkWritable } from '../outputs.ts';
import { type Peak, peakOf } from '../peaks.ts';
import { slabPicture, slabTable } from '../slab-picture.ts';

export const inspect = defineCommand({
  summary: 'Show what is in a bundle: programs, kernels, memory over time, and how fast it could be.',
  usage: ['BUNDLE [--program N [--svg FILE]] [--roofline GPU|TARGET|TFLOPS,GB/s]'],
  examples: ['kontext inspect programs --roofline rtx-4090'],
  flags: {
    program: { value: 'N', help: 'layers, kernels, memory and needs of one program' },
    svg: { value: 'FILE', help: 'draw its memory over time' },
    force: { short: 'f', help: 'replace FILE without asking' },
    roofline: { value: 'GPU|TARGET|TFLOPS,GB/s', help: 'with the time it takes at best' },
  },
  /** @throws KontextError `program-invalid`, `program-mismatch`, `invalid-request` */
  async run({ values, words, signal }) {
    const [bundle] = words;
    if (bundle === undefined || words.length > 1) throw usage('kontext inspect takes one BUNDLE.');
    if (values.svg !== undefined) {
      if (values.program === undefined) throw usage('Of which program? Give --program N with --svg.');
      await checkWritable([values.svg], { force: values.force === true, bytes: 2 ** 20, makesFolders: false, signal });
    }
    const source = bundleFolder(bundle);
    const manifest = await readManifest(source);
    const peakFor = ({ target }: BundleEntry): Peak | undefined =>
      values.roofline === undefined
        ? undefined
        : peakOf(values.roofline, manifest.targets.find(({ name }) => name === target)!.tier);
    if (values.program === undefined) {
      const modules = manifest.modules.reduce((sum, { holds }) => sum + holds.length, 0);
      console.log(`${manifest.model}: ${manifest.programs.length} programs, ${modules} WGSL modules\n`);
      for (const line of await programTable(source, manifest, peakFor)) console.log(line);
      return;
    }
    const entry = manifest.programs[Number(values.program)];
    if (!entry) throw usage(`There is no program ${values.program}; there are 0 to ${manifest.programs.length - 1}.`);
    const program = await readEntry(source, manifest, entry);
    const tables = [layerTable(program, peakFor(entry)), kernelTable(program), slabTable(program), assumptions(entry)];
    console.log([`${entry.label} (${entry.quantization})`, ...tables.map((lines) => lines.join('\n'))].join('\n\n'));
    if (values.svg !== undefined) {
      await writeFile(values.svg, slabPicture(program));
      console.log(`\n${values.svg}: memory over time`);
    }
  },
});

async function programTable(
  source: BundleSource,
  manifest: BundleManifest,
  peakFor: (entry: BundleEntry) => Peak | undefined,
): Promise<string[]> {
  const rows: string[] = [];
  for (const [i, entry] of manifest.programs.entries()) {
    const { kernels, dispatches, flops, memory, quantization, label } = entry;
    const peak = peakFor(entry);
    const cells = [
      `${i}`.padStart(4),
      `${kernels}`.padStart(8),
      `${dispatches}`.padStart(11),
      (flops / 1e9).toFixed(1).padStart(9),
      (memory.slabs.reduce((sum, bytes) => sum + bytes, 0) / 2 ** 20).toFixed(0).padStart(10),
      (memory.weights / 2 ** 20).toFixed(0).padStart(12),
      ...(peak ? [milliseconds((await readEntry(source, manifest, entry)).dispatches, peak).padStart(13)] : []),
    ];
    rows.push(`${cells.join(' ')}  ${quantization.padEnd(12)}  ${label}`);
  }
  const timed = rows.length > 0 && peakFor(manifest.programs[0]!) ? '  at best (ms)' : '';
  return [`   N  kernels  dispatches     GFLOP  slabs MiB  weights MiB${timed}  quantization  program`, ...rows];
}

/** Williams, Waterman, Patterson 2009: a dispatch takes at least as long as the longer of its arithmetic and its memory traffic. */
function atBest({ flops, bytes }: Pick<Dispatch, 'flops' | 'bytes'>, peak: Peak): number {
  return Math.max(flops / peak.flopsPerSecond, bytes / peak.bytesPerSecond);
}

function milliseconds(dispatches: readonly Dispatch[], peak: Peak): string {
  return (dispatches.reduce((sum, dispatch) => sum + atBest(dispatch, peak), 0) * 1e3).toFixed(3);
}

/** Dispatches summed by layer: labels with the block's number left out. */
export function layerTable({ dispatches }: Program, peak?: Peak): string[] {
  const layers = new Map<string, Dispatch[]>();
  for (const dispatch of dispatches) {
    const name = dispatch.label.replace(/\d+/g, 'N');
    const layer = layers.get(name);
    if (layer) layer.push(dispatch);
    else layers.set(name, [dispatch]);
  }
  const sum = (of: readonly Dispatch[], what: 'flops' | 'bytes') =>
    of.reduce((total, dispatch) => total + dispatch[what], 0);
  const row = (name: string, of: readonly Dispatch[]): string => {
    const [flops, bytes] = [sum(of, 'flops'), sum(of, 'bytes')];
    const cells = [
      name.padEnd(44),
      `${of.length}`.padStart(6),
      (flops / 1e9).toFixed(2).padStart(12),
      (bytes / 2 ** 20).toFixed(1).padStart(11),
    ];
    if (peak) {
      const arithmetic = flops / peak.flopsPerSecond > bytes / peak.bytesPerSecond;
      cells.push(milliseconds(of, peak).padStart(13), ` ${arithmetic ? 'arithmetic' : 'memory'}`);
    }
    return cells.join(' ');
  };
  return [
    `${'layer'.padEnd(44)}  count        GFLOP         MiB${peak ? '  at best (ms)  bound by' : ''}`,
    ...[...layers].sort(([, a], [, b]) => sum(b, 'flops') - sum(a, 'flops')).map(([name, of]) => row(name, of)),
    row('total', dispatches),
  ];
}

/** What the program asks of a device. */
function assumptions({ requires }: BundleEntry): string[] {
  const { features, limits, subgroupSize, subgroupMatrix } = requires;
  return [
    'needs of a device',
    `  features ${features.join(', ') || 'none'}`,
    ...Object.entries(limits).map(([name, value]) => `  ${name} ${value}`),
    ...(subgroupSize ? [`  subgroups of ${subgroupSize.min} to ${subgroupSize.max}`] : []),
    ...(subgroupMatrix ? [`  subgroup matrices ${subgroupMatrix.m}×${subgroupMatrix.n}×${subgroupMatrix.k}`] : []),
  ];
}

function kernelTable(program: Program): string[] {
  const uses = program.kernels.map((_, i) => program.dispatches.filter(({ kernel }) => kernel === i).length);
  return [
    'dispatches  WGSL bytes  kernel',
    ...program.kernels.map(
      ({ label, wgsl }, i) => `${`${uses[i]}`.padStart(10)} ${`${wgsl.length}`.padStart(11)}  ${label}`,
    ),
  ];
}
