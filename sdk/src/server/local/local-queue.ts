// The queue inside one process: bounded, fair, one job at a time for each engine.
// It loses what waits when the process ends; Redis is for those who cannot bear that.
import type { KontextEngine } from '../../kontext/types.ts';
import { ApiError } from '../http/errors.ts';
import { JobLog } from '../jobs/log.ts';
import { runJob } from '../jobs/runner.ts';
import { retryAfterSeconds, Speed } from '../jobs/speed.ts';
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
import { FairQueue } from './fair-queue.ts';

/** A model of this process. */
export interface LocalModel extends OfferedModel {
  /** Requests to it run one after the other. */
  engine: KontextEngine;
}

/** Options of {@link LocalQueue}. */
export interface LocalQueueOptions {
  /** Jobs that may wait; those above are refused with 429. Default 100. */
  maxWaiting?: number;
  /** How long a finished job and its pictures are kept, in milliseconds. Default one hour. */
  keepMs?: number;
  /** Told of every job that ends, for metrics. */
  onEnd?: (spec: JobSpec, outcome: JobOutcome, times: { waitMs: number; runMs: number }) => void;
}

interface Entry {
  id: string;
  priority: number;
  client: string;
  shape: string;
  spec: JobSpec;
  log: JobLog;
  runs: number;
  progress: number;
  stop: AbortController;
  outcome?: JobOutcome;
}

interface Lane {
  model: LocalModel;
  waiting: FairQueue<Entry>;
  running: Entry | undefined;
  /** Shape of the last job: its programs are compiled. */
  warm?: string;
}

/** {@link JobQueue} in memory. */
export class LocalQueue implements JobQueue {
  readonly #jobs = new Map<string, Entry>();
  readonly #lanes: Lane[];
  readonly #keys = new Map<string, { id: string; digest: string }>();
  readonly #speed = new Speed();
  readonly #timers = new Set<NodeJS.Timeout>();
  readonly #maxWaiting: number;
  readonly #keepMs: number;
  #idle: (() => void)[] = [];
  #draining = false;

  /** Takes jobs for these models from now on. */
  constructor(
    models: readonly LocalModel[],
    private readonly store: BlobStore,
    private readonly options: LocalQueueOptions = {},
  ) {
    this.#lanes = models.map((model) => ({ model, waiting: new FairQueue<Entry>(), running: undefined }));
    this.#maxWaiting = options.maxWaiting ?? 100;
    this.#keepMs = options.keepMs ?? 3_600_000;
  }

