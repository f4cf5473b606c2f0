// Numbers for Prometheus, by prom-client. Names follow its conventions: base units, `_total` on counters.
// Labels are few and bounded: routes, outcomes, models; never a client, a prompt or an id.
import { Counter, collectDefaultMetrics, Gauge, Histogram, Registry } from 'prom-client';
import type { JobOutcome, JobQueue, JobSpec } from '../jobs/types.ts';

/** All metrics of one server or worker. */
export interface Metrics {
  /** Counts an answer. */
  request(route: string, status: number, seconds: number): void;
  /** Counts an ended job. */
  job(spec: JobSpec, outcome: JobOutcome, times: { waitMs: number; runMs: number }): void;
  /** The text that Prometheus scrapes. */
  text(queue?: JobQueue): Promise<string>;
  /** Of that text. */
  contentType: string;
}

/** Counters and histograms of one process. @param process also memory, event loop and garbage collection of this process */
export function createMetrics({ process = true }: { process?: boolean } = {}): Metrics {
  const registry = new Registry();
  if (process) collectDefaultMetrics({ register: registry, prefix: 'kontext_' });
  const registers = [registry];
  const requests = new Counter({
    name: 'kontext_http_requests_total',
    help: 'Answers by route and status',
    labelNames: ['route', 'status'],
    registers,
  });
  const seconds = new Histogram({
    name: 'kontext_http_request_seconds',
    help: 'From request to the end of the answer',
    labelNames: ['route'],
    buckets: [0.005, 0.02, 0.1, 0.5, 1, 2, 5, 10, 30, 60, 120, 300],
    registers,
  });
  const jobs = new Counter({
    name: 'kontext_jobs_total',
    help: 'Ended jobs by model and outcome',
    labelNames: ['model', 'outcome'],
    registers,
  });
  const wait = new Histogram({
    name: 'kontext_job_wait_seconds',
    help: 'From acceptance to begin',
    buckets: [0.01, 0.1, 1, 5, 15, 60, 300, 1800],
    registers,
  });
  const run = new Histogram({
    name: 'kontext_job_run_seconds',
    help: 'From begin to end, by model',
    labelNames: ['model'],
    buckets: [0.1, 0.5, 1, 2, 5, 10, 20, 40, 80, 160, 320],
    registers,
  });
  const images = new Counter({
    name: 'kontext_images_total',
    help: 'Finished pictures',
    labelNames: ['model'],
    registers,
  });
  const waiting = new Gauge({ name: 'kontext_queue_waiting', help: 'Jobs that wait', registers });
  const running = new Gauge({ name: 'kontext_queue_running', help: 'Jobs that run', registers });
  const workers = new Gauge({ name: 'kontext_workers', help: 'Workers that take jobs', registers });
  return {
    contentType: registry.contentType,
    request(route, status, took) {
      requests.inc({ route, status });
      seconds.observe({ route }, took);
    },
    job({ model }, outcome, { waitMs, runMs }) {
      jobs.inc({ model, outcome: outcome.type });
      wait.observe(waitMs / 1000);
      if (runMs > 0) run.observe({ model }, runMs / 1000);
      if (outcome.type === 'done') images.inc({ model }, outcome.result.images.length);
    },
    async text(queue) {
      const stats = await queue?.stats();
      if (stats) {
        waiting.set(stats.waiting);
        running.set(stats.running);
        workers.set(stats.workers);
      }
      return registry.metrics();
    },
  };
}
