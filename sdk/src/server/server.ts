// createServer(): queue, store and options to one function from Request to Response.
// What it opens it closes; the engine or queue that it was given stays its owner's.
import type { KontextEngine } from '../kontext/types.ts';
import type { ModerationRequest } from './http/accept.ts';
import { createFetchHandler } from './http/handler.ts';
import { type ApiKey, Doorkeeper } from './http/keys.ts';
import { type Logger, SILENT } from './http/logger.ts';
import { createMetrics, type Metrics } from './http/metrics.ts';
import type { BlobStore, JobQueue } from './jobs/types.ts';
import { type LocalModel, LocalQueue } from './local/local-queue.ts';
import { pageFiles } from './page/page.ts';
import { MemoryStore } from './stores/memory.ts';
import { VERSION } from './version.ts';

/** A queue and the store that its workers read and write. */
export interface QueueAndStore {
  /** Where jobs wait. */
  queue: JobQueue;
  /** Where their pictures lie. */
  store: BlobStore;
}

/** Options of {@link createServer}. */
export interface ServerOptions {
  /** A loaded model; the queue is in this process. */
  engine?: KontextEngine;
  /** Several loaded models, by name; the first is the default. */
  models?: readonly LocalModel[];
  /** Another queue than one in this process, with the store that its workers share. */
  queue?: QueueAndStore;
  /** Without `queue`: where pictures lie. Default: this process's memory, 1 GiB. */
  store?: BlobStore;
  /** Without `queue`: jobs that may wait before 429. Default 100. */
  maxWaiting?: number;
  /** Without `queue`: how long finished jobs are kept, in milliseconds. Default one hour. */
  keepMs?: number;
  /** Who may ask. Left out: everybody. */
  keys?: readonly ApiKey[];
  /** Bytes of a request's body. Default 64 MiB. */
  maxBodyBytes?: number;
  /** Bytes of one picture's file. Default 32 MiB. */
  maxPictureBytes?: number;
  /** Pixels of one picture, before it is decoded. Default 64 million. */
  maxPixels?: number;
  /** Hosts that pictures may be fetched from by URL. Default none. */
  allowHosts?: readonly string[];
  /** Origins of pages that may call from a browser. Default none. */
  corsOrigins?: readonly string[];
  /** Says why a request is not served, or nothing. */
  moderate?: (request: ModerationRequest) => Promise<string | undefined> | string | undefined;
  /** Scheme and host of links to pictures. Default: relative links. */
  origin?: string;
  /** Whether `/` is a page with the editor. Default true. */
  page?: boolean;
  /** Default: says nothing. */
  logger?: Logger;
  /** Prometheus metrics of this process too. Default true. */
  processMetrics?: boolean;
}

/** A server without a socket: mount `fetch` wherever requests come from. */
export interface KontextServer extends AsyncDisposable {
  /** One request to one answer; never rejects. */
  fetch(request: Request): Promise<Response>;
  /** `/readyz` says no from now on; requests are still served. */
  beginDrain(): void;
  /** Takes no more jobs and resolves when those accepted have ended. */
  drain(): Promise<void>;
  /** Ends everything at once; waiting jobs of a queue in this process are cancelled. */
  close(): Promise<void>;
}

/** A server without a socket. @throws TypeError unless exactly one of `engine`, `models` and `queue` is given */
export function createServer(options: ServerOptions): KontextServer {
  const metrics = createMetrics({ process: options.processMetrics ?? true });
  const { queue, store } = queueOf(options, metrics);
  let draining = false;
  const fetch = createFetchHandler({
    queue,
    store,
    metrics,
    limits: {
      maxBodyBytes: options.maxBodyBytes ?? 64 * 2 ** 20,
      maxBytes: options.maxPictureBytes ?? 32 * 2 ** 20,
      maxPixels: options.maxPixels ?? 64e6,
      allowHosts: options.allowHosts ?? [],
    },
    ...(options.moderate && { moderate: options.moderate }),
    origin: options.origin ?? '',
    doorkeeper: new Doorkeeper(options.keys),
    log: options.logger ?? SILENT,
    corsOrigins: options.corsOrigins ?? [],
    version: VERSION,
    ...((options.page ?? true) && { page: pageFiles() }),
    ready: async () => !draining && (await queue.models()).length > 0,
  });
  return {
    fetch,
    beginDrain() {
      draining = true;
    },
    drain() {
      draining = true;
      return queue.drain();
    },
    close: () => queue.close(),
    [Symbol.asyncDispose]: () => queue.close(),
  };
}

function queueOf(options: ServerOptions, metrics: Metrics): { queue: JobQueue; store: BlobStore } {
  const { engine, models, queue } = options;
  const given = [engine, models, queue].filter((value) => value !== undefined).length;
  if (given !== 1) throw new TypeError('createServer() needs one of engine, models and queue.');
  if (queue) return queue;
  const store = options.store ?? new MemoryStore();
  const local = models ?? [{ name: 'kontext', engine: engine!, defaults: {} }];
  return { store, queue: new LocalQueue(local, store, { ...options, onEnd: metrics.job }) };
}
