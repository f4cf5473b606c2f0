// The queue on Redis, as a server sees it. Jobs wait in BullMQ's lanes; what happens to them stands in a hash and a stream
// of our own, because the client wants one outcome, however often a job had to be run.
import type { Queue } from 'bullmq';
import { ApiError } from '../http/errors.ts';
import { type Logger, SILENT } from '../http/logger.ts';
import { retryAfterSeconds } from '../jobs/speed.ts';
import type {
  BlobStore,
  JobEvent,
  JobOutcome,
  JobQueue,
  JobSpec,
  JobState,
  OfferedModel,
  QueueStats,
  RememberedJob,
} from '../jobs/types.ts';
import { connectRedis, unavailable } from './connect.ts';
import { Doorbell } from './doorbell.ts';
import { bullPriority, LANE_OPTIONS, laneName, laneOf } from './lanes.ts';
import { RedisStore } from './redis-store.ts';
import { BELL, CANCEL, keys, type ScriptedRedis } from './scripts.ts';

/** Options of {@link RedisQueue.open}. */
export interface RedisQueueOptions {
  /** Jobs that may be open, over all servers; those above are refused with 429. Default 10,000. */
  maxOpen?: number;
  /** How long a finished job and its pictures are kept, in milliseconds. Default one hour. */
  keepMs?: number;
  /** Where pictures lie, reachable by all servers and workers. Default: Redis. */
  store?: BlobStore;
  /** Default: says nothing. */
  logger?: Logger;
}

/** What a worker says of itself every few seconds. */
export interface WorkerReport {
  /** Models it has loaded. */
  models: OfferedModel[];
  /** Shape whose programs it has ready, by model. */
  warm: Record<string, string>;
  /** Milliseconds a unit of predicted work took; absent before its first job. */
  msPerWork?: number;
  /** Models it runs a job of now. */
  busy: number;
}

/** Workers' reports are read again after this time. */
const REPORTS_FOR_MS = 1_000;

/** {@link JobQueue} on Redis. */
export class RedisQueue implements JobQueue {
  readonly #lanes = new Map<string, Queue>();
  readonly #closing = new AbortController();
  #reports: { at: number; read: Promise<WorkerReport[]> } | undefined;
  #draining = false;

  private constructor(
    private readonly redis: ScriptedRedis,
    private readonly bell: Doorbell,
    private readonly bull: typeof import('bullmq'),
    /** Shared with the workers. */
    readonly store: BlobStore,
    private readonly options: Required<Pick<RedisQueueOptions, 'maxOpen' | 'keepMs'>>,
  ) {}

  /** @param url such as `redis://localhost:6379` @throws ApiError 503 when nothing answers there */
  static async open(url: string, options: RedisQueueOptions = {}): Promise<RedisQueue> {
    const { maxOpen = 10_000, keepMs = 3_600_000, logger = SILENT } = options;
    const redis = await connectRedis(url, { patient: false, log: logger });
    const bell = await Doorbell.listen(redis, BELL);
    const bull = await import('bullmq');
    return new RedisQueue(redis, bell, bull, options.store ?? new RedisStore(redis, keepMs), { maxOpen, keepMs });
  }

