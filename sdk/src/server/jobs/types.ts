// The server's vocabulary: what a job is, what happens to it, and what every queue and every store must do.
// Jobs are plain JSON, so that the same one can wait in this process or on Redis.
import type { ModelDefaults } from '../../kontext/options.ts';
import type { ImageSize, ResolvedOptions, Stage, Timings } from '../../kontext/types.ts';

/** File formats results are written in. */
export type OutputFormat = 'png' | 'jpeg' | 'webp';

/** A picture that a client sent, by its key in the {@link BlobStore}. */
export interface StoredPicture extends ImageSize {
  /** Where its bytes, as they were sent, lie. */
  key: string;
}

/** Options of a job's engine call, as JSON holds them. */
export interface JobOptions extends Record<string, unknown> {
  /** What to make or to change. */
  prompt: string;
}

/** One accepted request. Everything that decides the picture is in it, the seed too: run again, it gives the same pixels. */
export interface JobSpec {
  /** Unguessable; also the start of its blobs' keys. */
  id: string;
  /** Who asked; fairness and limits go by it. */
  client: string;
  /** 0 is served first, 9 last. */
  priority: number;
  /** Name of a model that the server offers. */
  model: string;
  /** `edit` has pictures, `generate` has none. */
  kind: 'edit' | 'generate';
  /** Options of `edit()` or `generate()` without pictures, as JSON holds them. */
  request: JobOptions;
  /** Decimal, because seeds go beyond 2⁵³. */
  seed: string;
  /** The picture to edit, then further references. */
  pictures: StoredPicture[];
  /** `alpha`: where it is transparent the picture changes; `luminance`: where it is white. */
  mask?: StoredPicture & {
    /** What in the file says where to change. */
    from: 'alpha' | 'luminance';
  };
  /** How results are written. */
  output: {
    /** File format. */
    format: OutputFormat;
    /** 1 to 100, for JPEG and WebP. */
    quality: number;
  };
  /** Rough pictures to show on the way, 0 to 3. */
  partialImages: number;
  /** Jobs with the same shape run the same programs. */
  shape: string;
  /** Predicted work, in steps of a square megapixel; only for waiting times. */
  work: number;
  /** Milliseconds since 1970. */
  acceptedAt: number;
}

/** One finished picture of a job. */
export interface JobImage extends ImageSize {
  /** Where its file lies in the {@link BlobStore}. */
  key: string;
  /** File format. */
  format: OutputFormat;
  /** Size of the file. */
  bytes: number;
}

/** Tokens as the transformer attends to them; texts are padded, so every prompt counts in full. */
export interface TokenUsage {
  /** Of the padded prompt. */
  textTokens: number;
  /** Of the references. */
  imageTokens: number;
  /** Of all pictures made. */
  outputTokens: number;
}

/** What a finished job gives. */
export interface JobResult {
  /** In the order of their seeds. */
  images: JobImage[];
  /** Of the first picture, decimal. */
  seed: string;
  /** Every option as it was used. */
  options: ResolvedOptions;
  /** The end of the prompt was not read. */
  truncated: boolean;
  /** Tokens. */
  usage: TokenUsage;
  /** Evaluations of the transformer. */
  evaluations: number;
  /** How many of them reused an earlier one; absent without `cache`. */
  skipped?: number;
  /** Milliseconds of each stage. */
  timings: Timings;
}

/** Why a job failed: the SDK's code and sentence, or a store's. */
export interface JobError {
  /** Stable identifier. */
  code: string;
  /** What happened and what to do about it. */
  message: string;
  /** Plain data a program can act on. */
  details?: Record<string, unknown>;
}

/** What ends a job: exactly one of these for every job accepted. `done` has its result, `failed` its error. */
export type JobOutcome =
  | { type: 'done'; result: JobResult }
  | { type: 'failed'; error: JobError }
  | { type: 'cancelled' };

/** What happens to a job, in order; `seq` counts from 1. */
export type JobEvent = {
  /** Position among the job's events, from 1. */
  seq: number;
} & JobEventBody;

