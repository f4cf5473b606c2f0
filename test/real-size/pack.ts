// Packs the virtual checkpoint, or its first blocks, in q4; on its own it prints one line of JSON: bytes, seconds, the process's peak.
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { openDevice } from '../../runtime/src/index.ts';
import { openModel } from '../../sdk/src/model/open.ts';
import { packModel } from '../../sdk/src/model/pack.ts';
import { virtualModel } from './files.ts';

export interface PackResult {
  processPeakBytes: number;
  bytes: number;
  seconds: number;
}

/** @returns bytes of the packed model */
export async function packVirtual(folder: string, blocks?: number): Promise<number> {
  const gpu = await openDevice();
  const model = await openModel(virtualModel('bfloat16', blocks));
  try {
    return (await packModel(model, gpu, folder, { quantization: 'q4' })).bytes;
  } finally {
    await model.close();
    gpu.destroy();
  }
}

if (process.argv[1] === import.meta.filename) {
  const folder = mkdtempSync(join(tmpdir(), 'kontext-pack-'));
  try {
    const started = performance.now();
    const bytes = await packVirtual(folder, process.argv[2] ? Number(process.argv[2]) : undefined);
    const seconds = (performance.now() - started) / 1000;
    const processPeakBytes = process.resourceUsage().maxRSS * 1024;
    console.log(JSON.stringify({ processPeakBytes, bytes, seconds } satisfies PackResult));
  } finally {
    rmSync(folder, { recursive: true });
  }
  process.exit(0);
}
