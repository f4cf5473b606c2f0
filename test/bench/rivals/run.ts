// The project beside other software that computes on WebGPU, on the same adapter in the same run: `npm run bench:rivals`.
// npm run bench:rivals [-- node|chromium] [matmul|attention|convolution|transformer]… ['jax-js WebGPU' …]; all without arguments.
// Rounds alternate; a run goes from inputs in memory to the result in memory. Fails when a result of ours is wrong.

import { spawnSync } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { relativeError } from '../timed-kernel.ts';
import { CONTENDERS, type ContenderName } from './contender.ts';
import { chromium, node, type Place, type Started } from './places.ts';
import { inFloat64 } from './plain64.ts';
import { WORKS, type Work, workOf } from './works.ts';

const ROUNDS = 5;
/** A contender gets no more rounds once it has taken this long, nor any when it has no result by then. */
const PATIENCE_MS = 240_000;
const ENOUGH_MS = 60_000;
/** Relative L2 errors of sums in f32, and where operands are f16. */
const LIMITS: Partial<Record<ContenderName, number>> = { ours: 3e-3, 'ours, f32': 1e-4 };

interface Row {
  name: ContenderName;
  readyMs: number;
  error: number;
  times: number[];
  started: Started;
  /** A round failed. */
  lost?: boolean;
}

const words = process.argv.slice(2);
const PLACES = { node, chromium };
const places = (['node', 'chromium'] as const).filter((name) => words.includes(name));
const chosen = WORKS.filter((name) => words.includes(name));
const some = words.filter((word) => word in CONTENDERS);
const known = [...Object.keys(PLACES), ...WORKS, ...Object.keys(CONTENDERS)];
const unknown = words.filter((word) => !known.includes(word));
if (unknown.length > 0) throw new Error(`Unknown: ${unknown.join(', ')}. Known: ${known.join(', ')}`);

install();
const works = (chosen.length > 0 ? chosen : WORKS).map(workOf);
const results = new Map(works.map((work) => [work.name, inFloat64(work)]));
for (const name of places.length > 0 ? places : (['node', 'chromium'] as const)) {
  const place = await PLACES[name]();
  console.log(`\n## ${place.title}`);
  for (const work of works) await compare(place, work);
  await place.close();
}
process.exit(process.exitCode ?? 0);

/** Once; the versions are those of the lock file. */
function install(): void {
  const folder = fileURLToPath(new URL('.', import.meta.url));
  const stamp = `${folder}node_modules/.package-lock.json`;
  const wanted = Object.entries(
    (JSON.parse(readFileSync(`${folder}package.json`, 'utf8')) as { dependencies: Record<string, string> })
      .dependencies,
  );
  const held = (existsSync(stamp) ? JSON.parse(readFileSync(stamp, 'utf8')) : { packages: {} }) as {
    packages: Record<string, { version?: string }>;
  };
  if (wanted.every(([name, version]) => held.packages[`node_modules/${name}`]?.version === version)) return;
  console.log('Installing the rivals, once: about 500 MB');
  // Their install scripts fetch what only other processors need.
  const { status } = spawnSync('npm', ['ci', '--ignore-scripts'], { cwd: folder, stdio: 'inherit' });
  if (status !== 0) throw new Error('npm ci failed in test/bench/rivals');
}

async function compare(place: Place, work: Work): Promise<void> {
  console.log(`\n### ${work.title}: ${(work.flops / 1e9).toFixed(1)} GFLOP\n`);
  const rows: Row[] = [];
  const failed: string[] = [];
  for (const name of place.contenders) {
    if (some.length > 0 && !some.includes(name)) continue;
    let started: Started | undefined;
    try {
      started = await within(place.start(name));
      const { ms, result } = await within(started.prepare(work.name));
      const want = results.get(work.name)!;
      const error = result.length === want.length ? relativeError(result, want) : Number.NaN;
      if (!(error <= (LIMITS[name] ?? Number.POSITIVE_INFINITY))) {
        console.log(`${name} is wrong: relative error ${error}, ${result.length} of ${want.length} values`);
        if (name in LIMITS) process.exitCode = 1;
      }
      rows.push({ name, readyMs: ms, error, times: [], started });
    } catch (error) {
      failed.push(`${name}: ${shortly(error as Error)}`);
      if (name in LIMITS) process.exitCode = 1;
      await started?.close();
    }
  }
  for (let round = 0; round < ROUNDS; round++) {
    for (const row of rows) {
      if (row.lost || row.times.reduce((sum, ms) => sum + ms, 0) >= ENOUGH_MS) continue;
      await within(row.started.again()).then(
        (ms) => row.times.push(ms),
        (error: Error) => {
          row.lost = true;
          failed.push(`${row.name}, in round ${round + 1}: ${shortly(error)}`);
          if (row.name in LIMITS) process.exitCode = 1;
        },
      );
    }
  }
  for (const { started } of rows) await started.close();
  print(
    work,
    rows.filter(({ times }) => times.length > 0),
  );
  for (const line of failed) console.log(`\n- No result, ${line}`);
}

function print(work: Work, rows: Row[]): void {
  const ours = rows.find(({ name }) => name === 'ours');
  const seconds = (ms: number): string => `${(ms / 1000).toFixed(ms < 9950 ? 2 : 1)} s`;
  console.log(
    '| | run, median | spread | GFLOP/s | time ÷ ours | ready | error |\n| --- | --- | --- | --- | --- | --- | --- |',
  );
  for (const { name, times, readyMs, error } of rows) {
    const cells = [
      name,
      seconds(median(times)),
      `${seconds(Math.min(...times))} to ${seconds(Math.max(...times))}`,
      (work.flops / median(times) / 1e6).toFixed(1),
      ours ? (median(times) / median(ours.times)).toFixed(2) : '',
      seconds(readyMs),
      error.toExponential(1),
    ];
    console.log(`| ${cells.join(' | ')} |`);
  }
}

/** The first line of its message. */
function shortly({ message }: Error): string {
  return message.split('\n')[0]!.slice(0, 200);
}

function median(times: number[]): number {
  return times.toSorted((a, b) => a - b)[times.length >> 1]!;
}

/** Rejects when `work` takes longer than anyone would wait. */
function within<T>(work: Promise<T>): Promise<T> {
  let timer: NodeJS.Timeout;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error(`no result within ${PATIENCE_MS / 1000} s`)), PATIENCE_MS);
  });
  work.catch(() => {});
  return Promise.race([work, late]).finally(() => clearTimeout(timer)) as Promise<T>;
}
