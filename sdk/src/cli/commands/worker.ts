// `kontext worker`: runs jobs from Redis, one process for each GPU.
import { createServer } from 'node:http';
import { defineCommand, type Flags, usage } from '../grammar.ts';
import {
  closeModels,
  keepMs,
  loadModels,
  openLog,
  SERVING_FLAGS,
  serverModule,
  stopped,
  text,
  wholeNumber,
} from '../serving.ts';

const FLAGS = {
  ...SERVING_FLAGS,
  name: { value: 'NAME', help: 'unique among workers (default: a random one)' },
  lock: {
    value: 'SECONDS',
    help: 'silence after which this worker counts as dead and its job begins again elsewhere (default: 30)',
  },
  'metrics-port': { value: 'N', help: 'serve /metrics and /healthz on this port of 127.0.0.1 (default: none)' },
} as const satisfies Flags;

export const worker = defineCommand({
  summary: 'Run jobs that kontext serve --redis accepted; any number of workers, on any number of machines.',
  usage: ['--redis URL'],
  examples: [
    'kontext worker --redis redis://localhost:6379',
    'kontext worker --redis redis://queue:6379 --adapter "RTX 4090" --model flux=/models/kontext',
  ],
  notes:
    'SIGTERM finishes the running job, then ends. A worker that dies loses nothing: its job begins again on another.',
  flags: FLAGS,
  async run({ words, values, signal }) {
    if (words.length > 0) throw usage(`kontext worker takes no words, but got "${words[0]}".`);
    const redis = text(values.redis);
    if (redis === undefined) throw usage('Which queue? Give --redis URL, such as redis://localhost:6379.');
    const { RedisWorker, FolderStore, createMetrics } = await serverModule();
    const log = await openLog(values);
    const metrics = createMetrics();
    const folder = text(values.store);
    const name = text(values.name);
    const lockMs = wholeNumber(values, 'lock', 30, 1, 3600) * 1000;
    const models = await loadModels(values, signal);
    const running = await RedisWorker.start(redis, models, {
      ...(name !== undefined && { name }),
      ...(folder !== undefined && { store: new FolderStore(folder, keepMs(values)) }),
      lockMs,
      keepMs: keepMs(values),
      logger: log,
      onEnd(spec, outcome, times) {
        metrics.job(spec, outcome, times);
        log.info({ job: spec.id, model: spec.model, outcome: outcome.type, ...times }, 'job ended');
      },
    });
    const scraped =
      values['metrics-port'] === undefined ? undefined : wholeNumber(values, 'metrics-port', 0, 0, 65_535);
    const port = createServer((request, response) => {
      if (request.url !== '/metrics') response.end('ok\n');
      else void metrics.text().then((body) => response.setHeader('content-type', metrics.contentType).end(body));
    });
    if (scraped !== undefined) port.listen(scraped, '127.0.0.1');
    log.info({ models: models.map((model) => model.name) }, 'taking jobs');
    await stopped(signal);
    log.info({}, 'draining');
    await running.drain();
    await running.close();
    port.close();
    await closeModels(models);
    log.info({}, 'ended');
  },
});