/** What the engine is at: its `ProgressEvent`, but for previews and the share that is done. */
export type ProgressDetail =
  | { type: 'stage'; stage: Stage }
  | { type: 'compile'; component: string; done: number; total: number }
  | { type: 'load'; component: string; loadedBytes: number; totalBytes: number }
  | { type: 'step'; image: number; step: number; steps: number; stepMs: number };

/**
 * A {@link JobEvent} before it is numbered: `queued` behind `ahead` others of its client or server; `running` for the `run`-th time;
 * `progress` as the engine tells it; `partial`, a rough picture after `step` steps; then one {@link JobOutcome}.
 */
export type JobEventBody =
  | { type: 'queued'; ahead: number }
  | { type: 'running'; run: number }
  | { type: 'progress'; progress: number; remainingMs?: number; detail: ProgressDetail }
  | { type: 'partial'; index: number; step: number; image: JobImage }
  | JobOutcome;

/** How far a job is. */
export interface JobState {
  /** What was asked for. */
  spec: JobSpec;
  /** `queued` until a worker takes it, then `running`, then its outcome. */
  status: 'queued' | 'running' | JobOutcome['type'];
  /** 0 to 1. */
  progress: number;
  /** How often a worker began it; more than once after a worker died. */
  runs: number;
  /** Once it has ended. */
  outcome?: JobOutcome;
}

/** A model that can be asked for. */
export interface OfferedModel {
  /** As requests name it. */
  name: string;
  /** Of its `kontext.json`. */
  defaults: ModelDefaults;
}

/** What an idempotency key stands for. */
export interface RememberedJob {
  /** Of the job. */
  id: string;
  /** Of the request that made it. */
  digest: string;
}

/** What waits and what runs, as far as this process knows. */
export interface QueueStats {
  /** Jobs that wait. */
  waiting: number;
  /** Jobs that run. */
  running: number;
  /** Workers that take jobs. */
  workers: number;
  /** Milliseconds until a job accepted now would begin; absent before anything was measured. */
  waitMs?: number;
}

/** Where jobs wait and who runs them: in this process, or on Redis. */
export interface JobQueue {
  /**
   * Accepts a job, or refuses it. A job of an id that is there already is left as it is.
   *
   * @throws ApiError 429 when the queue is full, 503 while it drains
   */
  add(spec: JobSpec): Promise<void>;
  /** Undefined when there is none of this id, or it was forgotten. */
  state(id: string): Promise<JobState | undefined>;
  /** Events after number `after`, then those to come, until the outcome, which is the last. */
  events(id: string, after: number, signal: AbortSignal): AsyncIterable<JobEvent>;
  /** Ends a job that has not ended; false when there was none to end. */
  cancel(id: string): Promise<boolean>;
  /** Drops a finished job and its pictures. */
  forget(id: string): Promise<void>;
  /** The id of the job that this client gave this key before, or `id` after remembering it. */
  remember(client: string, idempotencyKey: string, id: string, digest: string): Promise<RememberedJob>;
  /** Models that some worker offers now. */
  models(): Promise<OfferedModel[]>;
  /** For waiting times and metrics. */
  stats(): Promise<QueueStats>;
  /** Stops taking jobs and resolves when those accepted in this process have ended. */
  drain(): Promise<void>;
  /** Ends everything of this process. */
  close(): Promise<void>;
}

/** Where pictures lie between client and worker. */
export interface BlobStore {
  /** The bytes appear whole or not at all. @throws ApiError 507 when there is no room */
  put(key: string, bytes: Uint8Array): Promise<void>;
  /** Undefined when there is none, or its time is over. */
  get(key: string): Promise<Uint8Array<ArrayBuffer> | undefined>;
  /** Removes every blob whose key begins with `prefix`, an id and a slash. */
  remove(prefix: string): Promise<void>;
  /** Frees timers and connections. */
  close(): Promise<void>;
}