  async add(spec: JobSpec): Promise<void> {
    if (this.#draining) throw new ApiError(503, 'draining', 'The server is stopping.', { retryAfterSeconds: 1 });
    const { id, client, work, model, shape, priority } = spec;
    const own = keys.opened(id);
    try {
      const open = await this.redis.kontextAccept(...own, id, JSON.stringify(spec), client, work, this.options.maxOpen);
      if (open === 0) return;
      if (open < 0) {
        const { waitMs, waiting } = await this.stats();
        const seconds = retryAfterSeconds(waitMs);
        throw new ApiError(429, 'queue-full', `${waiting} jobs are waiting. Try again in ${seconds} seconds.`, {
          retryAfterSeconds: seconds,
        });
      }
      // BullMQ takes each id once: a job that is there already may have missed this step, and is not doubled by it.
      const lane = this.#lane(laneName(model, laneOf(shape)));
      const kept = { removeOnComplete: true, removeOnFail: true };
      await lane.add('job', { id }, { jobId: id, priority: bullPriority(priority, open), ...kept });
      await this.redis.kontextWake(keys.wake(model));
    } catch (cause) {
      // What Redis was sent it may still do when it is back: this goes behind, and takes a job back that the client does not know of.
      if (!(cause instanceof ApiError)) void this.redis.kontextReject(...own, client, work).catch(() => 0);
      throw unavailable(cause);
    }
  }

  async state(id: string): Promise<JobState | undefined> {
    const stored = await this.#ask(() => this.redis.hgetall(keys.job(id)));
    if (stored.spec === undefined) return undefined;
    const outcome = stored.outcome === undefined ? undefined : (JSON.parse(stored.outcome) as JobOutcome);
    const runs = Number(stored.runs);
    return {
      spec: JSON.parse(stored.spec) as JobSpec,
      runs,
      progress: outcome?.type === 'done' ? 1 : Number(stored.progress),
      status: outcome?.type ?? (runs > 0 ? 'running' : 'queued'),
      ...(outcome && { outcome }),
    };
  }

  async *events(id: string, after: number, signal: AbortSignal): AsyncGenerator<JobEvent, void, void> {
    const ended = AbortSignal.any([signal, this.#closing.signal]);
    let seen = after;
    while (!ended.aborted) {
      // Rung while we look: the next wait must not miss it.
      const rung = this.bell.ring(id, ended);
      const entries = await this.redis.xrange(keys.events(id), `(${seen}-0`, '+').catch(() => []);
      for (const [entry, [, text]] of entries) {
        seen = Number(entry.split('-')[0]);
        const event = { ...(JSON.parse(text!) as JobEvent), seq: seen };
        yield event;
        if (event.type === 'done' || event.type === 'failed' || event.type === 'cancelled') return;
      }
      if (entries.length > 0) continue;
      // Dropped, or never there: nothing will come.
      if ((await this.redis.exists(keys.job(id)).catch(() => 1)) === 0) return;
      await rung;
    }
  }

  async cancel(id: string): Promise<boolean> {
    const state = await this.state(id);
    if (!state || state.outcome) return false;
    await this.#ask(() => this.redis.hset(keys.job(id), 'cancel', 1));
    await this.#ask(() => this.redis.publish(CANCEL, id));
    // One that nobody runs ends here; a running one is ended by its worker or, if that has died, by the next that takes it.
    if (state.runs === 0) await endJob(this.redis, state.spec, { type: 'cancelled' }, this.options.keepMs);
    return true;
  }

  async forget(id: string): Promise<void> {
    const ended = await this.#ask(() => this.redis.hexists(keys.job(id), 'outcome'));
    if (!ended) return;
    await this.redis.unlink(keys.job(id), keys.events(id)).catch(() => 0);
    await this.store.remove(`${id}/`);
  }

  async remember(client: string, key: string, id: string, digest: string): Promise<RememberedJob> {
    const name = keys.idempotency(client, key);
    const before = await this.#ask(() =>
      this.redis.set(name, JSON.stringify({ id, digest }), 'PX', this.options.keepMs, 'NX', 'GET'),
    );
    return before === null ? { id, digest } : (JSON.parse(before) as { id: string; digest: string });
  }

  async models(): Promise<OfferedModel[]> {
    const found = new Map<string, OfferedModel>();
    for (const { models } of await this.#workers()) for (const model of models) found.set(model.name, model);
    return [...found.values()].sort((a, b) => (a.name < b.name ? -1 : 1));
  }

  async stats(): Promise<QueueStats> {
    const [open, workers] = await Promise.all([this.#ask(() => this.redis.hgetall(keys.open)), this.#workers()]);
    const running = workers.reduce((sum, { busy }) => sum + busy, 0);
    const rates = workers.flatMap(({ msPerWork }) => (msPerWork === undefined ? [] : [1 / msPerWork]));
    const rate = rates.reduce((sum, value) => sum + value, 0) * (workers.length / Math.max(1, rates.length));
    return {
      waiting: Math.max(0, Number(open.jobs ?? 0) - running),
      running,
      workers: workers.length,
      ...(rate > 0 && { waitMs: Number(open.work ?? 0) / rate }),
    };
  }

  /** Jobs outlive this process; what its clients still wait for ends with their connections. */
  async drain(): Promise<void> {
    this.#draining = true;
  }

  async close(): Promise<void> {
    this.#draining = true;
    this.#closing.abort();
    this.bell.close();
    for (const lane of this.#lanes.values()) await lane.close().catch(() => {});
    await this.store.close();
    this.redis.disconnect();
  }

  #lane(name: string): Queue {
    const lane = this.#lanes.get(name) ?? new this.bull.Queue(name, { connection: this.redis, ...LANE_OPTIONS });
    if (!this.#lanes.has(name)) lane.on('error', () => {});
    this.#lanes.set(name, lane);
    return lane;
  }

  #workers(): Promise<WorkerReport[]> {
    const now = Date.now();
    if (!this.#reports || now - this.#reports.at > REPORTS_FOR_MS) {
      this.#reports = { at: now, read: this.#ask(() => this.#readWorkers()) };
      this.#reports.read.catch(() => {
        this.#reports = undefined;
      });
    }
    return this.#reports.read;
  }

  async #readWorkers(): Promise<WorkerReport[]> {
    const names = await this.redis.smembers(keys.workers);
    if (names.length === 0) return [];
    const texts = await this.redis.mget(names.map((name) => keys.worker(name)));
    const gone = names.filter((_, i) => texts[i] === null);
    if (gone.length > 0) await this.redis.srem(keys.workers, ...gone);
    return texts.flatMap((text) => (text == null ? [] : [JSON.parse(text) as WorkerReport]));
  }

  async #ask<T>(command: () => Promise<T>): Promise<T> {
    try {
      return await command();
    } catch (cause) {
      throw unavailable(cause);
    }
  }
}

/** Writes the one outcome of a job. @returns whether it was this one */
export async function endJob(
  redis: ScriptedRedis,
  spec: JobSpec,
  outcome: JobOutcome,
  keepMs: number,
): Promise<boolean> {
  const { id, client, work } = spec;
  const own = keys.opened(id);
  return (await redis.kontextEnd(...own, id, JSON.stringify(outcome), outcome.type, client, work, keepMs)) === 1;
}
