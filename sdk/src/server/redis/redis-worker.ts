// Takes jobs from Redis and runs them, one at a time for each model of this process.
// If it is killed, BullMQ finds the lock of its job expired, and another worker begins that job again.
import type { Job, Worker } from 'bullmq';
import { type Logger, SILENT } from '../http/logger.ts';
import { runJob } from '../jobs/runner.ts';
import { Speed } from '../jobs/speed.ts';
import type { BlobStore, JobEventBody, JobOutcome, JobSpec } from '../jobs/types.ts';
import type { LocalModel } from '../local/local-queue.ts';
import { connectRedis } from './connect.ts';
import { LANE_OPTIONS, LANES, laneName, laneOf } from './lanes.ts';
import { endJob, type WorkerReport } from './redis-queue.ts';
import { RedisStore } from './redis-store.ts';
import { CANCEL, keys, type ScriptedRedis } from './scripts.ts';

/** Options of {@link RedisWorker.start}. */
export interface RedisWorkerOptions {
  /** Unique among workers; default a random one. */
  name?: string;
  /** As the servers have it. Default: Redis. */
  store?: BlobStore;
  /** A worker that says nothing for this long has died; its job begins again elsewhere. Default 30,000. */
  lockMs?: number;
  /** How long finished jobs are kept, in milliseconds. Default one hour. */
  keepMs?: number;
  /** Jobs at the same time for each model. Default 1: an engine runs one; more is for those that stand for several. */
  concurrency?: number;
  /** Told of every job that ends here, for metrics. */
  onEnd?: (spec: JobSpec, outcome: JobOutcome, times: { waitMs: number; runMs: number }) => void;
  /** Default: says nothing. */
  logger?: Logger;
}

/** A job that killed this many workers is not begun again. */
const MAX_RUNS = 4;
/** Jobs taken from the warm lane in a row before the others are looked into first. */
const MAX_WARM_STREAK = 8;
/** An idle worker looks into the lanes at least this often, should a wake-up be lost. */
const IDLE_SECONDS = 2;
const REPORT_EVERY_MS = 3_000;
const REPORT_LASTS_MS = 10_000;
/** Silence after a failure of Redis, before the loop tries again. */
const PAUSE_MS = 500;

/** One worker process on Redis. */
export class RedisWorker {
  readonly #running = new Map<string, AbortController>();
  readonly #speed = new Speed();
  readonly #warm: Record<string, string> = {};
  readonly #loops: Promise<void>[] = [];
  #stopping = false;
  #closing = false;
  #reporter: NodeJS.Timeout | undefined;

  private constructor(
    private readonly redis: ScriptedRedis,
    private readonly subscriber: { disconnect(): void },
    private readonly waiters: { disconnect(): void }[],
    private readonly lanes: Map<string, Worker[]>,
    private readonly store: BlobStore,
    private readonly models: readonly LocalModel[],
    private readonly options: Required<Pick<RedisWorkerOptions, 'name' | 'lockMs' | 'keepMs'>> & RedisWorkerOptions,
    private readonly log: Logger,
  ) {}

