// `kontext serve`: the images API on a port, with the queue in this process or on Redis.
import { readFile } from 'node:fs/promises';
import type { ApiKey, KontextServer, LocalModel, Logger } from '../../server/index.ts';
import { defineCommand, type Flags, type FlagValues, usage } from '../grammar.ts';
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
  port: { value: 'N', help: 'default 8080; 0 takes a free one' },
  host: { value: 'ADDRESS', help: 'address to bind (default: 127.0.0.1); others need --keys or --no-auth' },
  keys: { value: 'FILE', help: 'JSON file of API keys, made by kontext key' },
  'no-auth': { help: 'let everybody in who reaches the port' },
  ...SERVING_FLAGS,
  'max-waiting': { value: 'N', help: 'jobs that may wait before 429 (default: 100; on Redis 10000)' },
  'max-pixels': { value: 'N', help: 'pixels of a picture sent to the server (default: 64000000)' },
  'max-body': { value: 'MIB', help: 'size of a request (default: 64)' },
  'allow-image-host': {
    value: 'HOST',
    list: true,
    help: 'host that pictures may be fetched from by URL (default: none)',
  },
  cors: { value: 'ORIGIN', list: true, help: 'origin of pages that may call from a browser (default: none)' },
  origin: { value: 'URL', help: 'scheme and host of the links to pictures (default: relative links)' },
  'no-page': { help: 'no page at /' },
  'drain-seconds': {
    value: 'N',
    help: 'after SIGTERM: how long requests are still taken while /readyz says no (default: 0)',
  },
} as const satisfies Flags;

export const serve = defineCommand({
  summary: 'Serve models over HTTP, shaped like OpenAI’s images API.',
  usage: [''],
  examples: [
    'kontext serve',
    'kontext serve --model flux=~/models/FLUX.1-Kontext-dev --quantization q4 --keys keys.json --host 0.0.0.0',
    'kontext serve --redis redis://localhost:6379 --keys keys.json',
  ],
  notes:
    'With --redis this process takes requests and kontext worker runs them; without, it does both. SIGTERM finishes what was accepted, then ends.',
  flags: FLAGS,
  async run({ words, values, signal }) {
    if (words.length > 0) throw usage(`kontext serve takes no words, but got "${words[0]}".`);
    const module = await serverModule();
    const host = text(values.host) ?? '127.0.0.1';
    const keys = values.keys === undefined ? undefined : await readKeys(text(values.keys)!, module.checkKeys);
    if (!keys && values['no-auth'] !== true && !/^(127\.\d+\.\d+\.\d+|localhost|::1)$/.test(host)) {
      throw usage(`On ${host} others can reach the server: give --keys FILE (kontext key makes one), or --no-auth.`);
    }
    const port = wholeNumber(values, 'port', 8080, 0, 65_535);
    const log = await openLog(values);
    const { server, models } = await openServer(module, values, keys, log, signal);
    try {
      const listening = await module.listen(server.fetch, { port, host });
      log.info({ url: listening.url, models: models.map(({ name }) => name) }, 'listening');
      await stopped(signal);
      const seconds = wholeNumber(values, 'drain-seconds', 0, 0, 3600);
      log.info({ seconds }, 'draining');
      server.beginDrain();
      await new Promise((resolve) => setTimeout(resolve, seconds * 1000));
      await Promise.all([listening.stop(), server.drain()]);
      log.info({}, 'ended');
    } finally {
      await server.close();
      await closeModels(models);
    }
  },
});

async function openServer(
  module: Awaited<ReturnType<typeof serverModule>>,
  values: FlagValues<Flags>,
  keys: ApiKey[] | undefined,
  log: Logger,
  signal: AbortSignal,
): Promise<{ server: KontextServer; models: LocalModel[] }> {
  const redis = text(values.redis);
  const folder = text(values.store);
  const store = folder === undefined ? undefined : new module.FolderStore(folder, keepMs(values));
  const maxWaiting = wholeNumber(values, 'max-waiting', redis === undefined ? 100 : 10_000, 1, 10_000_000);
  const origin = text(values.origin);
  if (origin !== undefined && !/^https?:\/\/[^/]+$/.test(origin)) {
    throw usage(`--origin is "${origin}"; it must be a scheme and a host, such as https://images.example.com.`);
  }
  const shared = {
    ...(keys && { keys }),
    maxPixels: wholeNumber(values, 'max-pixels', 64_000_000, 256, 268_435_456),
    maxBodyBytes: wholeNumber(values, 'max-body', 64, 1, 1024) * 2 ** 20,
    allowHosts: (values['allow-image-host'] as string[] | undefined) ?? [],
    corsOrigins: (values.cors as string[] | undefined) ?? [],
    ...(origin !== undefined && { origin }),
    page: values['no-page'] !== true,
    logger: log,
  };
  if (redis === undefined) {
    const models = await loadModels(values, signal);
    return {
      models,
      server: module.createServer({ ...shared, models, maxWaiting, keepMs: keepMs(values), ...(store && { store }) }),
    };
  }
  for (const flag of ['model', 'adapter', 'programs']) {
    if (values[flag] !== undefined)
      throw usage(`With --redis the models are the workers': give --${flag} to kontext worker.`);
  }
  const queue = await module.RedisQueue.open(redis, {
    maxOpen: maxWaiting,
    keepMs: keepMs(values),
    logger: log,
    ...(store && { store }),
  });
  return { models: [], server: module.createServer({ ...shared, queue: { queue, store: queue.store } }) };
}

async function readKeys(path: string, check: (value: unknown) => ApiKey[]): Promise<ApiKey[]> {
  let value: unknown;
  try {
    value = JSON.parse(await readFile(path, 'utf8'));
  } catch {
    throw usage(`--keys ${path} cannot be read as JSON. kontext key NAME prints an entry for it.`);
  }
  try {
    return check(value);
  } catch (cause) {
    throw usage(`--keys ${path}: ${(cause as Error).message}`);
  }
}