  async add(spec: JobSpec): Promise<void> {
    if (this.#jobs.has(spec.id)) return;
    if (this.#draining) throw new ApiError(503, 'draining', 'The server is stopping.', { retryAfterSeconds: 1 });
    const lane = this.#lanes.find(({ model }) => model.name === spec.model)!;
    if (this.#waiting >= this.#maxWaiting) {
      const { waitMs } = await this.stats();
      const seconds = retryAfterSeconds(waitMs);
      throw new ApiError(429, 'queue-full', `${this.#waiting} jobs are waiting. Try again in ${seconds} seconds.`, {
        retryAfterSeconds: seconds,
      });
    }
    const { id, priority, client, shape } = spec;
    const entry: Entry = {
      id,
      priority,
      client,
      shape,
      spec,
      log: new JobLog(),
      runs: 0,
      progress: 0,
      stop: new AbortController(),
    };
    this.#jobs.set(id, entry);
    lane.waiting.add(entry);
    entry.log.push({ type: 'queued', ahead: lane.waiting.size - 1 + (lane.running ? 1 : 0) });
    this.#advance(lane);
  }

  async state(id: string): Promise<JobState | undefined> {
    const entry = this.#jobs.get(id);
    if (!entry) return undefined;
    const { spec, runs, progress, outcome } = entry;
    return {
      spec,
      runs,
      progress,
      status: outcome?.type ?? (runs > 0 ? 'running' : 'queued'),
      ...(outcome && { outcome }),
    };
  }

  async *events(id: string, after: number, signal: AbortSignal): AsyncGenerator<JobEvent, void, void> {
    const entry = this.#jobs.get(id);
    if (entry) yield* entry.log.read(after, signal);
  }

  async cancel(id: string): Promise<boolean> {
    const entry = this.#jobs.get(id);
    if (!entry || entry.outcome) return false;
    entry.stop.abort(new Error('cancelled by the client'));
    for (const { waiting } of this.#lanes) {
      if (waiting.take(id))
        this.#end(entry, { type: 'cancelled' }, { waitMs: Date.now() - entry.spec.acceptedAt, runMs: 0 });
    }
    return true;
  }

  async forget(id: string): Promise<void> {
    if (!this.#jobs.get(id)?.outcome) return;
    this.#jobs.delete(id);
    await this.store.remove(`${id}/`);
  }

  async remember(client: string, key: string, id: string, digest: string): Promise<RememberedJob> {
    const name = JSON.stringify([client, key]);
    const before = this.#keys.get(name);
    if (before) return before;
    this.#keys.set(name, { id, digest });
    this.#later(() => this.#keys.delete(name));
    return { id, digest };
  }

  async models(): Promise<OfferedModel[]> {
    return this.#lanes.map(({ model: { name, defaults } }) => ({ name, defaults }));
  }

  async stats(): Promise<QueueStats> {
    let work = 0;
    for (const { waiting, running } of this.#lanes) {
      for (const { spec } of waiting) work += spec.work;
      if (running) work += running.spec.work * (1 - running.progress);
    }
    const waitMs = this.#speed.estimateMs(work, this.#lanes.length);
    return {
      waiting: this.#waiting,
      running: this.#lanes.filter(({ running }) => running).length,
      workers: this.#lanes.length,
      ...(waitMs !== undefined && { waitMs }),
    };
  }

  async drain(): Promise<void> {
    this.#draining = true;
    if (this.#lanes.every(({ running, waiting }) => !running && waiting.size === 0)) return;
    await new Promise<void>((resolve) => this.#idle.push(resolve));
  }

  async close(): Promise<void> {
    this.#draining = true;
    for (const id of this.#jobs.keys()) await this.cancel(id);
    await this.drain();
    for (const timer of this.#timers) clearTimeout(timer);
    await this.store.close();
  }

  get #waiting(): number {
    return this.#lanes.reduce((sum, { waiting }) => sum + waiting.size, 0);
  }

  #advance(lane: Lane): void {
    if (lane.running) return;
    const entry = lane.waiting.next(lane.warm);
    if (!entry) {
      if (this.#lanes.every(({ running, waiting }) => !running && waiting.size === 0))
        for (const idle of this.#idle.splice(0)) idle();
      return;
    }
    lane.running = entry;
    void this.#run(lane.model, entry).then(() => {
      lane.warm = entry.shape;
      lane.running = undefined;
      this.#advance(lane);
    });
  }

  async #run({ engine }: LocalModel, entry: Entry): Promise<void> {
    const { spec, log, stop } = entry;
    const started = Date.now();
    const waitMs = started - spec.acceptedAt;
    entry.runs++;
    log.push({ type: 'running', run: entry.runs });
    const outcome = await runJob(
      engine,
      spec,
      this.store,
      (event) => {
        if (event.type === 'progress') entry.progress = event.progress;
        log.push(event);
      },
      stop.signal,
    );
    const runMs = Date.now() - started;
    if (outcome.type === 'done') this.#speed.measured(spec.work, runMs);
    this.#end(entry, outcome, { waitMs, runMs });
  }

  #end(entry: Entry, outcome: JobOutcome, times: { waitMs: number; runMs: number }): void {
    entry.outcome = outcome;
    entry.progress = outcome.type === 'done' ? 1 : entry.progress;
    entry.log.push(outcome);
    this.options.onEnd?.(entry.spec, outcome, times);
    this.#later(() => this.forget(entry.id));
  }

  #later(task: () => unknown): void {
    const timer = setTimeout(() => {
      this.#timers.delete(timer);
      task();
    }, this.#keepMs);
    timer.unref();
    this.#timers.add(timer);
  }
}
