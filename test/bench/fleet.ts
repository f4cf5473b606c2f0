// A fleet that only waits: the queue on Redis with many simulated GPUs, workers killed and Redis restarted on the way.
// `npm run bench:fleet -- [WORKERS=1000] [JOBS=100000] [PROCESSES=4] [JOB_MS=1000] [kills=1]`: every job must end once.
import type { ChildProcess } from 'node:child_process';
import { type JobSpec, MemoryStore, RedisQueue } from '../../sdk/src/server/index.ts';
import { exited, startScript } from '../server/support/processes.ts';
import { TestRedis } from '../server/support/redis.ts';

const [workers = 1000, jobs = 100_000, processes = 4, jobMs = 1000, kills = 1] = process.argv.slice(2).map(Number);
const IN_FLIGHT = 20_000;

const redis = await TestRedis.start();
const queue = await RedisQueue.open(redis.url, { maxOpen: 1_000_000, store: new MemoryStore(), keepMs: 600_000 });
const fleet: ChildProcess[] = [];
const perProcess = Math.ceil(workers / processes);
const start = async (i: number) => {
  fleet[i] = await startScript('fleet-process.ts', [redis.url, String(perProcess), String(jobMs)]);
};
await Promise.all(Array.from({ length: processes }, (_, i) => start(i)));
console.log(`${processes} processes of ${perProcess} simulated GPUs, ${jobs} jobs of ${jobMs} ms`);

const begun = performance.now();
const ids: string[] = [];
let killed = 0;
let restarted = 0;
let ended = false;
const chaos = (async () => {
  while (kills > 0 && !ended) {
    await new Promise((resolve) => setTimeout(resolve, 10_000));
    if (ended) return;
    const i = killed % processes;
    fleet[i]!.kill('SIGKILL');
    await exited(fleet[i]!);
    killed++;
    await start(i);
    if (killed % 3 === 0) {
      await redis.kill();
      await redis.start();
      restarted++;
    }
  }
})();

const pending = new Set<Promise<void>>();
for (let n = 0; n < jobs; n++) {
  const id = crypto.randomUUID();
  ids.push(id);
  const adding = add(specOf(id, n)).finally(() => pending.delete(adding));
  pending.add(adding);
  if (pending.size >= 200) await Promise.race(pending);
  if (n % 2000 === 0) while ((await openJobs()) > IN_FLIGHT) await new Promise((resolve) => setTimeout(resolve, 200));
}
await Promise.all(pending);
console.log(`accepted in ${((performance.now() - begun) / 1000).toFixed(0)} s`);
while ((await openJobs()) > 0) await new Promise((resolve) => setTimeout(resolve, 500));
const seconds = (performance.now() - begun) / 1000;
ended = true;

let runs = 0;
let lost = 0;
let again = 0;
for (let at = 0; at < ids.length; at += 500) {
  const states = await Promise.all(ids.slice(at, at + 500).map((id) => queue.state(id)));
  for (const state of states) {
    if (state?.status !== 'done') lost++;
    runs += state?.runs ?? 0;
    if ((state?.runs ?? 0) > 1) again++;
  }
}
console.log(
  `${jobs} jobs in ${seconds.toFixed(0)} s: ${(jobs / seconds).toFixed(1)} a second of ${((workers * 1000) / jobMs).toFixed(0)} possible; lost ${lost}; begun again after a kill ${again}, runs ${runs}; ${killed} processes killed, ${restarted} restarts of Redis`,
);
await chaos;
for (const child of fleet) child.kill('SIGKILL');
await queue.close();
await redis.stop();
process.exit(lost === 0 ? 0 : 1);

/** Accepts one job, through restarts of Redis. */
async function add(spec: JobSpec): Promise<void> {
  for (;;) {
    try {
      return await queue.add(spec);
    } catch {
      await new Promise((resolve) => setTimeout(resolve, 500));
    }
  }
}

async function openJobs(): Promise<number> {
  try {
    const { waiting, running } = await queue.stats();
    return waiting + running;
  } catch {
    return Number.POSITIVE_INFINITY;
  }
}

function specOf(id: string, n: number): JobSpec {
  const shape = ['1024x1024', '1184x880', '880x1184', '1392x752'][n % 4]!;
  return {
    id,
    client: `client-${n % 50}`,
    priority: 5,
    model: 'kontext',
    kind: 'generate',
    request: { prompt: 'x', steps: 1 },
    seed: String(n),
    pictures: [],
    output: { format: 'png', quality: 92 },
    partialImages: 0,
    shape,
    work: 1,
    acceptedAt: Date.now(),
  };
}
