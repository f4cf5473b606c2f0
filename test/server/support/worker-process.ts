// A worker on Redis as a process of its own, to be killed by tests: tsx worker-process.ts REDIS_URL STEP_MS LOCK_MS
import { RedisWorker } from '../../../sdk/src/server/index.ts';
import { fakeEngine } from './fake-engine.ts';

const [url, stepMs, lockMs] = process.argv.slice(2);
const engine = fakeEngine({ stepMs: Number(stepMs) });
const worker = await RedisWorker.start(url!, [{ name: 'kontext', engine, defaults: { steps: 4 } }], {
  lockMs: Number(lockMs),
});
process.send?.('ready');
process.once('SIGTERM', () => void worker.drain().then(() => process.exit(0)));
