// How fast this server has proved to be, for honest waiting times.
// Old measurements fade: a change of model or size shows after a few jobs.

/** Weight of the newest job. */
const FADE = 0.3;

/** Milliseconds a unit of predicted work takes, from finished jobs. */
export class Speed {
  #msPerWork: number | undefined;

  /** @param work as `JobSpec.work` @param ms from its begin to its end */
  measured(work: number, ms: number): void {
    const rate = ms / Math.max(work, Number.MIN_VALUE);
    this.#msPerWork = this.#msPerWork === undefined ? rate : this.#msPerWork + FADE * (rate - this.#msPerWork);
  }

  /** Milliseconds that `work` will take, spread over `workers`; undefined before anything was measured. */
  estimateMs(work: number, workers: number): number | undefined {
    return this.#msPerWork === undefined ? undefined : (work * this.#msPerWork) / Math.max(1, workers);
  }
}

/** A `Retry-After`: whole seconds, at least 1, at most an hour. */
export function retryAfterSeconds(waitMs: number | undefined): number {
  return Math.min(3600, Math.max(1, Math.ceil((waitMs ?? 5_000) / 1000)));
}
