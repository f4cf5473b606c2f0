// The whole SDK on a FLUX.1 Kontext checkpoint of full size, 11.9 + 4.8 billion parameters, against float32 PyTorch.
// `npm run test:real-size [-- name …]`; two to five minutes for each case on two idle cores.
// `npm run test:real-size -- pack [blocks]` packs it, or its first blocks, and prints the peak of the process that does.
import { spawn } from 'node:child_process';
import { join } from 'node:path';
import type { LoadOptions } from '../../sdk/src/node.ts';
import type { CaseResult } from './case.ts';
import type { PackResult } from './pack.ts';

interface Case {
  source: 'bfloat16' | 'gguf' | 'packed';
  options: LoadOptions;
  /** Of the latents, relative L2. Float16 operands give 4e-4; q8 rounds the codes of a 4-bit grid within half of 1/127. */
  maxError: number;
  maxGpuBytes: number;
}

const CASES: Record<string, Case> = {
  'q4-phased': {
    source: 'bfloat16',
    options: { quantization: 'q4', memory: 'phased' },
    maxError: 2e-3,
    maxGpuBytes: 5.1e9,
  },
  'q4-streamed': {
    source: 'bfloat16',
    options: { quantization: 'q4', memory: 'streamed' },
    maxError: 2e-3,
    maxGpuBytes: 1e9,
  },
  'q8-streamed': {
    source: 'bfloat16',
    options: { quantization: 'q8', memory: 'streamed' },
    maxError: 2e-3,
    maxGpuBytes: 1e9,
  },
  // The transformer as its file holds it, Q4_0; T5, in bfloat16, becomes f16.
  'gguf-streamed': {
    source: 'gguf',
    options: { memory: 'streamed' },
    maxError: 2e-3,
    maxGpuBytes: 1e9,
  },
  // Through `kontext pack` in q4 and back.
  'packed-streamed': {
    source: 'packed',
    options: { memory: 'streamed' },
    maxError: 2e-3,
    maxGpuBytes: 1e9,
  },
};
/** What a process has beside the GPU's share on a software adapter: one shard of the model, and Node with Dawn. */
const HOST_BYTES = 0.9e9;

/** Of a process that packs: 0.1 GB for the largest matrix on the GPU, as much read back, Node with Dawn; whatever the model's size. */
const PACK_BYTES = 1e9;

const wanted = process.argv.slice(2);
if (wanted[0] === 'pack') {
  const { processPeakBytes, bytes, seconds } = JSON.parse(await output('pack.ts', wanted[1] ?? '')) as PackResult;
  console.log(
    `packed ${(bytes / 1e9).toFixed(2)} GB in ${(seconds / 60).toFixed(1)} min, process ${(processPeakBytes / 1e9).toFixed(2)} GB` +
      `${processPeakBytes <= PACK_BYTES ? '' : ' ✗ above 1 GB'}`,
  );
  process.exit(processPeakBytes <= PACK_BYTES ? 0 : 1);
}
const unknown = wanted.find((name) => !(name in CASES));
if (unknown) throw new Error(`There is no case "${unknown}"; there are ${Object.keys(CASES).join(', ')}.`);
let failed = 0;
for (const [name, one] of Object.entries(CASES)) {
  if (wanted.length > 0 && !wanted.includes(name)) continue;
  const started = performance.now();
  const result = await runCase(one);
  const { error, gpuPeakBytes, processPeakBytes, timings } = result;
  const gb = (bytes: number) => `${(bytes / 1e9).toFixed(2)} GB`;
  const problems = [
    ...(error <= one.maxError ? [] : [`error above ${one.maxError}`]),
    ...(gpuPeakBytes <= one.maxGpuBytes ? [] : [`GPU above ${gb(one.maxGpuBytes)}`]),
    ...(processPeakBytes <= gpuPeakBytes + HOST_BYTES ? [] : [`process ${gb(processPeakBytes)} above the GPU's share`]),
  ];
  console.log(
    `${name}: relative L2 ${error.toExponential(2)}, GPU ${gb(gpuPeakBytes)}, process ${gb(processPeakBytes)}, ` +
      `${((performance.now() - started) / 60_000).toFixed(1)} min ` +
      `(${Object.entries(timings)
        .map(([stage, ms]) => `${stage.replace('Ms', '')} ${(ms / 1000).toFixed(0)} s`)
        .join(', ')})${problems.map((problem) => ` ✗ ${problem}`).join('')}`,
  );
  failed += problems.length;
}
process.exitCode = failed > 0 ? 1 : 0;

async function runCase({ source, options }: Case): Promise<CaseResult> {
  return JSON.parse(await output('case.ts', JSON.stringify({ source, options }))) as CaseResult;
}

/** The last line that a script beside this one prints. */
function output(script: string, argument: string): Promise<string> {
  const args = ['--import', 'tsx', join(import.meta.dirname, script), argument];
  const child = spawn(process.execPath, args, { stdio: ['ignore', 'pipe', 'inherit'] });
  let out = '';
  child.stdout.on('data', (text) => {
    out += text;
  });
  return new Promise((resolve, reject) => {
    child.once('exit', (code) => {
      if (code === 0) resolve(out.trim().split('\n').at(-1)!);
      else reject(new Error(`a case ended with ${code}`));
    });
  });
}
