// A worker on Redis as a process of its own, to be killed by tests:
// tsx worker-process.ts REDIS_URL STEP_MS LOCK_MS [STORE_FOLDER] [SHARE OF REQUESTS THAT LOSE THE DEVICE]
import { FolderStore, RedisWorker } from '../../../sdk/src/server/index.ts';
import { deviceLost, fakeEngine } from './fake-engine.ts';

const [url, stepMs, lockMs, folder, losses = '0'] = process.argv.slice(2);
const engine = fakeEngine({
  stepMs: Number(stepMs),
  onRequest() {
    if (Math.random() < Number(losses)) throw deviceLost();
  },
});
const worker = await RedisWorker.start(url!, [{ name: 'kontext', engine, defaults: { steps: 4 } }], {
  lockMs: Number(lockMs),
  ...(folder !== undefined && { store: new FolderStore(folder) }),
});
process.send?.('ready');
process.once('SIGTERM', () => void worker.drain().then(() => process.exit(0)));
