// Bytes a second from a file on disk to stored weights, for each source type, beside reading the file and nothing else:
// `npm run bench:load [-- TYPE …]`, on one adapter in one run, medians.
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { openDevice } from '../../runtime/src/index.ts';
import { storedLayout } from '../../runtime/src/program/formats.ts';
import type { WeightFormat, WeightRequest } from '../../runtime/src/program/types.ts';
import { type ByteSource, fileBytes } from '../../runtime/src/weights/bytes.ts';
import type { WeightSource } from '../../runtime/src/weights/source.ts';
import { WeightStore } from '../../runtime/src/weights/store.ts';
import { SOURCE_TYPES } from '../../runtime/src/weights/types/index.ts';

const ROUNDS = 3;
const [ROWS, COLS] = [4096, 8192];
/** What each type is loaded as: without loss where a format is made for it. */
const FORMATS: Record<string, WeightFormat[]> = { F32: ['f32', 'f16'], F16: ['f16'], BF16: ['f16', 'q8', 'q4'] };

const folder = mkdtempSync(join(tmpdir(), 'kontext-bench-'));
const gpu = await openDevice();
console.log(
  `${gpu.report.description || gpu.report.device}: a matrix of ${ROWS}×${COLS}, medians of ${ROUNDS}, MB of the file a second`,
);
console.log('type     stored   reading   loading   share');
try {
  const wanted = process.argv.slice(2);
  for (const [name, { bytes, elements, stored }] of Object.entries(SOURCE_TYPES)) {
    if (wanted.length > 0 && !wanted.includes(name)) continue;
    const size = (ROWS * COLS * bytes) / elements;
    const path = join(folder, name);
    // Small positive numbers in any type: no exponent is all ones.
    writeFileSync(
      path,
      new Uint8Array(size).map((_, i) => (i * 37) & 0x3b),
    );
    const file = await fileBytes(path);
    for (const format of FORMATS[name] ?? (stored ? [stored] : ['f16' as const])) {
      const [reading, loading]: [number[], number[]] = [[], []];
      // The first round warms the page cache and compiles the kernel.
      for (let round = 0; round <= ROUNDS; round++) {
        const read = await timed(() => readAll(file));
        const load = await timed(() => loadOnce(name, file, format));
        if (round === 0) continue;
        reading.push(size / read / 1000);
        loading.push(size / load / 1000);
      }
      const [plain, stores] = [median(reading), median(loading)];
      const share = `${((100 * stores) / plain).toFixed(0)} %`;
      console.log(
        `${name.padEnd(9)}${format.padEnd(6)}${plain.toFixed(0).padStart(10)}${stores.toFixed(0).padStart(10)}${share.padStart(8)}`,
      );
    }
    await file.close();
  }
} finally {
  gpu.destroy();
  rmSync(folder, { recursive: true });
}
process.exit(0);

async function readAll(file: ByteSource): Promise<void> {
  const chunk = 16 * 2 ** 20;
  for (let at = 0; at < file.size; at += chunk) await file.read(at, Math.min(file.size, at + chunk));
}

async function loadOnce(type: string, file: ByteSource, format: WeightFormat): Promise<void> {
  const tensor = { dtype: type, type: SOURCE_TYPES[type]!, shape: [ROWS, COLS], bytes: file.size };
  const source: WeightSource = {
    label: type,
    tensors: new Map([['w', tensor]]),
    read: (_, start, end, signal) => file.read(start, end, signal),
    close: async () => {},
  };
  const bytes = Math.ceil(storedLayout(format, ROWS, COLS).bytes / 16) * 16;
  const request: WeightRequest = { name: 'w', format, shape: [ROWS, COLS], layout: 'matrix', bytes };
  const store = new WeightStore(gpu, source);
  await store.get(request);
  store.release(request);
  await store.evict();
}

async function timed(work: () => Promise<void>): Promise<number> {
  const started = performance.now();
  await work();
  return performance.now() - started;
}

function median(values: number[]): number {
  return values.sort((a, b) => a - b)[values.length >> 1]!;
}