  /** @throws ApiError 503 when nothing answers at `url` */
  static async start(
    url: string,
    models: readonly LocalModel[],
    options: RedisWorkerOptions = {},
  ): Promise<RedisWorker> {
    const { name = crypto.randomUUID(), lockMs = 30_000, keepMs = 3_600_000, logger = SILENT } = options;
    const redis = await connectRedis(url, { patient: true, log: logger });
    const { Worker: BullWorker } = await import('bullmq');
    const lanes = new Map<string, Worker[]>();
    for (const model of models) {
      const workers = Array.from({ length: LANES }, (_, lane) => {
        const worker = new BullWorker(laneName(model.name, lane), null, {
          connection: redis,
          ...LANE_OPTIONS,
          autorun: false,
          lockDuration: lockMs,
          stalledInterval: lockMs / 2,
          // How often a job may be begun is counted by us, with an outcome at the end.
          maxStalledCount: 1_000_000,
        });
        worker.on('error', () => {});
        return worker;
      });
      lanes.set(model.name, workers);
      for (const worker of workers) void worker.startStalledCheckTimer().catch(() => {});
    }
    const subscriber = redis.duplicate();
    subscriber.on('error', () => {});
    const loops = models.flatMap((model) => Array.from({ length: options.concurrency ?? 1 }, () => model));
    const waiters = loops.map(() => {
      const waiter = redis.duplicate();
      waiter.on('error', () => {});
      return waiter;
    });
    const store = options.store ?? new RedisStore(redis, keepMs);
    const kept = { ...options, name, lockMs, keepMs };
    const worker = new RedisWorker(redis, subscriber, waiters, lanes, store, models, kept, logger);
    subscriber.on('message', (_channel: string, id: string) => worker.#running.get(id)?.abort(new Error('cancelled')));
    await subscriber.subscribe(CANCEL);
    await worker.#report();
    worker.#reporter = setInterval(() => void worker.#report().catch(() => {}), REPORT_EVERY_MS);
    for (const [i, model] of loops.entries()) worker.#loops.push(worker.#loop(model, waiters[i]!));
    return worker;
  }

  /** Takes no more jobs and resolves when the running ones have ended. */
  async drain(): Promise<void> {
    this.#stopping = true;
    clearInterval(this.#reporter);
    await this.redis.del(keys.worker(this.options.name)).catch(() => 0);
    await Promise.all(this.#loops);
  }

  /** Stops at once: a running job goes back to its place in the queue. Then closes every connection. */
  async close(): Promise<void> {
    this.#closing = true;
    for (const stop of this.#running.values()) stop.abort(new Error('closing'));
    await this.drain();
    for (const workers of this.lanes.values()) for (const worker of workers) await worker.close(true).catch(() => {});
    this.subscriber.disconnect();
    for (const waiter of this.waiters) waiter.disconnect();
    await this.store.close();
    this.redis.disconnect();
  }

  async #loop(model: LocalModel, waiter: { blpop(key: string, seconds: number): Promise<unknown> }): Promise<void> {
    let streak = 0;
    let first = 0;
    while (!this.#stopping) {
      try {
        const shape = this.#warm[model.name];
        const warm = shape === undefined ? undefined : laneOf(shape);
        // In turn, so that no lane waits for ever behind a busy one.
        const order = Array.from({ length: LANES }, (_, i) => (first + i) % LANES);
        if (warm !== undefined && streak < MAX_WARM_STREAK)
          order.sort((a, b) => Number(b === warm) - Number(a === warm));
        const taken = await this.#take(model, order);
        if (!taken) {
          streak = 0;
          await waiter.blpop(keys.wake(model.name), IDLE_SECONDS);
          continue;
        }
        streak = taken.lane === warm ? streak + 1 : 0;
        first = (taken.lane + 1) % LANES;
        await this.#process(model, taken.job, taken.token);
      } catch (error) {
        if (this.#stopping) return;
        this.log.warn({ error: String(error) }, 'the queue failed, trying again');
        await new Promise((resolve) => setTimeout(resolve, PAUSE_MS));
      }
    }
  }

  async #take(
    model: LocalModel,
    order: readonly number[],
  ): Promise<{ job: Job; token: string; lane: number } | undefined> {
    for (const lane of order) {
      const token = `${this.options.name}/${crypto.randomUUID()}`;
      const job = await this.lanes.get(model.name)![lane]!.getNextJob(token, { block: false });
      if (job) return { job, token, lane };
    }
    return undefined;
  }

  async #process(model: LocalModel, job: Job, token: string): Promise<void> {
    const { id } = job.data as { id: string };
    const stored = await this.redis.hmget(keys.job(id), 'spec', 'outcome', 'cancel');
    const [text, ended, cancelled] = stored;
    // Ended before: cancelled while it waited, or its worker died between the outcome and this.
    if (text == null || ended != null) return this.#complete(job, token);
    const spec = JSON.parse(text) as JobSpec;
    const runs = await this.redis.kontextBegin(keys.job(id));
    if (runs === 0) return this.#complete(job, token);
    const outcome =
      cancelled != null
        ? ({ type: 'cancelled' } as const)
        : runs > MAX_RUNS
          ? ({
              type: 'failed',
              error: { code: 'worker-died', message: `${MAX_RUNS} workers ended while they ran this job.` },
            } as const)
          : await this.#run(model, spec, runs, job, token);
    if (outcome) await endJob(this.redis, spec, outcome, this.options.keepMs);
    else if (this.#closing) return void (await job.moveToWait(token).catch(() => {}));
    await this.#complete(job, token);
  }

  /** Undefined when another worker gives the outcome: the lock was lost, or this worker closes. */
  async #run(model: LocalModel, spec: JobSpec, run: number, job: Job, token: string): Promise<JobOutcome | undefined> {
    const stop = new AbortController();
    this.#running.set(spec.id, stop);
    let lost = false;
    const renew = setInterval(() => {
      job.extendLock(token, this.options.lockMs).then(
        (extended) => {
          if (extended) return;
          lost = true;
          stop.abort(new Error('the lock was lost'));
        },
        // Redis restarting is no loss; if it takes longer than the lock, the next try tells.
        () => {},
      );
    }, this.options.lockMs / 3);
    const started = Date.now();
    try {
      const emit = (event: JobEventBody) => {
        const progress = event.type === 'progress' ? String(event.progress) : '';
        void this.redis
          .kontextEmit(keys.job(spec.id), keys.events(spec.id), spec.id, JSON.stringify(event), progress)
          .catch(() => {});
      };
      emit({ type: 'running', run });
      const outcome = await runJob(model.engine, spec, this.store, emit, stop.signal);
      const runMs = Date.now() - started;
      if (outcome.type === 'done') {
        this.#speed.measured(spec.work, runMs);
        this.#warm[model.name] = spec.shape;
      }
      if (lost || this.#closing) return undefined;
      this.options.onEnd?.(spec, outcome, { waitMs: started - spec.acceptedAt, runMs });
      return outcome;
    } finally {
      clearInterval(renew);
      this.#running.delete(spec.id);
    }
  }

  /** A lock that was lost meanwhile is no failure: the outcome is written, and whoever has the job now will see it. */
  async #complete(job: Job, token: string): Promise<void> {
    await job.moveToCompleted(null, token, false).catch(() => {});
  }

  async #report(): Promise<void> {
    const msPerWork = this.#speed.estimateMs(1, 1);
    const report: WorkerReport = {
      models: this.models.map(({ name, defaults }) => ({ name, defaults })),
      warm: this.#warm,
      busy: this.#running.size,
      ...(msPerWork !== undefined && { msPerWork }),
    };
    await this.redis.set(keys.worker(this.options.name), JSON.stringify(report), 'PX', REPORT_LASTS_MS);
    await this.redis.sadd(keys.workers, this.options.name);
  }
}
