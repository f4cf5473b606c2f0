// One run of the full-size checkpoint, prompt to latents, in a process of its own, so that its memory is its own.
// Prints one line of JSON: error against float32 PyTorch, peaks, time of each stage.
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { LoadOptions } from '../../sdk/src/node.ts';
import { Kontext } from '../../sdk/src/node.ts';
import { virtualModel } from './files.ts';
import { packVirtual } from './pack.ts';

export interface CaseResult {
  /** Relative L2 of the latents. */
  error: number;
  gpuPeakBytes: number;
  processPeakBytes: number;
  timings: Record<string, number>;
}

const fixture = (name: string) => join(import.meta.dirname, '../fixtures/real-size', name);
const { source, options } = JSON.parse(process.argv[2]!) as { source: string; options: LoadOptions };
const request = JSON.parse(readFileSync(fixture('case.json'), 'utf8'));
const expected = new Float32Array(new Uint8Array(readFileSync(fixture('latents.bin'))).buffer);

// Written to disk first and read back, about 7 GB; the process's peak is that of both.
const folder = source === 'packed' ? mkdtempSync(join(tmpdir(), 'kontext-real-size-')) : undefined;
if (folder) await packVirtual(folder);
await using kontext = await Kontext.load(folder ?? virtualModel(source as 'bfloat16' | 'gguf'), {
  conditioning: 'exact',
  ...options,
});
const { prompt, width, height, maxSequenceLength, steps, seed, guidance } = request;
let shown = '';
const { latents, memory, timings } = await kontext.generate({
  prompt,
  size: { width, height },
  maxSequenceLength,
  steps,
  seed,
  guidance,
  output: 'latents',
  onProgress(event) {
    const line = event.type === 'stage' ? event.stage : event.type === 'load' ? `load ${event.component}` : '';
    if (line && line !== shown) console.error(`${new Date().toISOString().slice(11, 19)} ${line}`);
    shown = line || shown;
  },
});
let difference = 0;
let norm = 0;
for (const [i, value] of latents[0]!.entries()) {
  difference += (value - expected[i]!) ** 2;
  norm += expected[i]! ** 2;
}
const result: CaseResult = {
  error: Math.sqrt(difference / norm),
  gpuPeakBytes: memory.peakBytes,
  processPeakBytes: process.resourceUsage().maxRSS * 1024,
  timings: { ...timings },
};
console.log(JSON.stringify(result));
if (folder) rmSync(folder, { recursive: true });
process.exit(0);
