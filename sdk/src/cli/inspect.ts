// `kontext inspect BUNDLE`: what is in a bundle, for people: kernels, layers, memory over time, and how fast it could be.
// Reads the bundle as the runtime does, so a broken one is refused here with the same words.
import { writeFile } from 'node:fs/promises';
import { parseArgs } from 'node:util';
import type { Program } from '../../../runtime/src/program/types.ts';
import { readEntry, readManifest } from '../programs/bundle.ts';
import { bundleFolder } from '../programs/sources.ts';
import { usage } from './arguments.ts';

const OPTIONS = {
  program: { type: 'string' },
  svg: { type: 'string' },
  roofline: { type: 'string' },
} as const;

/** @throws KontextError `program-invalid`, `program-mismatch`, `invalid-request` */
export async function inspectCommand(args: readonly string[]): Promise<void> {
  const { values, positionals } = parse(args);
  if (positionals.length !== 1) throw usage('kontext inspect takes one BUNDLE.');
  const source = bundleFolder(positionals[0]!);
  const manifest = await readManifest(source);
  const peak = values.roofline === undefined ? undefined : peakFrom(values.roofline);
  if (values.program === undefined) {
    if (values.svg !== undefined) throw usage('Of which program? Give --program N with --svg.');
    console.log(`${manifest.model}: ${manifest.programs.length} programs, ${manifest.modules.length} WGSL modules\n`);
    console.log('   N  kernels  dispatches     GFLOP  slabs MiB  weights MiB  quantization  program');
    manifest.programs.forEach((p, i) => {
      const slabs = p.memory.slabs.reduce((sum, bytes) => sum + bytes, 0);
      const cells = [
        `${i}`.padStart(4),
        `${p.kernels}`.padStart(8),
        `${p.dispatches}`.padStart(11),
        (p.flops / 1e9).toFixed(1).padStart(9),
        (slabs / 2 ** 20).toFixed(0).padStart(10),
        (p.memory.weights / 2 ** 20).toFixed(0).padStart(12),
      ];
      console.log(`${cells.join(' ')}  ${p.quantization.padEnd(12)}  ${p.label}`);
    });
    return;
  }
  const entry = manifest.programs[Number(values.program)];
  if (!entry) throw usage(`There is no program ${values.program}; there are 0 to ${manifest.programs.length - 1}.`);
  const program = await readEntry(source, entry);
  console.log(`${entry.label} (${entry.quantization})\n`);
  console.log(`${layerTable(program, peak).join('\n')}\n`);
  console.log(kernelTable(program).join('\n'));
  if (values.svg !== undefined) {
    await writeFile(values.svg, slabPicture(program));
    console.log(`\n${values.svg}: memory over time`);
  }
}

/** What a GPU can do at best. */
interface Peak {
  flopsPerSecond: number;
  bytesPerSecond: number;
}

/** Dispatches summed by layer: labels with the block's number left out. */
export function layerTable(program: Program, peak?: Peak): string[] {
  const layers = new Map<string, { count: number; flops: number; bytes: number; seconds: number }>();
  const total = { count: 0, flops: 0, bytes: 0, seconds: 0 };
  for (const { label, flops, bytes } of program.dispatches) {
    const name = label.replace(/\d+/g, 'N');
    const layer = layers.get(name) ?? { count: 0, flops: 0, bytes: 0, seconds: 0 };
    layers.set(name, layer);
    for (const sum of [layer, total]) {
      sum.count++;
      sum.flops += flops;
      sum.bytes += bytes;
      // Williams, Waterman, Patterson 2009: whichever of arithmetic and memory takes longer.
      if (peak) sum.seconds += Math.max(flops / peak.flopsPerSecond, bytes / peak.bytesPerSecond);
    }
  }
  const row = (name: string, { count, flops, bytes, seconds }: typeof total): string =>
    `${name.padEnd(44)} ${`${count}`.padStart(6)} ${(flops / 1e9).toFixed(2).padStart(12)} ${(bytes / 2 ** 20).toFixed(1).padStart(11)}` +
    (peak ? ` ${(seconds * 1e3).toFixed(3).padStart(12)}` : '');
  return [
    `${'layer'.padEnd(44)}  count        GFLOP         MiB${peak ? '  at best (ms)' : ''}`,
    ...[...layers].sort(([, a], [, b]) => b.flops - a.flops).map(([name, layer]) => row(name, layer)),
    row('total', total),
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

/** Slabs as bands, dispatches from left to right; filled where a dispatch reads (blue) or writes (orange). */
export function slabPicture(program: Program): string {
  const [width, height, gap] = [1200, 400, 6];
  const total = program.slabs.reduce((sum, bytes) => sum + bytes, 0);
  const scale = (height - gap * program.slabs.length) / Math.max(1, total);
  const step = width / program.dispatches.length;
  const tops: number[] = [];
  let top = 0;
  for (const bytes of program.slabs) {
    tops.push(top);
    top += bytes * scale + gap;
  }
  const box = (x: number, y: number, w: number, h: number, fill: string): string =>
    `<rect x="${x.toFixed(1)}" y="${y.toFixed(1)}" width="${w.toFixed(1)}" height="${h.toFixed(1)}" fill="${fill}"/>`;
  const bands = program.slabs.map((bytes, i) => box(0, tops[i]!, width, bytes * scale, '#eee'));
  const uses = program.dispatches.flatMap(({ bindings, kernel }, i) =>
    bindings.flatMap(([kind, index, offset, size], binding) => {
      if (kind !== 'slab') return [];
      const written = program.kernels[kernel]!.bindings[binding] === 'read_write';
      return [box(i * step, tops[index]! + offset * scale, step, size * scale, written ? '#e69f00' : '#56b4e9')];
    }),
  );
  const title = program.label.replaceAll('&', '&amp;').replaceAll('<', '&lt;');
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${height}"><title>${title}</title>\n${[...bands, ...uses].join('\n')}\n</svg>\n`;
}

function parse(args: readonly string[]) {
  try {
    return parseArgs({ args: [...args], options: OPTIONS, allowPositionals: true });
  } catch (cause) {
    throw usage(`${(cause as Error).message.split('\n')[0]} See kontext --help.`);
  }
}

function peakFrom(text: string): Peak {
  const [tflops, gigabytes] = text.split(',').map(Number);
  if (tflops && gigabytes && tflops > 0 && gigabytes > 0)
    return { flopsPerSecond: tflops * 1e12, bytesPerSecond: gigabytes * 1e9 };
  throw usage(`--roofline is "${text}"; give the GPU's peak as TFLOPS,GB/s: 300,2000.`);
}
