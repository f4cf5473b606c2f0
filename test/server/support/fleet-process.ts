// Many simulated GPUs in one process: each takes a job, waits, and gives an empty result. For bench:fleet.

import { MemoryStore, RedisWorker } from '../../../sdk/src/server/index.ts';
import { fakeEngine } from './fake-engine.ts';

const [url, workers, jobMs] = process.argv.slice(2);
const engine = fakeEngine({ stepMs: Number(jobMs), tiny: true });
const worker = await RedisWorker.start(url!, [{ name: 'kontext', engine, defaults: { steps: 1 } }], {
  lockMs: 10_000,
  concurrency: Number(workers),
  store: new MemoryStore(),
});
process.send?.('ready');
process.once('SIGTERM', () => void worker.drain().then(() => process.exit(0)));
